// The WebSocket to the server: JSON-RPC 2.0, and a new connection when it is lost.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;
const TIMEOUT = 15_000;

export class CallError extends Error {}

export class Peer {
  #handlers;
  #socket = null;
  #pending = new Map();
  #ids = 0;
  #pause = FIRST_PAUSE;
  #timer = null;

  // opened(): the calls work now; lost(): they do not; notified(method, params): the server says something.
  constructor(handlers) {
    this.#handlers = handlers;
    this.#connect();
  }

  get isOpen() {
    return this.#socket !== null && this.#socket.readyState === WebSocket.OPEN;
  }

  // Do not wait for the next attempt.
  retry() {
    if (this.#timer !== null) {
      clearTimeout(this.#timer);
      this.#connect();
    }
  }

  call(method, params = [], timeout = TIMEOUT) {
    return new Promise((resolve, reject) => {
      if (!this.isOpen) {
        reject(new CallError("the server is gone"));
        return;
      }
      const id = ++this.#ids;
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new CallError(`no answer within ${timeout / 1000} s`));
      }, timeout);
      this.#pending.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ jsonrpc: "2.0", method, params, id }));
    });
  }

  async #connect() {
    this.#timer = null;
    let pass;
    try {
      // Not all browsers send the password of the page with its WebSocket.
      const response = await fetch("/page/pass", { cache: "no-store" });
      if (!response.ok) throw new CallError(response.statusText);
      pass = await response.text();
    } catch {
      this.#lost();
      return;
    }
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const url = `${scheme}//${location.host}/page/ws`;
    const socket = new WebSocket(url, ["jsonrpc", `bearer.${pass}`]);
    this.#socket = socket;
    socket.onopen = () => {
      this.#pause = FIRST_PAUSE;
      this.#handlers.opened();
    };
    socket.onmessage = (event) => this.#received(JSON.parse(event.data));
    socket.onclose = () => this.#lost();
  }

  #lost() {
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new CallError("the server is gone"));
    }
    this.#pending.clear();
    this.#timer = setTimeout(() => this.#connect(), this.#pause);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
    this.#handlers.lost();
  }

  #received(message) {
    if (message.method !== undefined) {
      this.#handlers.notified(message.method, message.params);
      return;
    }
    const waiting = this.#pending.get(message.id);
    if (waiting === undefined) return;
    this.#pending.delete(message.id);
    clearTimeout(waiting.timer);
    if (message.error) {
      const { message: text, data } = message.error;
      // The words of the specification, and what is wrong in particular.
      waiting.reject(new CallError(typeof data === "string" ? data : text));
    } else waiting.resolve(message.result);
  }
}
