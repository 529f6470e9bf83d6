// Comparison of two traces: where time was spent, by service and span name.

import { get } from "../api.js";
import { h, head, show } from "../dom.js";
import { ms } from "../format.js";

export async function compare(main, { signal, query }) {
  const ids = [query.get("a") ?? "", query.get("b") ?? ""];
  if (!ids.every(Boolean)) {
    return show(main, head("Compare"), h("p", {}, "Open a trace, choose “Select to compare”, then open another one."));
  }
  const both = await Promise.all(ids.map((id) => get(`traces/${encodeURIComponent(id)}`, {}, signal)));
  const rows = new Map();
  both.forEach((trace, side) => {
    for (const span of trace.spans) {
      const key = `${span.service} ${span.name}`;
      const row = rows.get(key) ?? { service: span.service, name: span.name, spans: [0, 0], took: [0, 0], critical: [0, 0] };
      row.spans[side] += 1;
      row.took[side] += span.durationMs;
      row.critical[side] += span.criticalMs;
      rows.set(key, row);
    }
  });
  const ordered = [...rows.values()].sort((a, b) => Math.abs(b.critical[1] - b.critical[0]) - Math.abs(a.critical[1] - a.critical[0]));
  const change = (row) => row.critical[1] - row.critical[0];
  show(main, head("Compare", "Sorted by the change on the critical path."),
    h("section", { class: "card flush scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", {}, "Step"), both.map((t, i) => h("th", { class: "num" }, h("a", { href: `/traces/${ids[i]}` }, "AB"[i], h("span", { class: "optional" }, `: ${t.rpc || t.name}`)), ` ${ms(t.durationMs)}`)), h("th", { class: "num" }, "Critical path"))),
      h("tbody", {}, ordered.map((row) => h("tr", {}, h("td", { class: "step" }, h("b", {}, row.service), ` ${row.name}`),
        [0, 1].map((side) => h("td", { class: "num" }, row.spans[side] ? `${row.spans[side] > 1 ? `${row.spans[side]} × ` : ""}${ms(row.took[side] / row.spans[side])}` : "–")),
        h("td", { class: `num ${change(row) > 1 ? "level-error" : ""}` }, change(row) === 0 ? "same" : `${change(row) > 0 ? "+" : "−"}${ms(Math.abs(change(row)))}`)))))));
}
