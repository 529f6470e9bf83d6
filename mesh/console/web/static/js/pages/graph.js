// The service graph: declared and observed edges.

import { get, every } from "../api.js";
import { empty, facts, h, head, page, pill, refresh, s, show } from "../dom.js";
import { bounds, picker, range } from "../range.js";
import { clock, count, minutesAgo, percent, rate } from "../format.js";

const NODE = { width: 132, height: 48 }, GAP = { x: 150, y: 44 };
const MOST_DRAWN = 24;

export async function graph(main, { signal, query, keep }) {
  let chosen = query.get("edge") ?? "", at = Date.parse(query.get("at") ?? "") ? query.get("at") : "", workload = query.get("workload") ?? "";
  const picture = h("div", { class: "card scroll" }), side = h("div", {}), table = h("div", {}), note = h("p", { class: "muted", role: "status" });
  const names = h("datalist", { id: "workloads" });
  const filter = h("label", {}, "Workload", h("input", { type: "search", name: "workload", list: "workloads", placeholder: "any", value: workload, onchange: (event) => { workload = event.target.value.trim(); stay(); draw(); } }), names);
  show(main, head("Graph", "Declared and observed calls in the time range. Undeclared edges and edges that were never observed are highlighted.", picker()), replay(at, filter, (moment) => { at = moment; stay(); return update(); }, signal), note, picture, side, table);
  let edges = [];
  const stay = () => keep({ edge: chosen, at, workload });
  const choose = (key) => { chosen = key === chosen ? "" : key; stay(); draw(); };
  const draw = () => {
    const known = workloads(edges), near = edges.filter((e) => !workload || e.from === workload || e.to === workload);
    const drawn = few(joined(near)), shown = workloads(drawn).length;
    show(names, [...known].sort().map((name) => h("option", { value: name })));
    note.textContent = !near.length && workload ? `No calls of ${workload} in this time range.` : shown < workloads(near).length ? `The graph shows ${shown} of ${workloads(near).length} workloads: failing calls first, then declared ones. Choose a workload to see its calls.` : "";
    refresh(picture, drawn.length ? drawing(drawn, chosen, choose) : null);
    refresh(side, chosen ? detail(edges.filter((e) => key(e) === chosen)) : null);
    refresh(table, listing(near, draw));
  };
  const update = async () => {
    const { items } = await get("graph", at ? slice(at) : range(), signal);
    // Undeclared edges are shown only in the time range in which they were observed.
    edges = items.filter((e) => e.declared || e.observed);
    draw();
  };
  await every(5000, signal, update);
}

/** Returns the replay steps of the time range: at most 60, of whole minutes, by which calls are counted. */
function steps() {
  const { since, until } = bounds(), begin = Math.floor(since / 60) * 60, step = 60 * Math.max(1, Math.ceil((until - begin) / 3600));
  return { begin, step, count: Math.ceil((until - begin) / step) };
}

const iso = (seconds) => new Date(seconds * 1000).toISOString();

/** Returns the time range of the step that ends at a time. */
function slice(at) {
  return { from: iso(Date.parse(at) / 1000 - steps().step), to: at };
}

/** A slider that replays the graph step by step; its last position shows the whole range. */
function replay(at, filter, chosen, signal) {
  const { begin, step, count: last } = steps();
  const output = h("output", {}), reached = at ? Math.round((Date.parse(at) / 1000 - begin) / step) : last + 1;
  const slider = h("input", { type: "range", min: 1, max: last + 1, "aria-label": "Replay" });
  slider.value = Math.min(last + 1, Math.max(1, reached));
  const moment = () => (Number(slider.value) > last ? "" : iso(begin + step * Number(slider.value)));
  const name = () => {
    const now = moment();
    const text = now ? `${clock(slice(now).from, false)} to ${clock(now, false)}` : "whole time range";
    show(output, text);
    slider.setAttribute("aria-valuetext", text);
  };
  const moved = () => { name(); return chosen(moment()); };
  let timer = 0;
  const play = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    if (timer) return stop();
    if (Number(slider.value) > last) slider.value = 0;
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => { slider.value = Number(slider.value) + 1; moved(); if (Number(slider.value) > last) stop(); }, 700);
  } }, "Play");
  const stop = () => { clearInterval(timer); timer = 0; play.setAttribute("aria-pressed", "false"); };
  signal.addEventListener("abort", stop);
  slider.addEventListener("input", () => { stop(); moved(); });
  name();
  return h("div", { class: "filters replay" }, filter, h("label", { class: "wide" }, "Replay", slider), output, play);
}

const key = (edge) => `${edge.from}→${edge.to}`;

