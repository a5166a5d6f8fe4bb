// The forms: to send a message, and to call a method with its parameters.

import { $, element, setText } from "./dom.js";

const MAX_RESULT = 20_000;
const CALL_TIMEOUT = 60_000;
// Seconds for which the node keeps the connection of a message, should this page be gone.
const TTL = 30;

// JSON, or else the text as it is.
function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function argumentsOf(text) {
  const args = [];
  const kwargs = {};
  for (const line of text.split("\n")) {
    const named = /^\s*([A-Za-z_]\w*)=(.*)$/s.exec(line);
    if (named) kwargs[named[1]] = valueOf(named[2]);
    else if (line.trim()) args.push(valueOf(line.trim()));
  }
  return [args, kwargs];
}

function show(output, text, state) {
  output.dataset.state = state;
  setText(output, text.length > MAX_RESULT ? `${text.slice(0, MAX_RESULT)}…` : text);
}

export class Forms {
  #peer;
  #methods = new Map();
  #fields = [];

  constructor(peer) {
    this.#peer = peer;
    $("send-form").onsubmit = (event) => this.#run(event, "send-result", () => this.#send());
    $("call-form").onsubmit = (event) => this.#run(event, "call-result", () => this.#call());
    $("call-method").oninput = () => this.#showMethod();
  }

  // What the server offers; nothing may be sent or called if it does not say so.
  offer(methods, mayWrite) {
    this.#methods = new Map(methods.map((method) => [method.name, method]));
    $("read-only").hidden = mayWrite;
    $("call-form").hidden = !mayWrite;
    $("send-form").hidden = !mayWrite || !this.#methods.has("connect_oneway");
    $("methods").replaceChildren(
      ...methods.map(({ name, signature }) => element("option", { value: name, label: `${name}${signature}` })),
    );
    if (mayWrite) this.#showMethod();
  }

  async #run(event, output, work) {
    event.preventDefault();
    const button = event.target.querySelector("[type=submit]");
    const shown = $(output);
    // Not disabled: the focus would be lost.
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    show(shown, "…", "waiting");
    const began = performance.now();
    try {
      const text = await work();
      show(shown, `${text}  (${Math.round(performance.now() - began)} ms)`, "good");
    } catch (error) {
      show(shown, error.message, "bad");
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  async #send() {
    const [args, kwargs] = argumentsOf($("send-arguments").value);
    const token = await this.#peer.call("connect_oneway", [TTL]);
    try {
      const params = [token, $("send-identifier").value.trim(), args, kwargs];
      const status = await this.#peer.call("send_message", params);
      if (status !== "ok") throw new Error(status);
      return "Sent.";
    } finally {
      this.#peer.call("close_connection", [token]).catch(() => {});
    }
  }

  async #call() {
    const name = $("call-method").value.trim();
    const args = [];
    const kwargs = {};
    for (const { parameter, input } of this.#fields) {
      const text = input.value;
      if (parameter === null || parameter.kind.startsWith("var_")) {
        const [more, named] = argumentsOf(text);
        args.push(...more);
        Object.assign(kwargs, named);
      } else if (text.trim() || parameter.required) kwargs[parameter.name] = valueOf(text.trim());
    }
    // JSON-RPC has either; where there are positional ones, the named ones come before them in order.
    let params = kwargs;
    if (args.length || this.#fields.some(({ parameter }) => parameter?.kind === "positional_only")) {
      params = [...Object.values(kwargs), ...args];
    }
    const result = await this.#peer.call(name, params, CALL_TIMEOUT);
    return JSON.stringify(result, null, 1);
  }

  #showMethod() {
    const method = this.#methods.get($("call-method").value.trim());
    const doc = method ? `${method.name}${method.signature}${method.doc ? `\n${method.doc}` : ""}` : "";
    setText($("call-doc"), doc || `${this.#methods.size} methods; the list completes what you type.`);
    const parameters = method ? method.parameters : [null];
    const names = JSON.stringify(parameters.map((parameter) => parameter?.name));
    if (this.#fields.shown === names) return;
    this.#fields = parameters.map((parameter) => {
      const isOne = parameter !== null && !parameter.kind.startsWith("var_");
      const input = element(isOne ? "input" : "textarea", {
        spellcheck: "false",
        autocomplete: isOne ? "off" : null,
        rows: isOne ? null : 2,
        required: isOne && parameter.required,
        placeholder: isOne && parameter.default !== null ? parameter.default : null,
      });
      const annotation = parameter?.annotation ? `: ${parameter.annotation}` : "";
      const title = parameter === null ? "Arguments" : `${parameter.name}${annotation}`;
      return { parameter, input, label: element("label", {}, `${title} `, input) };
    });
    this.#fields.shown = names;
    $("call-parameters").replaceChildren(...this.#fields.map(({ label }) => label));
  }
}
