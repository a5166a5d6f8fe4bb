// The messages as they come, of the identifiers that are asked for.

import { $, count, element, setAttribute, setText } from "./dom.js";

const MAX_LINES = 500;
const MAX_CHARACTERS = 2000;
// What comes between two paintings beyond this is counted, and not shown.
const MAX_WAITING = 300;

export class Tail {
  #peer;
  #subscription = null;
  #asked = 0;
  #isWanted = false;
  #waiting = [];
  #seen = 0;
  #dropped = 0;
  #frame = null;
  #log = $("tail-log");

  constructor(peer) {
    this.#peer = peer;
    $("tail-form").onsubmit = (event) => {
      event.preventDefault();
      if (this.#isWanted && this.#asked === $("tail-identifier").value) this.stop();
      else this.#start();
    };
    $("tail-identifier").oninput = () => this.#say();
    $("tail-text").oninput = () => this.#filter();
    $("tail-clear").onclick = () => {
      this.#log.replaceChildren();
      this.#seen = this.#dropped = 0;
      this.#say();
    };
    this.#say();
  }

  async #start() {
    this.#isWanted = true;
    await this.resume();
  }

  stop() {
    this.#isWanted = false;
    this.pause();
    this.#say();
  }

  // Begin again, after the connection was lost or the page was hidden.
  async resume() {
    if (!this.#isWanted || !this.#peer.isOpen) return;
    this.pause();
    this.#asked = $("tail-identifier").value;
    const asked = this.#asked;
    try {
      const id = await this.#peer.call("subscribe", [asked]);
      if (this.#isWanted && this.#asked === asked && !document.hidden) this.#subscription = id;
      else this.#leave(id);
      this.#say();
    } catch (error) {
      this.#isWanted = false;
      this.#say(`${error.message}`);
    }
  }

  pause() {
    if (this.#subscription !== null) this.#leave(this.#subscription);
    this.#subscription = null;
  }

  // The connection is gone, and the subscription with it.
  lost() {
    this.#subscription = null;
  }

  #leave(id) {
    // It ends with the connection otherwise.
    if (this.#peer.isOpen) this.#peer.call("unsubscribe", [id]).catch(() => {});
  }

  received({ id, args, kwargs, dropped, retained, subscription }) {
    if (subscription !== this.#subscription) return;
    this.#seen += 1;
    this.#dropped += dropped ?? 0;
    if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ id, args, kwargs, retained, at: new Date() });
    else this.#dropped += 1;
    this.#frame ??= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = null;
    const log = this.#log;
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const wanted = $("tail-text").value.toLowerCase();
    const lines = this.#waiting.map((message) => {
      const line = lineOf(message);
      line.hidden = !line.textContent.toLowerCase().includes(wanted);
      return line;
    });
    this.#waiting = [];
    log.append(...lines);
    while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
    this.#say();
  }

  #filter() {
    const wanted = $("tail-text").value.toLowerCase();
    for (const line of this.#log.children) {
      line.hidden = !line.textContent.toLowerCase().includes(wanted);
    }
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  #say(problem = "") {
    const isSame = this.#isWanted && this.#asked === $("tail-identifier").value;
    setText($("tail-start"), isSame ? "Stop" : "Follow");
    setAttribute($("tail-start"), "aria-pressed", isSame);
    const state = $("tail-state");
    if (problem) setText(state, problem);
    else if (!this.#isWanted) setText(state, this.#seen ? "Stopped." : "Nothing is followed.");
    else setText(state, `Following ${this.#asked}.`);
    // Not in the live region: it changes all the time.
    setAttribute(state, "data-count", this.#seen ? ` ${count(this.#seen)} so far${this.#dropped ? `, ${count(this.#dropped)} not shown` : ""}` : "");
  }
}

function lineOf({ id, args, kwargs, retained, at }) {
  const parts = [
    ...args.map((value) => JSON.stringify(value)),
    ...Object.entries(kwargs).map(([name, value]) => `${name}=${JSON.stringify(value)}`),
  ];
  let text = parts.join("  ");
  if (text.length > MAX_CHARACTERS) text = `${text.slice(0, MAX_CHARACTERS)}…`;
  return element(
    "li",
    {},
    element("time", { datetime: at.toISOString() }, at.toLocaleTimeString("en-GB")),
    element("b", {}, id),
    retained ? element("i", {}, "retained") : null,
    element("span", {}, text),
  );
}