/** Returns one edge per pair of workloads. */
function joined(edges) {
  const pairs = new Map();
  for (const edge of edges) {
    const pair = pairs.get(key(edge)) ?? { key: key(edge), from: edge.from, to: edge.to, rate: 0, calls: 0, errors: 0, refused: 0, undeclared: false, observed: false, ever: false };
    for (const name of ["rate", "calls", "refused"]) pair[name] += edge[name];
    // A stream is counted when it ends, and each failed attempt to open one, as when a service starts: no measure of failing.
    pair.errors += edge.staysOpen ? 0 : edge.errors;
    pair.undeclared ||= !edge.declared;
    pair.observed ||= edge.observed;
    pair.ever ||= edge.everObserved;
    pairs.set(pair.key, pair);
  }
  return [...pairs.values()];
}

const workloads = (edges) => [...new Set(edges.flatMap((e) => [e.from, e.to]))];

/** Returns the edges of at most `MOST_DRAWN` workloads: failing ones first, then those of the contracts. */
function few(edges) {
  const names = new Set(), rank = (e) => ["failing", "live", "quiet", "never", "undeclared"].indexOf(state(e));
  return [...edges].sort((a, b) => rank(a) - rank(b) || b.calls - a.calls).filter(({ from, to }) => {
    const added = [from, to].filter((name) => !names.has(name));
    if (names.size + added.length > MOST_DRAWN) return false;
    added.forEach((name) => names.add(name));
    return true;
  });
}

const FEW = 20;

/** Returns the failures of an edge: a ratio only if there are enough calls. */
const failed = ({ calls, errors }) => (calls < FEW ? `${errors} of ${calls} failed` : `${percent(errors / calls)} fail`);

function state(edge) {
  if (edge.undeclared) return "undeclared";
  if (edge.errors > (edge.calls < FEW ? 2 : edge.calls * 0.05)) return "failing";
  return edge.observed ? "live" : edge.ever ? "quiet" : "never";
}

