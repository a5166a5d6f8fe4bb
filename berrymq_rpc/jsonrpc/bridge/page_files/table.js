// Tables whose rows are changed in place, so that focus and selection stay where they are.

import { element, setText, setAttribute, svg } from "./dom.js";

// A line of the last rates; the text beside it says the present one.
export class Sparkline {
  constructor() {
    this.line = svg("polyline", { class: "line" });
    this.area = svg("polygon", { class: "area" });
    this.node = svg(
      "svg",
      { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area,
      this.line,
    );
  }

  show(history) {
    const most = Math.max(...history, 0.001);
    const step = 100 / Math.max(1, history.length - 1);
    const points = history.map(
      (value, index) => `${(index * step).toFixed(1)},${(22 - (20 * value) / most).toFixed(1)}`,
    );
    setAttribute(this.line, "points", points.join(" "));
    setAttribute(this.area, "points", points.length ? `0,24 ${points.join(" ")} 100,24` : "");
  }
}

// columns: { title, name (optional class), text(item), fill(cell, item) } ; key(item) tells the rows apart.
export class Table {
  #columns;
  #key;
  #rows = new Map();
  #body = element("tbody", { role: "rowgroup" });
  #note = element("p", { class: "hint" });
  #table;
  #empty;

  constructor(section, { caption, columns, key, empty }) {
    this.#columns = columns;
    this.#key = key;
    this.#empty = empty;
    // The roles stand there as rows are no table rows to a browser once they are laid out as a grid.
    this.#table = element(
      "table",
      { role: "table", "aria-label": caption },
      element(
        "thead",
        { role: "rowgroup" },
        element(
          "tr",
          { role: "row" },
          ...columns.map(({ title, name }) =>
            element("th", { scope: "col", role: "columnheader", class: name }, title),
          ),
        ),
      ),
      this.#body,
    );
    section.append(this.#table, this.#note);
  }

  show(items, omitted = 0) {
    const seen = new Set();
    let place = this.#body.firstElementChild;
    for (const item of items) {
      let key = this.#key(item);
      while (seen.has(key)) key += "'";
      seen.add(key);
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = this.#newRow();
        this.#rows.set(key, row);
      }
      if (row.node !== place) this.#body.insertBefore(row.node, place);
      else place = place.nextElementSibling;
      this.#columns.forEach((column, index) => {
        const cell = row.cells[index];
        if (column.fill) column.fill(cell, item, row);
        else {
          const text = String(column.text(item));
          setText(cell, text);
          if (column.full) setAttribute(cell, "title", text);
        }
      });
    }
    for (const [key, row] of this.#rows) {
      if (!seen.has(key)) {
        row.node.remove();
        this.#rows.delete(key);
      }
    }
    this.#table.hidden = !items.length;
    const more = omitted ? `${omitted} more are not shown.` : "";
    setText(this.#note, items.length ? more : this.#empty);
    this.#note.hidden = !this.#note.textContent;
  }

  #newRow() {
    const cells = this.#columns.map(({ name, title }, index) =>
      element(index ? "td" : "th", {
        class: name,
        role: index ? "cell" : "rowheader",
        scope: index ? null : "row",
        "data-title": title,
      }),
    );
    return { node: element("tr", { role: "row" }, ...cells), cells, spark: null };
  }
}

export function sparkCell(cell, { history, text }, row) {
  if (row.spark === null) {
    row.spark = new Sparkline();
    row.sparkText = element("span", { class: "number" });
    cell.append(row.spark.node, row.sparkText);
  }
  row.spark.show(history);
  setText(row.sparkText, text);
}

export function badgeCell(cell, text, state) {
  let badge = cell.firstElementChild;
  if (badge === null) {
    badge = element("span", { class: "badge" });
    cell.append(badge);
  }
  setText(badge, text);
  setAttribute(badge, "data-state", state);
}

// A bar for how full a queue is; without a limit, the number alone.
export function depthCell(cell, { depth, limit }) {
  if (cell.firstElementChild === null) {
    cell.append(
      element("span", { class: "number" }),
      element("span", { class: "track", "aria-hidden": "true" }, svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none" }, svg("rect", { height: 6, width: 0 }))),
    );
  }
  const [number, track] = cell.children;
  setText(number, limit ? `${depth.toLocaleString("en")} of ${limit.toLocaleString("en")}` : depth.toLocaleString("en"));
  track.hidden = !limit;
  const share = limit ? Math.min(100, (100 * depth) / limit) : 0;
  const bar = track.querySelector("rect");
  setAttribute(bar, "width", depth && share < 2 ? 2 : share);
  setAttribute(track, "data-state", share > 90 ? "bad" : share > 60 ? "warn" : "good");
}
