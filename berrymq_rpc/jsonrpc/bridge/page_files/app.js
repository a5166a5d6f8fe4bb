// The page: asks the server once a second what runs, and shows it. Nothing is asked while it is hidden.

import { $, bytes, count, duration, element, rate, seconds, setAttribute, setText } from "./dom.js";
import { Forms } from "./form.js";
import { Graph } from "./graph.js";
import { Peer } from "./peer.js";
import { badgeCell, depthCell, sparkCell, Table } from "./table.js";
import { Tail } from "./tail.js";

const PERIOD = 1000;
// A server that works answers within milliseconds.
const PATIENCE = 4000;

const STYLES = {
  "01": "interconnection",
  "02": "one way",
  "03": "queue",
  cluster: "cluster",
  http: "HTTP",
  websocket: "WebSocket",
  tcp: "TCP",
  zeromq: "ZeroMQ",
};

const FIGURES = ["Messages", "Calls", "Errors", "Connections", "Queued", "Dropped", "Loop delay"];

const figures = new Map();
for (const title of FIGURES) {
  const value = element("dd", {}, "–");
  figures.set(title, value);
  $("figures").firstElementChild.append(element("div", {}, element("dt", {}, title), value));
}

const graph = new Graph();

const identifiers = new Table($("identifiers"), {
  caption: "Identifiers with their rates",
  key: (item) => item.identifier,
  empty: "No messages yet.",
  columns: [
    { title: "Identifier", name: "mono", text: (item) => item.identifier, full: true },
    { title: "Messages", name: "number", text: (item) => count(item.messages) },
    {
      title: "Rate",
      name: "rate",
      fill: (cell, item, row) => sparkCell(cell, { history: item.history, text: rate(item.rate) }, row),
    },
  ],
});

const QUEUES = { local: "here", remote: "for others", link: "to a node", durable: "in the cluster" };

const queues = new Table($("queues"), {
  caption: "Queues with their depth",
  key: (item) => `${item.kind} ${item.identifier} ${item.peer}`,
  empty: "No queues.",
  columns: [
    { title: "Queue", name: "mono", text: (item) => item.peer ?? item.identifier, full: true },
    { title: "Kept", text: (item) => QUEUES[item.kind] ?? item.kind },
    { title: "Depth", name: "depth", fill: depthCell },
    { title: "Bytes", name: "number", text: (item) => (item.bytes === null ? "–" : bytes(item.bytes)) },
    {
      title: "Dropped",
      name: "number",
      fill: (cell, item) => badgeCell(cell, count(item.dropped), item.dropped ? "bad" : "none"),
    },
  ],
});

const calls = new Table($("calls"), {
  caption: "Calls by method",
  key: (item) => `${item.direction} ${item.method}`,
  empty: "No calls yet.",
  columns: [
    {
      title: "Method",
      name: "mono",
      text: (item) => `${item.direction === "out" ? "→ " : ""}${item.method}`,
      full: true,
    },
    { title: "Calls", name: "number", text: (item) => count(item.calls) },
    {
      title: "Errors",
      name: "number",
      fill: (cell, item) => badgeCell(cell, count(item.errors), item.errors ? "bad" : "none"),
    },
    { title: "p50", name: "number", text: (item) => seconds(item.p50) },
    { title: "p99", name: "number", text: (item) => seconds(item.p99) },
    {
      title: "Rate",
      name: "rate",
      fill: (cell, item, row) => sparkCell(cell, { history: item.history, text: rate(item.rate) }, row),
    },
  ],
});

const connections = new Table($("connections"), {
  caption: "Connections",
  key: (item) => `${item.direction} ${item.style} ${item.peer} ${item.identifier}`,
  empty: "No connections.",
  columns: [
    { title: "Peer", name: "mono", text: (item) => item.user ?? item.peer, full: true },
    {
      title: "Style",
      text: (item) => {
        const style = STYLES[item.style] ?? item.style;
        return item.identifier ? `${style} of ${item.identifier}` : style;
      },
    },
    { title: "Direction", text: (item) => (item.direction === "out" ? "made here" : "from the peer") },
    { title: "State", fill: (cell, item) => badgeCell(cell, item.is_up ? "up" : "lost", item.is_up ? "good" : "bad") },
    { title: "Waiting", name: "number", text: (item) => count(item.waiting) },
  ],
});