function drawing(edges, chosen, choose) {
  const places = layout(edges);
  const columns = Math.max(...[...places.values()].map((p) => p.column)) + 1;
  const rows = Math.max(...[...places.values()].map((p) => p.rows));
  const width = columns * NODE.width + (columns - 1) * GAP.x + 48, height = rows * (NODE.height + GAP.y) + 70;
  for (const place of places.values()) {
    place.x = 24 + place.column * (NODE.width + GAP.x);
    place.y = height / 2 + (place.row - (place.rows - 1) / 2) * (NODE.height + GAP.y) - NODE.height / 2;
  }
  const arrow = s("defs", {}, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse", markerUnits: "userSpaceOnUse" }, s("path", { d: "M0,0L8,4L0,8Z" })));
  return s("svg", { class: "graph", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Calls between workloads", style: { "max-width": `${width * 1.25}px` } },
    arrow, edges.map((edge) => line(edge, places, chosen, choose)), [...places.values()].map(node));
}

/** Assigns each workload to a column by its distance from the browser. */
function layout(edges) {
  const names = new Set(edges.flatMap((e) => [e.from, e.to]));
  const order = ["browser", "operator", "gateway", "health", "survey", "auth", "redcap", "outbox"];
  const columns = new Map([["browser", 0], ["operator", 0], ["gateway", 1]]);
  const backends = new Set(edges.filter((e) => !edges.some((o) => o.from === e.to)).map((e) => e.to));
  for (const name of names) if (!columns.has(name)) columns.set(name, backends.has(name) && ["redcap", "outbox"].includes(name) ? 3 : edges.some((e) => e.to === name) ? 2 : 0);
  const grouped = new Map();
  for (const name of [...names].sort((a, b) => (order.indexOf(a) + 99) % 99 - (order.indexOf(b) + 99) % 99)) {
    const column = columns.get(name);
    grouped.set(column, [...(grouped.get(column) ?? []), name]);
  }
  const used = [...grouped.keys()].sort((a, b) => a - b);
  const places = new Map();
  for (const [column, members] of grouped) {
    members.forEach((name, row) => places.set(name, { name, column: used.indexOf(column), row, rows: members.length }));
  }
  return places;
}

function node(place) {
  const outside = ["browser", "operator", "redcap", "outbox"].includes(place.name);
  return s("g", { class: `node ${outside ? "outside" : ""}` },
    s("rect", { x: place.x, y: place.y, width: NODE.width, height: NODE.height, rx: 12 }),
    s("text", { x: place.x + NODE.width / 2, y: place.y + 29 }, place.name));
}

function line(edge, places, chosen, choose) {
  const from = places.get(edge.from), to = places.get(edge.to), kind = state(edge);
  let path, at;
  if (from.column === to.column) {
    // Within a column: an arc on the right for downward calls, on the left for upward ones.
    const down = to.row > from.row, x = down ? from.x + NODE.width : from.x, bow = (down ? 1 : -1) * (38 + 26 * Math.abs(to.row - from.row));
    const y1 = from.y + NODE.height * 0.5, y2 = to.y + NODE.height * 0.5;
    path = `M${x},${y1 + (down ? 8 : -8)}C${x + bow},${y1} ${x + bow},${y2} ${x + (down ? 2 : -2)},${y2 + (down ? -8 : 8)}`;
    at = { x: x + bow * 0.78, y: (y1 + y2) / 2 };
  } else {
    const forward = from.column < to.column;
    const shift = edge.from < edge.to ? -6 : 6;
    const x1 = forward ? from.x + NODE.width : from.x, x2 = forward ? to.x - 2 : to.x + NODE.width + 2;
    const y1 = from.y + NODE.height / 2 + (forward ? shift : -shift), y2 = to.y + NODE.height / 2 + (forward ? shift : -shift);
    const bend = (x2 - x1) / 2;
    path = `M${x1},${y1}C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
    // The label is past the middle, where edges from the same node have diverged.
    const t = 0.62, u = 1 - t;
    at = { x: u ** 3 * x1 + 3 * u * u * t * (x1 + bend) + 3 * u * t * t * (x2 - bend) + t ** 3 * x2, y: u ** 3 * y1 + 3 * u * u * t * y1 + 3 * u * t * t * y2 + t ** 3 * y2 };
  }
  const words = { live: rate(edge.rate), failing: `${rate(edge.rate)}, ${failed(edge)}`, undeclared: edge.refused && edge.refused >= edge.calls ? `denied ${rate(edge.rate)}` : `undeclared ${rate(edge.rate)}`, quiet: "idle", never: "never observed" }[kind];
  return s("g", {
    class: `edge ${kind} ${chosen === edge.key ? "chosen" : ""}`, tabindex: 0, role: "button", "data-focus": edge.key, "data-row": true,
    "aria-pressed": String(chosen === edge.key), "aria-label": `${edge.from} calls ${edge.to}: ${words}`,
    onclick: () => choose(edge.key), onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(edge.key); } },
  }, s("path", { class: "hit", d: path }), s("path", { class: "line", d: path, "marker-end": "url(#arrow)" }), s("text", { x: at.x, y: at.y + 4 }, words));
}

function detail(edges) {
  if (!edges.length) return null;
  return h("section", { class: "card" }, h("h2", {}, key(edges[0])), edges.map((edge) => facts([
    [edge.method || "requests", edge.declared ? pill("good", "declared") : pill("bad", "undeclared")],
    ["rate", `${rate(edge.rate)} (${count(edge.calls)} calls)`], ["failed", percent(edge.errorRatio)],
    ["last seen", minutesAgo(edge.lastSeen)],
    edge.refused ? ["denied", `${count(edge.refused)} by ${edge.policy}`] : ["declared in", h("code", {}, edge.source || edge.policy || "–")],
  ])));
}

/** A place in a file; the whole path is its title. */
const place = (path) => h("code", { title: path }, path.split("/").pop());

function listing(edges, again) {
  if (!edges.length) return empty("No declared or observed calls.");
  const rank = (e) => (e.declared ? 1 : 0) * 2 + (e.observed ? 0 : 1);
  const [rows, more] = page("edges", [...edges].sort((a, b) => rank(a) - rank(b)), again);
  return h("section", { class: "card flush" }, h("h2", {}, "All edges"), h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["State", "From", "To", "Method", "Rate", "Failed", "Denied", "Last seen", "Policy"].map((t, i) => h("th", { class: i > 3 && i < 7 ? "num" : i > 7 ? "optional" : "" }, t)))),
    h("tbody", {}, rows.map((e) => h("tr", {},
      h("td", {}, !e.declared ? pill("bad", "undeclared") : e.observed ? pill("good", "live") : e.everObserved ? pill("", "idle") : pill("warn", "never observed")),
      h("td", {}, e.from), h("td", {}, e.to),
      h("td", {}, e.method ? h("a", { href: `/traces?rpc=${e.method}`, "data-row": true, "data-focus": `${key(e)}${e.method}` }, e.method) : ""),
      h("td", { class: "num" }, e.calls ? rate(e.rate) : "–"), h("td", { class: "num" }, !e.calls ? "–" : e.errors && e.calls < FEW ? `${e.errors} of ${e.calls}` : percent(e.errorRatio)),
      h("td", { class: "num" }, e.refused ? h("span", { title: e.policy }, count(e.refused)) : "–"),
      h("td", { class: "num" }, minutesAgo(e.lastSeen)), h("td", { class: "optional" }, place(e.refused ? e.policy : e.source))))))), more);
}
