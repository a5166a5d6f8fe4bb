// The graph of who sends and follows what, as a drawing and as a table.

import { $, element, rate, setAttribute, setText, svg } from "./dom.js";
import { COLUMNS, layOut } from "./layout.js";
import { Table } from "./table.js";

const PADDING = 5;
const HEAD = 26;
const HEIGHT = 24;
const CHARACTER = 6.95;
const SMALL_CHARACTER = 6.05;

const GLYPHS = { identifier: "", function: "ƒ", class: "◇", queue: "≡", connection: "⇄" };
const KINDS = { function: "function", class: "class", queue: "queue", connection: "connection" };

function shortened({ kind, label }, room) {
  const text = label.replace(/^__main__\./, "").replaceAll("<locals>.", "");
  if (text.length <= room) return text;
  if (kind === "identifier" || text.includes("://")) return `${text.slice(0, room - 1)}…`;
  // The end of a name says more than its module.
  return `…${text.slice(text.length - room + 1)}`;
}

const many = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;

export class Graph {
  #drawing = $("drawing");
  #selected = $("selected");
  #table;
  #shown = "";
  #width = 0;
  #graph = { nodes: [], edges: [] };
  #omitted = 0;
  #rates = new Map();
  #nodes = [];
  #edges = [];
  #chosen = null;
  #list = null;

