// One trace: waterfall with critical path and logs.

import { get } from "../api.js";
import { facts, h, head, pill, show } from "../dom.js";
import { clock, count, hue, ms, percent } from "../format.js";

const ROWS = 500, FEW = 12;

export async function trace(main, { signal, keep, query }, id) {
  const [found, { items: logs }] = await Promise.all([get(`traces/${id}`, {}, signal), get("logs", { trace_id: id, limit: 500 }, signal)]);
  const spans = tree(found.spans);
  const begin = Math.min(...found.spans.map((s) => s.startUs)), end = Math.max(...found.spans.map((s) => s.startUs + s.durationMs * 1000));
  const whole = Math.max(1, end - begin);
  const place = (us) => ((us - begin) / whole) * 100;
  const mark = localStorage.getItem("compare");
  const tools = [
    navigator.clipboard && h("button", { type: "button", onclick: async (event) => { const button = event.currentTarget; await navigator.clipboard.writeText(id); button.textContent = "Copied"; } }, "Copy id"),
    h("button", { type: "button", onclick: (event) => { localStorage.setItem("compare", id); event.target.textContent = "Selected"; } }, "Select to compare"),
    mark && mark !== id ? h("a", { class: "button", href: `/compare?a=${mark}&b=${id}` }, "Compare with the selected trace") : null,
  ];
  const rows = h("div", { class: "waterfall", role: "group", "aria-label": "Spans" });
  const hidden = new Set(), opened = query.get("span") ?? "";
  let filter = query.get("filter") ?? "", most = Math.max(ROWS, spans.findIndex((s) => s.spanId === opened) + 1);
  const draw = () => {
    const shown = matching(spans, filter), visible = shown.filter((s) => !s.above.some((a) => hidden.has(a)));
    const more = visible.length - most;
    show(rows,
      h("div", { class: "ruler" }, h("span", {}, filter ? `${shown.filter((s) => s.matches).length} of ${count(spans.length)} spans` : `${count(spans.length)} spans`), h("span", { class: "ticks" }, [0, 0.25, 0.5, 0.75, 1].map((part) => h("span", {}, ms((whole * part) / 1000))))),
      visible.slice(0, most).map((s) => line(s)));
    show(rest, more > 0 ? h("button", { type: "button", onclick: () => { most += ROWS; draw(); } }, `Show ${count(Math.min(more, ROWS))} more of ${count(more)}`) : null);
  };
  const rest = h("p", { class: "padded" });
  const search = h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() }, h("label", {}, "Filter spans", h("input", {
    type: "search", name: "filter", value: filter, placeholder: "name, service, code or attribute",
    oninput: (event) => { filter = event.target.value.trim(); most = ROWS; keep({ filter }); draw(); },
  })));
  const own = (span) => logs.filter((log) => log.spanId === span.spanId);

  function line(span) {
    const colour = hue(span.service), notes = own(span), left = place(span.startUs), width = Math.max(0.15, (span.durationMs * 1000 / whole) * 100);
    const button = h("button", {
      type: "button", class: `span ${span.proxy ? "proxy" : ""} ${span.status === "error" ? "failed" : ""}`, "aria-expanded": "false", "data-row": true, "data-span": span.spanId,
      onclick: () => toggle(),
      onkeydown: (event) => {
        if (event.key === "ArrowLeft" && span.children) { hidden.add(span.spanId); draw(); focusOn(span.spanId); }
        if (event.key === "ArrowRight" && hidden.delete(span.spanId)) { draw(); focusOn(span.spanId); }
        if (event.key === "ArrowDown" || event.key === "ArrowUp") {
          event.preventDefault();
          const all = [...rows.querySelectorAll(".span")];
          all[all.indexOf(button) + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
        }
      },
    },
      h("span", { class: "label", style: { "padding-left": `${1.1 + Math.min(span.depth, 14) * 0.85}rem` } },
        h("i", { style: { background: colour, "border-color": colour } }), h("b", {}, span.service), " ", spoken(span), h("em", { title: span.name }, hidden.has(span.spanId) ? `${span.name} … ${span.below} hidden` : span.name)),
      h("span", { class: "track" },
        h("span", { class: "run", style: { left: `${left}%`, width: `${width}%`, background: colour, "border-color": colour } }),
        span.criticalMs > 0 ? h("span", { class: "critical", title: `${ms(span.criticalMs)} of the critical path`, style: { left: `${left}%`, width: `${Math.max(0.3, (span.criticalMs * 1000 / whole) * 100)}%` } }) : null,
        notes.map((log) => h("span", { class: "log", title: log.message, style: { left: `${place(Date.parse(log.at) * 1000)}%` } })),
        h("small", { style: left + width <= 85 ? { left: `${left + width}%` } : left >= 15 ? { right: `${100 - left}%` } : { right: `${100 - left - width}%` } }, ms(span.durationMs))));
    const toggle = () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) button.nextElementSibling?.remove(); else button.after(detail(span, notes, rank(span)));
      keep({ filter, span: open ? "" : span.spanId });
    };
    return button;
  }

  /** The rank of a span among those of its service, name and kind, fetched when it is opened. */
  function rank(span) {
    const place = h("span", {}, "…");
    get(`traces/${id}/spans/${span.spanId}`, {}, signal).then((answer) => show(place, ranked(answer.rank)), () => show(place, "unknown"));
    return place;
  }

  /** A text alternative for indent, colour and outline. */
  const spoken = (one) => h("span", { class: "hidden" }, [`level ${one.depth + 1}`, one.proxy ? "proxy" : "", one.status === "error" ? "failed" : ""].filter(Boolean).join(", "), " ");
  const focusOn = (key) => rows.querySelector(`[data-span="${key}"]`)?.focus();
  const busiest = [...found.spans].filter((s) => s.criticalMs > 0).sort((a, b) => b.criticalMs - a.criticalMs).slice(0, 4);
  show(main, head(found.rpc || found.name, null, ...tools),
    h("p", { class: "chips" }, found.status === "error" ? pill("bad", `${found.errorCount} failed`) : pill("good", "ok"), pill("", ms(found.durationMs)), pill("", clock(found.start)), found.rank.among > 1 ? pill("", ranked(found.rank)) : null, pill("", h("code", {}, id)),
      found.services.map((one) => pill("", h("i", { style: { background: hue(one.name), width: ".5rem", height: ".5rem", "border-radius": "3px" } }), `${one.name} ${one.spans}`))),
    h("p", { class: "muted", style: { margin: ".6rem 0 1rem" } }, "Critical path: ", busiest.map((s, i) => [i ? ", " : "", h("b", {}, `${s.service} ${ms(s.criticalMs)}`), ` in ${s.name}`]), ". Proxies are outlined, processes are filled; the thin line below a bar marks the critical path."),
    found.exemplars.length ? h("p", { class: "muted", style: { margin: "-.4rem 0 1rem" } }, "Exemplar in the metrics of ", found.exemplars.map((one, i) => [i ? ", " : "", h("a", { href: `/metrics?method=${encodeURIComponent(one.method)}` }, one.method), ` (${ms(one.durationMs)}, ${one.code})`])) : null,
    spans.length > FEW ? search : null,
    h("section", { class: "card flush scroll" }, rows, rest),
    found.linkedFrom.length ? h("section", { class: "card flush" }, h("h2", {}, "Linked from"), h("div", { class: "scroll" }, h("table", {}, found.linkedFrom.map((one) => h("tr", {}, h("td", {}, clock(one.start)), h("td", {}, h("a", { href: `/traces/${one.traceId}?span=${one.spanId}`, "data-row": true }, one.name))))))) : null,
    logs.length ? h("section", { class: "card flush" }, h("h2", {}, `Logs of this trace`), h("div", { class: "logs" }, [...logs].reverse().map(record))) : null);
  draw();
  const wanted = rows.querySelector(`[data-span="${CSS.escape(opened)}"]`);
  wanted?.click();
  wanted?.scrollIntoView({ block: "center" });
}