function show(state) {
  setText($("name"), state.name);
  document.title = `${state.name} – berrymq`;
  const where = [...state.endpoints, ...state.urls, ...(state.cluster ? [state.cluster] : [])];
  setText($("where"), where.join("  ·  "));
  const rates = new Map(state.identifiers.map((item) => [item.identifier, item.rate]));
  graph.show(state.graph, state.omitted.graph, rates);
  identifiers.show(state.identifiers, state.omitted.identifiers);
  queues.show(state.queues, state.omitted.queues);
  calls.show(state.calls, state.omitted.calls);
  connections.show(state.connections, state.omitted.connections);
  complete(state);
  showFigures(state);
  const at = new Date(state.time * 1000).toLocaleTimeString("en-GB");
  setText($("foot"), `As of ${at}, up for ${duration(state.uptime)}.`);
}

const sum = (items, name) => items.reduce((total, item) => total + item[name], 0);

function showFigures(state) {
  const drops = Object.values(state.drops).reduce((total, number) => total + number, 0);
  const errors = sum(state.calls, "errors");
  const values = {
    Messages: rate(sum(state.identifiers, "rate")),
    Calls: rate(sum(state.calls, "rate")),
    Errors: count(errors),
    Connections: count(state.connections.length + state.omitted.connections),
    Queued: count(sum(state.queues, "depth")),
    Dropped: count(drops),
    "Loop delay": state.loop ? seconds(state.loop.p99) : "–",
  };
  for (const [title, text] of Object.entries(values)) setText(figures.get(title), text);
  setAttribute(figures.get("Errors"), "data-state", errors ? "bad" : "none");
  const dropped = figures.get("Dropped");
  setAttribute(dropped, "data-state", drops ? "bad" : "none");
  // Which they are.
  setAttribute(dropped, "title", Object.entries(state.drops).map(([name, number]) => `${name}: ${number}`).join("\n"));
}

let known = "";

function complete(state) {
  const names = new Set(state.identifiers.map((item) => item.identifier));
  for (const node of state.graph.nodes) if (node.kind === "identifier") names.add(node.label);
  const sorted = [...names].sort();
  if (sorted.join("\n") === known) return;
  known = sorted.join("\n");
  $("known").replaceChildren(...sorted.map((value) => element("option", { value })));
}

// -- the server

let wasOpen = false;
let timer = null;
let isAsking = false;

function setLink(state, text) {
  setAttribute($("link"), "data-state", state);
  setText($("link"), text);
}

const peer = new Peer({
  async opened() {
    setLink("good", "live");
    $("banner").hidden = true;
    document.body.classList.remove("stale");
    wasOpen = true;
    ask();
    tail.resume();
    try {
      const [{ methods }, { write, messages }] = await Promise.all([
        peer.call("rpc.describe"),
        peer.call("rpc.page"),
      ]);
      forms.offer(methods, write);
      // A handler has calls alone.
      for (const part of ["graph", "identifiers", "queues", "tail"]) $(part).hidden = !messages;
    } catch (error) {
      forms.offer([], false);
    }
  },
  lost() {
    tail.lost();
    setLink("bad", "disconnected");
    document.body.classList.add("stale");
    const text = wasOpen
      ? "The server is gone. What you see is from before; this page connects again by itself."
      : "The server cannot be reached. This page tries again by itself.";
    if ($("banner").hidden) {
      setText($("banner"), text);
      $("banner").hidden = false;
    }
  },
  notified(method, params) {
    if (method === "message") tail.received(params);
  },
});

const forms = new Forms(peer);
const tail = new Tail(peer);

async function ask() {
  clearTimeout(timer);
  // A slow server or browser gets one question at a time.
  if (isAsking || document.hidden || !peer.isOpen) return;
  isAsking = true;
  try {
    show(await peer.call("rpc.state", [], PATIENCE));
    setLink("good", "live");
  } catch (error) {
    if (peer.isOpen) setLink("bad", error.message);
  } finally {
    isAsking = false;
    timer = setTimeout(ask, PERIOD);
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    tail.pause();
  } else {
    peer.retry();
    ask();
    tail.resume();
  }
});
