// Where the nodes of the graph stand: in columns, in an order with few crossings. Draws nothing.

const SWEEPS = 12;
export const ROW = 30;
const SLOT = 12;

export const COLUMNS = ["sent by", "identifiers", "wildcards", "followed by"];

// Edges that say nothing: a connection brings and takes everything.
function isTold(edge, byId) {
  const [from, to] = [byId.get(edge.from), byId.get(edge.to)];
  if (edge.kind === "sends" && from.kind === "connection") return false;
  return !(edge.kind === "matches" && (from.label === "*@*:*" || to.label === "*@*:*"));
}

// { columns: [[node, ...], ...], edges: [{ ..., path: [node, ...] }], height }, each node with its y.
export function layOut(graph) {
  const byId = new Map(graph.nodes.map((node) => [node.id, node]));
  const told = graph.edges.filter((edge) => isTold(edge, byId));
  const matched = new Set(told.filter((edge) => edge.kind === "matches").map((edge) => edge.to));
  const placed = new Map();
  const columns = [[], [], [], []];
  const place = (node, column) => {
    const key = `${column} ${node.id}`;
    if (!placed.has(key)) {
      const copy = { ...node, key, column, before: [], after: [], y: 0 };
      placed.set(key, copy);
      columns[column].push(copy);
    }
    return placed.get(key);
  };
  const isIdentifier = (node) => node.kind === "identifier";
  const columnOf = (node) => (matched.has(node.id) ? 2 : 1);
  const edges = [];
  for (const edge of told) {
    const [from, to] = [byId.get(edge.from), byId.get(edge.to)];
    const start = place(from, isIdentifier(from) ? columnOf(from) : 0);
    const end = place(to, isIdentifier(to) ? columnOf(to) : 3);
    // Wildcards that are sent and followed may match each other: drawn in one direction.
    if (start.column < end.column) edges.push({ ...edge, path: [start, end] });
  }
  for (const node of graph.nodes) {
    const has = [0, 1, 2, 3].some((column) => placed.has(`${column} ${node.id}`));
    if (!has) place(node, isIdentifier(node) ? 1 : 3);
  }
  const hasWildcards = columns[2].length > 0;
  for (const edge of edges) throughSlots(edge, columns, placed, hasWildcards);
  for (const edge of edges) {
    for (let index = 1; index < edge.path.length; index++) {
      edge.path[index - 1].after.push(edge.path[index]);
      edge.path[index].before.push(edge.path[index - 1]);
    }
  }
  order(columns);
  return { columns, edges, height: setHeights(columns) };
}

// An edge that passes a column has a slot in it, one for all edges from the same node.
function throughSlots(edge, columns, placed, hasWildcards) {
  const [start, end] = edge.path;
  const path = [start];
  for (let column = start.column + 1; column < end.column; column++) {
    if (column === 2 && !hasWildcards) continue;
    const key = `slot ${column} ${column === 1 ? end.key : start.key}`;
    if (!placed.has(key)) {
      const slot = { key, column, isSlot: true, label: start.label, before: [], after: [], y: 0 };
      placed.set(key, slot);
      columns[column].push(slot);
    }
    path.push(placed.get(key));
  }
  edge.path = [...path, end];
}

function order(columns) {
  for (const column of columns) column.sort((a, b) => a.label.localeCompare(b.label));
  const settle = () => {
    for (const column of columns) {
      column.forEach((node, index) => {
        node.y = (index + 0.5) / column.length;
      });
    }
  };
  settle();
  const mean = (nodes) => nodes.reduce((sum, node) => sum + node.y, 0) / nodes.length;
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const side = sweep % 2 ? "after" : "before";
    for (const column of sweep % 2 ? [...columns].reverse() : columns) {
      for (const node of column) node.wanted = node[side].length ? mean(node[side]) : node.y;
      column.sort((a, b) => a.wanted - b.wanted);
      settle();
    }
  }
}

const sizeOf = (node) => (node.isSlot ? SLOT : ROW);

// The longest column is filled from top to bottom; what stands beside it is level with its neighbours.
function setHeights(columns) {
  const sizes = columns.map((column) => column.reduce((sum, node) => sum + sizeOf(node), 0));
  const height = Math.max(...sizes, ROW);
  const longest = sizes.indexOf(Math.max(...sizes));
  const distance = (index) => Math.abs(index - longest);
  const indexes = [0, 1, 2, 3].sort((a, b) => distance(a) - distance(b));
  const settled = new Set();
  for (const index of indexes) {
    const column = columns[index];
    let y = (height - sizes[index]) / 2;
    for (const node of column) {
      const near = [...node.before, ...node.after].filter((other) => settled.has(other));
      const even = y + sizeOf(node) / 2;
      node.wanted = near.length ? near.reduce((sum, other) => sum + other.y, 0) / near.length : even;
      y += sizeOf(node);
    }
    // In their order, none above another, and all within the height.
    let top = 0;
    for (const node of column) {
      node.y = Math.max(node.wanted, top + sizeOf(node) / 2);
      top = node.y + sizeOf(node) / 2;
    }
    let bottom = height;
    for (const node of [...column].reverse()) {
      node.y = Math.min(node.y, bottom - sizeOf(node) / 2);
      bottom = node.y - sizeOf(node) / 2;
    }
    for (const node of column) settled.add(node);
  }
  return height;
}