/** Describes a rank: how many of its kind a duration exceeds, and their percentiles. */
function ranked({ among, slowerThan, p50Ms, p95Ms, p99Ms, searched }) {
  const within = searched ? ` of its kind within the last ${count(searched)} spans of its service` : "";
  return among < 2 ? `the only one${within || " of its kind"}` : `slower than ${percent(slowerThan, 0)} of ${count(among)}${within} (p50 ${ms(p50Ms)}, p95 ${ms(p95Ms)}, p99 ${ms(p99Ms)})`;
}

/** Returns the spans that match a text, and those above them. */
function matching(spans, filter) {
  const wanted = filter.toLowerCase();
  if (!wanted) return spans;
  const kept = new Set(), found = new Set();
  for (const span of spans) {
    if (![span.service, span.instance, span.name, span.rpc, span.code, span.status, span.message, ...Object.entries(span.attributes).map(([name, value]) => `${name}=${text(value)}`)].some((one) => one.toLowerCase().includes(wanted))) continue;
    found.add(span.spanId);
    for (const one of [span.spanId, ...span.above]) kept.add(one);
  }
  return spans.filter((span) => kept.has(span.spanId)).map((span) => ({ ...span, matches: found.has(span.spanId) }));
}

/** Returns the spans in tree order, each with its depth and number of descendants. */
function tree(spans) {
  const known = new Set(spans.map((s) => s.spanId)), children = new Map();
  for (const span of spans) {
    const parent = known.has(span.parentSpanId) && span.parentSpanId !== span.spanId ? span.parentSpanId : "";
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const ordered = [], seen = new Set();
  const walk = (todo) => {
    while (todo.length) {
      const [span, depth, above] = todo.pop();
      if (seen.has(span.spanId)) continue;
      seen.add(span.spanId);
      const below = children.get(span.spanId) ?? [];
      ordered.push({ ...span, depth, above, children: below.length, below: 0 });
      todo.push(...below.toReversed().map((child) => [child, depth + 1, [...above, span.spanId]]));
    }
  };
  walk((children.get("") ?? []).toReversed().map((span) => [span, 0, []]));
  walk(spans.filter((s) => !seen.has(s.spanId)).map((span) => [span, 0, []])); // cycles of parents
  const byId = new Map(ordered.map((s) => [s.spanId, s]));
  for (const span of ordered) for (const above of span.above) byId.get(above).below += 1;
  return ordered;
}

function detail(span, logs, rank) {
  const attributes = Object.entries(span.attributes).map(([name, value]) => [name, h("a", { class: "mono", href: `/traces?attr=${encodeURIComponent(`${name}=${value}`)}`, title: "Find traces with this attribute" }, text(value))]);
  return h("div", { class: "detail" }, facts([
    ["span", h("code", {}, span.spanId)], ["start", clock(span.start)], ["kind", `${span.kind.toLowerCase()}${span.proxy ? ", proxy" : ""}`],
    span.instance ? ["instance", span.instance] : null, span.rpc ? ["method", h("a", { href: `/traces?rpc=${span.rpc}` }, span.rpc)] : null,
    span.code ? ["code", span.code] : null, span.message ? ["message", span.message] : null, ["duration", [ms(span.durationMs), ", ", rank]], ["on the critical path", ms(span.criticalMs)], ...attributes,
  ].filter(Boolean)),
  span.events.length ? [h("h3", {}, "Events"), facts(span.events.map((event) => [clock(event.at), `${event.name} ${Object.keys(event.attributes).length ? text(event.attributes) : ""}`]))] : null,
  span.links.length ? [h("h3", {}, "Links"), facts(span.links.map((link) => [link.kept ? h("a", { class: "mono", href: `/traces/${link.traceId}?span=${link.spanId}` }, link.traceId) : h("span", { class: "mono" }, link.traceId), [link.kept ? "" : "not stored. ", Object.keys(link.attributes).length ? text(link.attributes) : ""].join("")]))] : null,
  logs.length ? [h("h3", {}, "Logs"), h("div", { class: "logs" }, logs.map(record))] : null);
}

const text = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

/** Returns a log record as an expandable line. */
export function record(log) {
  const names = Object.entries(log.attributes);
  const brief = names.filter(([name]) => !["event", "service", "instance"].includes(name)).slice(0, 8).map(([name, value]) => `${name}=${text(value)}`).join("  ");
  return h("details", {}, h("summary", { "data-row": true, tabindex: 0 }, h("span", {}, clock(log.at)), h("span", { class: `level-${log.level}` }, log.level), h("span", { class: "who" }, log.instance || log.service), h("span", { class: "text" }, log.message, h("span", {}, `  ${brief}`))),
    facts([["service", log.service], ...(log.traceId ? [["trace", h("a", { href: `/traces/${log.traceId}${log.spanId ? `?span=${log.spanId}` : ""}` }, log.traceId)]] : []), ...names.map(([name, value]) => [name, h("code", {}, text(value))])]));
}