  constructor() {
    this.#table = new Table($("graph-table"), {
      caption: "Who sends and follows what",
      key: (item) => item.identifier,
      empty: "Nothing follows yet.",
      columns: [
        { title: "Identifier", name: "mono", text: (item) => item.identifier, full: true },
        { title: "Sent by", name: "mono", text: (item) => item.senders.join(", ") || "–" },
        { title: "Followed by", name: "mono", text: (item) => item.followers.join(", ") || "–" },
      ],
    });
    for (const view of ["graph", "table"]) {
      $(`as-${view}`).onclick = () => this.#view(view);
    }
    new ResizeObserver(() => this.#draw()).observe(this.#drawing);
    if (matchMedia("(max-width: 600px)").matches) this.#view("table");
  }

  #view(view) {
    setAttribute($("as-graph"), "aria-pressed", view === "graph");
    setAttribute($("as-table"), "aria-pressed", view === "table");
    this.#drawing.hidden = this.#selected.hidden = view !== "graph";
    $("graph-table").hidden = view !== "table";
    this.#draw();
  }

  show(graph, omitted, rates) {
    this.#rates = rates;
    const text = JSON.stringify([graph, omitted]);
    if (text !== this.#shown) {
      this.#shown = text;
      this.#graph = graph;
      this.#omitted = omitted;
      this.#width = 0;
      this.#table.show(rowsOf(graph), omitted);
    }
    this.#draw();
    for (const { node, text: label, group } of this.#nodes) {
      const now = rates.get(node.label) ?? 0;
      if (label) setText(label, node.kind === "identifier" && now ? rate(now) : "");
      group.classList.toggle("active", isBusy(node, rates));
    }
    for (const { line, identifiers } of this.#edges) {
      line.classList.toggle("active", isBusy(identifiers[0], rates));
    }
  }

  #draw() {
    const width = this.#drawing.clientWidth - 2 * PADDING;
    if (this.#drawing.hidden || width <= 0 || width === this.#width) return;
    this.#width = width;
    const hadFocus = this.#list !== null && document.activeElement === this.#list;
    this.#drawing.replaceChildren();
    this.#nodes = [];
    this.#edges = [];
    if (!this.#graph.nodes.length) {
      this.#list = null;
      this.#drawing.append(element("p", { class: "hint" }, "Nothing follows yet."));
      setText(this.#selected, "");
      return;
    }
    const { columns, edges, height } = layOut(this.#graph);
    const used = columns.map((column) => column.some((node) => !node.isSlot));
    const shown = [0, 1, 2, 3].filter((column) => used[column]);
    const gap = Math.max(10, Math.min(110, width / (shown.length * (width < 520 ? 7 : 3.2))));
    const box = (width - gap * (shown.length - 1)) / shown.length;
    const left = (column) => {
      const index = shown.findIndex((other) => other >= column);
      return (index < 0 ? shown.length : index) * (box + gap);
    };
    this.#list = this.#newList(width, height);
    const behind = svg("g", { class: "edges", "aria-hidden": "true" });
    const front = svg("g", { role: "presentation" });
    this.#list.append(behind, front);
    for (const column of shown) {
      const x = left(column) + box / 2;
      this.#list.append(svg("text", { class: "column", x, y: 14, "text-anchor": "middle", "aria-hidden": "true" }, COLUMNS[column]));
    }
    for (const edge of edges) {
      const line = svg("path", {
        class: `edge ${edge.kind}${edge.guarded ? " guarded" : ""}`,
        d: curve(edge.path, left, box, used),
      });
      behind.append(line);
      const identifiers = edge.path.filter((node) => node.kind === "identifier");
      this.#edges.push({ edge, line, identifiers });
    }
    // In the order of reading, which the arrow keys follow.
    for (const column of shown) {
      for (const node of columns[column]) {
        if (!node.isSlot) front.append(this.#newNode(node, left(column), box));
      }
    }
    this.#drawing.append(this.#list);
    const chosen = this.#nodes.find(({ node }) => node.key === this.#chosen);
    this.#choose(chosen ?? null, false);
    if (hadFocus) this.#list.focus();
    if (!chosen) this.#summarize();
  }

  #newList(width, height) {
    const list = svg("svg", {
      class: width < 520 ? "small" : null,
      role: "listbox",
      tabindex: 0,
      "aria-label": "Graph of who sends and follows what. Arrow keys move through it; the table says the same.",
      width,
      height: height + HEAD + 4,
      viewBox: `0 0 ${width} ${height + HEAD + 4}`,
    });
    list.addEventListener("keydown", (event) => this.#pressed(event));
    list.addEventListener("click", (event) => {
      const group = event.target.closest("[role=option]");
      const found = this.#nodes.find((each) => each.group === group);
      this.#choose(found && found.node.key !== this.#chosen ? found : null);
    });
    list.addEventListener("focus", () => {
      if (this.#chosen === null && list.matches(":focus-visible")) this.#choose(this.#nodes[0]);
    });
    return list;
  }

  #newNode(node, x, box) {
    const y = HEAD + node.y - HEIGHT / 2;
    const isSmall = box < 110;
    const glyph = isSmall ? "" : GLYPHS[node.kind] ?? "";
    const isIdentifier = node.kind === "identifier";
    const margin = isSmall ? 5 : 10;
    const start = x + (glyph ? 26 : margin);
    const character = isSmall ? SMALL_CHARACTER : CHARACTER;
    const count = node.objects > 1 ? ` ×${node.objects}` : "";
    const room = Math.max(4, Math.floor((x + box - start - margin + 2) / character) - count.length - (isIdentifier && box > 150 ? 6 : 0));
    const speed = isIdentifier && box > 150
      ? svg("text", { class: "speed", x: x + box - 8, y: y + 16, "text-anchor": "end" })
      : null;
    const group = svg(
      "g",
      { role: "option", id: `node-${this.#nodes.length}`, class: `node ${node.kind}`, "aria-selected": "false", "aria-label": described(node) },
      svg("title", {}, node.label + count),
      svg("rect", { x: x + 0.5, y: y + 0.5, width: box - 1, height: HEIGHT - 1, rx: isIdentifier ? 12 : 5 }),
      glyph ? svg("text", { class: "glyph", x: x + 13, y: y + 16.5, "text-anchor": "middle" }, glyph) : null,
      svg("text", { class: "name", x: start, y: y + 16.5 }, shortened(node, room) + count),
      speed,
    );
    this.#nodes.push({ node, group, text: speed });
    return group;
  }

  #pressed(event) {
    const { columns } = this.#byColumns();
    const now = this.#nodes.findIndex(({ node }) => node.key === this.#chosen);
    const here = now < 0 ? null : this.#nodes[now];
    const column = here === null ? [] : columns.get(here.node.column);
    const all = [...columns.keys()];
    const beside = (step) => {
      const next = columns.get(all[all.indexOf(here.node.column) + step]);
      const linked = step > 0 ? here.node.after : here.node.before;
      return nearest((next ?? []).filter(({ node }) => reaches(linked, node, step)), here) ?? nearest(next ?? [], here);
    };
    const moves = {
      ArrowDown: () => column[column.indexOf(here) + 1],
      ArrowUp: () => column[column.indexOf(here) - 1],
      ArrowRight: () => beside(1),
      ArrowLeft: () => beside(-1),
      Home: () => this.#nodes[0],
      End: () => this.#nodes.at(-1),
      Escape: () => null,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = here === null && event.key !== "Escape" ? this.#nodes[0] : moves[event.key]();
    if (next !== undefined) this.#choose(next);
  }

  #byColumns() {
    const columns = new Map();
    for (const each of this.#nodes) {
      if (!columns.has(each.node.column)) columns.set(each.node.column, []);
      columns.get(each.node.column).push(each);
    }
    return { columns };
  }

  #choose(found, tell = true) {
    this.#chosen = found === null ? null : found.node.key;
    if (this.#list === null) return;
    if (found === null) this.#list.removeAttribute("aria-activedescendant");
    else this.#list.setAttribute("aria-activedescendant", found.group.id);
    const near = found === null ? null : family(found.node);
    for (const { node, group } of this.#nodes) {
      setAttribute(group, "aria-selected", found !== null && group === found.group);
      group.classList.toggle("far", near !== null && !near.has(node));
    }
    for (const { edge, line } of this.#edges) {
      const isNear = near !== null && edge.path.every((node) => near.has(node));
      line.classList.toggle("far", near !== null && !isNear);
      line.classList.toggle("near", isNear);
    }
    if (!tell) return;
    if (found === null) this.#summarize();
    else setText(this.#selected, described(found.node));
  }

  #summarize() {
    const identifiers = this.#graph.nodes.filter((node) => node.kind === "identifier").length;
    const others = this.#graph.nodes.length - identifiers;
    const more = this.#omitted ? ` ${this.#omitted} more are not shown.` : "";
    const what = `${many(identifiers, "identifier")}, and ${others} that send or follow them.`;
    setText(this.#selected, `${what}${more} Choose one to see what it is connected with.`);
  }
}

// Whether messages of an identifier come now; for a wildcard, of one that leads to it.
function isBusy(node, rates) {
  if (node.kind !== "identifier") return false;
  const leading = ends(node, "before").filter((other) => other.kind === "identifier");
  return [node, ...leading].some((other) => rates.get(other.label) > 0);
}

// What leads to a node, and what it leads to.
function family(node) {
  const found = new Set([node]);
  for (const side of ["before", "after"]) {
    const waiting = [node];
    while (waiting.length) {
      for (const other of waiting.pop()[side]) {
        if (!found.has(other)) {
          found.add(other);
          waiting.push(other);
        }
      }
    }
  }
  return found;
}

function reaches(linked, node, step) {
  return linked.some((other) => other === node || (other.isSlot && reaches(step > 0 ? other.after : other.before, node, step)));
}

function nearest(found, here) {
  let best;
  for (const each of found) {
    if (best === undefined || Math.abs(each.node.y - here.node.y) < Math.abs(best.node.y - here.node.y)) best = each;
  }
  return best;
}

function ends(node, side) {
  return node[side].flatMap((other) => (other.isSlot ? ends(other, side) : [other]));
}

function described(node) {
  const names = (side) => [...new Set(ends(node, side).map((other) => other.label))];
  const list = (found) => (found.length > 6 ? `${found.slice(0, 6).join(", ")} and ${found.length - 6} more` : found.join(", "));
  const count = node.objects > 1 ? `, ${node.objects} objects` : "";
  const parts = [];
  const [before, after] = [names("before"), names("after")];
  if (node.kind === "identifier") {
    if (before.length) parts.push(`sent by ${list(before)}`);
    parts.push(after.length ? `goes to ${list(after)}` : "followed by nothing");
    return `${node.label}: ${parts.join("; ")}`;
  }
  if (after.length) parts.push(`sends ${list(after)}`);
  if (before.length) parts.push(`follows ${list(before)}`);
  return `${KINDS[node.kind] ?? node.kind} ${node.label}${count}: ${parts.join("; ") || "nothing"}`;
}

// A line from box to box that leaves and arrives level.
function curve(path, left, box, used) {
  let d = "";
  for (let index = 1; index < path.length; index++) {
    const [start, end] = [path[index - 1], path[index]];
    const [x1, y1] = [left(start.column) + box, HEAD + start.y];
    const [x2, y2] = [left(end.column), HEAD + end.y];
    const bend = (x2 - x1) / 2;
    if (index === 1) d += `M${x1.toFixed(1)},${y1.toFixed(1)}`;
    d += ` C${(x1 + bend).toFixed(1)},${y1.toFixed(1)} ${(x2 - bend).toFixed(1)},${y2.toFixed(1)} ${x2.toFixed(1)},${y2.toFixed(1)}`;
    if (end.isSlot && used[end.column]) d += ` H${(x2 + box).toFixed(1)}`;
  }
  return d;
}

function rowsOf(graph) {
  const byId = new Map(graph.nodes.map((node) => [node.id, node]));
  const name = ({ label, objects }) => label.replace(/^__main__\./, "") + (objects > 1 ? ` ×${objects}` : "");
  const rows = graph.nodes
    .filter((node) => node.kind === "identifier")
    .map((node) => ({ id: node.id, identifier: node.label, senders: [], followers: [] }));
  const rowOf = new Map(rows.map((row) => [row.id, row]));
  for (const edge of graph.edges) {
    if (edge.kind === "sends") rowOf.get(edge.to)?.senders.push(name(byId.get(edge.from)));
    if (edge.kind === "follows") {
      const label = edge.label ? `.${edge.label}` : "";
      rowOf.get(edge.from)?.followers.push(`${name(byId.get(edge.to))}${label}${edge.guarded ? " (guarded)" : ""}`);
    }
  }
  return rows.sort((a, b) => a.identifier.localeCompare(b.identifier));
}
