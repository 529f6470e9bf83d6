// Methods and their objectives.

import { get, every } from "../api.js";
import { empty, h, head, pill, refresh, show } from "../dom.js";
import { bounds, picker, range, zoom } from "../range.js";
import { lines } from "../charts.js";
import { clock, count, ms, percent, rate } from "../format.js";
import { chooser, series } from "./series.js";

export async function metrics(main, { signal, query, keep }) {
  let method = query.get("method") ?? "", metric = query.get("series") ?? "", row = query.get("row") ?? "";
  const charts = h("div", {}), table = h("div", { class: "card flush" }), form = h("div", {}), others = h("div", {});
  show(main, head("Metrics", "Every method with the objective of its contract, and all other metrics.", picker()), charts, table,
    h("section", { class: "card flush" }, h("h2", {}, "Other metrics"), form, others));
  const name = (m) => `${m.service}.${m.method}`;
  const state = () => keep({ method, series: metric, row });
  const choose = (one) => { method = one === method ? "" : one; state(); update(); };
  const draw = async () => refresh(others, metric ? await series(metric, row, (one) => { row = one; state(); draw(); }, draw, signal) : null);
  const chooseMetric = (one) => { metric = one; row = ""; state(); draw(); };
  let known = "";
  const update = async () => {
    const [{ items }, { items: names }] = await Promise.all([get("metrics", range(), signal), get("series", {}, signal)]);
    const one = items.find((m) => name(m) === method), list = names.map((n) => n.name).join();
    refresh(table, listing(items, method, choose, name));
    if (list !== known || !form.firstChild) refresh(form, chooser(names, metric, chooseMetric));
    known = list;
    await draw();
    if (!method) return refresh(charts, null);
    const { items: points, exemplars } = await get(`metrics/${encodeURIComponent(method)}`, range(), signal);
    refresh(charts, one ? detail(one, points, exemplars) : empty(`No calls of ${method} in this time range.`));
  };
  await every(10_000, signal, update);
}

function detail(method, points, exemplars) {
  const { since, until } = bounds(), objective = method.objective;
  const burns = Object.entries(method.burnRates ?? {});
  const left = method.budgetLeft, failed = exemplars.filter((e) => e.failed).slice(-5).reverse();
  const marks = exemplars.map((e) => ({ at: e.at, value: e.durationMs, bad: e.failed, href: `/traces/${e.traceId}`, name: `Trace of ${clock(e.at * 1000, false)}: ${ms(e.durationMs)}, ${e.code}` }));
  return h("section", { class: "card" },
    h("h2", {}, `${method.service}.${method.method} `, method.rpc ? h("small", {}, h("a", { href: `/traces?rpc=${method.rpc}&status=error` }, "failures"),
      objective ? [" · ", h("a", { href: `/traces?rpc=${method.rpc}&min_ms=${Math.round(objective.latencyMs)}` }, "slower than the objective"), " · ",
        h("a", { href: `/traces?rpc=${method.rpc}&min_ms=${Math.floor(method.p95Ms ?? 0)}` }, "slowest 5 %")] : null) : null),
    method.staysOpen ? h("p", { class: "muted" }, "A long-lived stream: it is counted when it ends, and so is each failed attempt to open one. It has no objective, and does not count in the figures of its service.") : null,
    objective ? h("div", { class: "two" },
      h("div", {}, h("h3", {}, `Error budget of the last day: ${percent(Math.max(left, 0), 1)} left`), h("div", { class: `meter ${left > 0.5 ? "good" : left > 0 ? "warn" : "bad"}` }, h("i", { style: { width: `${Math.max(0, Math.min(1, left)) * 100}%` } })), h("p", { class: "muted" }, `${percent(objective.availability, 3)} must succeed; ${percent(objective.latencyShare, 0)} within ${ms(objective.latencyMs)}. Deadline ${ms(method.deadlineMs)}. `, h("code", {}, method.source))),
      h("div", {}, h("h3", {}, "Burn rate"), h("p", { class: "chips" }, burns.map(([window, value]) => pill(value > method.burnLimit ? "bad" : value > 1 ? "warn" : "good", `${window}: ${value.toFixed(value < 10 ? 1 : 0)}×`))), h("p", { class: "muted" }, `At 1×, the budget lasts exactly its window. Above ${method.burnLimit}× over 5 min and 1 h, an alert pages.`))) : null,
    h("div", { class: "three" },
      method.staysOpen ? null : lines("Latency", points, [["p50Ms", "p50"], ["p95Ms", "p95"], ["p99Ms", "p99"]], { format: ms, target: objective && method.deadlineMs <= 60_000 ? objective.latencyMs : null, since, until, marks, zoom }),
      lines("Rate", points, [["rate", "calls"]], { format: (v) => rate(v), since, until, least: 0.01, zoom }),
      lines("Failed", points, [["errorRatio", "failed"]], { format: (v) => percent(v), target: objective ? 1 - objective.availability : null, since, until, least: 0.01, zoom })),
    marks.length ? h("p", { class: "muted" }, "Each diamond is a call and links to its trace.") : null,
    failed.length ? [h("h3", {}, "Last failures"), h("ul", { class: "plain" }, failed.map((e) => h("li", {}, h("a", { href: `/traces/${e.traceId}`, "data-row": true, "data-focus": `failed ${e.traceId}` }, clock(e.at * 1000, false)), " ", pill("bad", e.code), ` ${ms(e.durationMs)}`)))] : null);
}

function listing(items, chosen, choose, name) {
  if (!items.length) return empty("No methods declared.");
  const columns = ["Method", "Calls", "Rate", "Failed", "p50", "p95", "p99", "Objective", "Budget left", "Burn 1 h"];
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map((t, i) => h("th", { class: [1, 4, 6, 7].includes(i) ? "num optional" : i ? "num" : "" }, t)))),
    h("tbody", {}, items.map((m) => h("tr", { class: "link", onclick: () => choose(name(m)) },
      h("td", {}, h("button", { class: "quiet", type: "button", "aria-pressed": String(chosen === name(m)), "data-row": true, "data-focus": name(m) }, name(m))),
      h("td", { class: "num optional" }, count(m.calls), m.few ? h("span", { class: "muted", title: "Too few calls for meaningful percentiles." }, " few") : null), h("td", { class: "num" }, rate(m.rate)),
      h("td", { class: `num ${m.errorRatio > 0.01 && !m.few ? "level-error" : ""}` }, m.calls && !m.staysOpen ? percent(m.errorRatio) : "–"),
      h("td", { class: "num optional" }, ms(m.p50Ms)), h("td", { class: `num ${m.objective && !m.few && m.p95Ms > m.objective.latencyMs ? "level-warning" : ""}` }, ms(m.p95Ms)), h("td", { class: "num optional" }, ms(m.p99Ms)),
      h("td", { class: "num optional muted" }, m.objective ? `${percent(m.objective.availability, 2)}, ${ms(m.objective.latencyMs)}` : "–"),
      h("td", { class: "num" }, m.objective ? pill(m.budgetLeft > 0.5 ? "good" : m.budgetLeft > 0 ? "warn" : "bad", percent(Math.max(m.budgetLeft, 0), 0)) : "–"),
      h("td", { class: "num" }, m.burnRates ? `${m.burnRates["1h"].toFixed(1)}×` : "–"))))));
}
