// Line charts and scatter plots as scalable SVG.

import { h, s } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 420, HEIGHT = 150, LEFT = 52, BOTTOM = 20, TOP = 10;

/**
 * Returns a line chart.
 * points: [{at (seconds), ...}]; lines: [[key, name]]; format: number to text;
 * target: the objective, drawn as a horizontal line;
 * marks: [{at, value, href, name, bad}], example calls that link to their traces.
 */
export function lines(title, points, series, { format, target, since, until, least = 0, marks = [], zoom }) {
  const values = points.flatMap((p) => series.map(([key]) => p[key])).filter((v) => v !== null && v !== undefined);
  const top = nice(Math.max(least, target ?? 0, ...values, ...marks.map((m) => m.value)) * 1.1 || 1);
  const lowest = Math.min(0, ...values), low = lowest < 0 ? -nice(-lowest * 1.1) : 0;
  const x = (at) => LEFT + ((at - since) / (until - since)) * (WIDTH - LEFT - 6);
  const y = (value) => TOP + (1 - (value - low) / (top - low)) * (HEIGHT - TOP - BOTTOM);
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: marks.length ? "group" : "img", "aria-label": title });
  for (const part of [0, 0.5, 1]) {
    const value = low + (top - low) * part;
    chart.append(s("line", { class: "grid-line", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }),
      s("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  for (const part of [0, 0.5, 1]) {
    const at = new Date((since + (until - since) * part) * 1000);
    chart.append(s("text", { x: x(at / 1000), y: HEIGHT - 4, "text-anchor": ["start", "middle", "end"][part * 2] },
      at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })));
  }
  series.forEach(([key], index) => {
    let path = "", from = null, last = null, area = "";
    for (const point of points) {
      if (point[key] === null || point[key] === undefined) { from = null; continue; }
      path += `${from === null ? "M" : "L"}${x(point.at).toFixed(1)},${y(point[key]).toFixed(1)}`;
      if (index === 0 && series.length === 1) area += `${area ? "L" : `M${x(point.at).toFixed(1)},${y(0)}L`}${x(point.at).toFixed(1)},${y(point[key]).toFixed(1)}`;
      from = last = point;
    }
    for (const [i, point] of points.entries()) {
      const alone = (other) => other?.[key] === null || other?.[key] === undefined;
      if (!alone(point) && alone(points[i - 1]) && alone(points[i + 1])) chart.append(s("circle", { class: `f${index}`, cx: x(point.at), cy: y(point[key]), r: 2.5 }));
    }
    if (area && last) chart.append(s("path", { class: `area f${index}`, d: `${area}L${x(last.at).toFixed(1)},${y(0)}Z` }));
    chart.append(s("path", { class: `s${index}`, d: path || "M0,0" }));
  });
  if (target) {
    chart.append(s("line", { class: "target", x1: LEFT, x2: WIDTH, y1: y(target), y2: y(target) }),
      s("text", { class: "target-name", x: WIDTH, y: y(target) - 4, "text-anchor": "end" }, `objective ${format(target)}`));
  }
  for (const mark of marks.filter((m) => m.at >= since && m.at <= until)) {
    const at = { transform: `translate(${x(mark.at).toFixed(1)} ${y(mark.value).toFixed(1)})` };
    chart.append(s("a", { href: mark.href, class: "mark", "aria-label": mark.name, "data-focus": mark.href }, s("title", {}, mark.name),
      s("path", { class: mark.bad ? "exemplar bad" : "exemplar", d: "M0,-5L5,0L0,5L-5,0Z", ...at })));
  }
  if (zoom) draggable(chart, WIDTH, LEFT, WIDTH - 6, HEIGHT, (part) => since + part * (until - since), zoom);
  const legend = series.length > 1 ? h("p", { class: "legend" }, series.map(([, name], i) => h("span", { class: `l${i}` }, h("i", {}), name))) : null;
  return h("figure", { style: { margin: 0 } }, h("h3", {}, title), chart, legend);
}

/** Returns a scatter plot of traces by time and duration; each dot links to its trace. */
export function dots(items, format, zoom) {
  if (items.length < 2) return null;
  const width = innerWidth < 600 ? 380 : 1000, height = 130, left = 56, bottom = 18;
  const times = items.map((i) => Date.parse(i.start)), longest = Math.max(...items.map((i) => i.durationMs), 0.1);
  const first = Math.min(...times), span = Math.max(1, Math.max(...times) - first);
  const shortest = Math.min(...items.map((i) => Math.max(i.durationMs, 0.05)));
  const scale = Math.log(longest / shortest) || 1;
  const x = (at) => left + ((at - first) / span) * (width - left - 12);
  const y = (value) => 10 + (1 - Math.log(Math.max(value, shortest) / shortest) / scale) * (height - bottom - 20);
  const chart = s("svg", { class: "chart dots", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Traces by time and duration" },
    s("line", { class: "grid-line", x1: left, x2: width, y1: y(longest), y2: y(longest) }),
    s("line", { class: "grid-line", x1: left, x2: width, y1: y(shortest), y2: y(shortest) }),
    s("text", { x: left - 6, y: y(longest) + 4, "text-anchor": "end" }, format(longest)),
    s("text", { x: left - 6, y: y(shortest) + 4, "text-anchor": "end" }, format(shortest)),
    s("text", { x: left, y: height - 2 }, clock(first, span < 10_000)),
    s("text", { x: width, y: height - 2, "text-anchor": "end" }, clock(first + span, span < 10_000)));
  for (const item of items) {
    chart.append(s("a", { href: `/traces/${item.traceId}`, "aria-label": `${item.name}, ${format(item.durationMs)}, ${item.status}`, tabindex: -1 },
      s("circle", { class: `dot ${item.status === "error" ? "bad" : ""}`, cx: x(Date.parse(item.start)).toFixed(1), cy: y(item.durationMs).toFixed(1), r: 5 },
        s("title", {}, `${item.name} · ${format(item.durationMs)}`))));
  }
  if (zoom) draggable(chart, width, left, width - 12, height, (part) => (first + part * span) / 1000, zoom);
  return chart;
}

/** Makes a range of a chart selectable by dragging; calls back with its start and end. */
function draggable(chart, width, left, right, height, moment, chosen) {
  let from = null;
  const part = (event) => {
    const box = chart.getBoundingClientRect();
    return Math.min(1, Math.max(0, (((event.clientX - box.left) / box.width) * width - left) / (right - left)));
  };
  const mark = s("rect", { class: "selection", y: 0, height, width: 0 });
  chart.append(mark);
  chart.addEventListener("pointerdown", (event) => { if (!event.button) from = part(event); });
  chart.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const [a, b] = [from, part(event)].sort((x, y) => x - y);
    mark.setAttribute("x", left + a * (right - left));
    mark.setAttribute("width", (b - a) * (right - left));
  });
  chart.addEventListener("pointerleave", () => { from = null; mark.setAttribute("width", 0); });
  chart.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [a, b] = [from, part(event)].sort((x, y) => x - y);
    from = null;
    mark.setAttribute("width", 0);
    if (b - a > 0.02) chosen(moment(a), moment(b));
  });
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}
