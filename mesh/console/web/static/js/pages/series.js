// All other metrics: values, rates, and percentiles of histograms.

import { get } from "../api.js";
import { empty, h, page, pill, scrolls } from "../dom.js";
import { lines } from "../charts.js";
import { bounds, range, zoom } from "../range.js";
import { count, inUnit, rate } from "../format.js";

/** Returns the form that chooses a metric by name. */
export function chooser(names, chosen, choose) {
  const group = (label, some) => some.length > 0 && h("optgroup", { label }, some.map((one) => h("option", { value: one.name, selected: one.name === chosen }, one.name)));
  return h("form", { class: "filters", onsubmit: (event) => event.preventDefault() },
    h("label", {}, "Metric", h("select", { name: "series", "data-focus": "series", onchange: (event) => choose(event.target.value) },
      h("option", { value: "" }, names.length ? "Choose a metric" : "None received"),
      group("Pushed over OTLP", names.filter((one) => one.pushed)), group("Scraped", names.filter((one) => !one.pushed)))));
}

/** Returns the charts and the table of one metric; *row* is the series that is drawn. */
export async function series(name, row, choose, again, signal) {
  const { items } = await get("series", { name, ...range() }, signal);
  if (!items.length) return empty("No such metric in the last six hours.");
  const drawn = items.find((one) => key(one) === row) ?? items.find((one) => one.points.length) ?? items[0];
  const format = inUnit(drawn.unit, name), [shown, more] = page(name, items, again);
  return [
    charts(name, drawn, format),
    scrolls("Series", "", h("table", {},
      h("thead", {}, h("tr", {}, ["Series", "Kind", "Count or last value", "p50", "p95", "p99"].map((text, i) => h("th", { class: i > 1 ? "num" : "" }, text)))),
      h("tbody", {}, shown.map((one) => h("tr", { class: "link", onclick: () => choose(key(one)) },
        h("td", {}, h("button", { class: "quiet", type: "button", "aria-pressed": String(one === drawn), "data-row": true, "data-focus": key(one) }, title(one))),
        h("td", {}, one.kind, " ", pill("", one.pushed ? "pushed" : "scraped")),
        h("td", { class: "num" }, one.draws === "value" ? format(one.points.at(-1)?.[1]) : count(one.count), one.few ? h("span", { class: "muted", title: "Too few values for meaningful percentiles." }, " few") : null),
        ["p50", "p95", "p99"].map((share) => h("td", { class: "num" }, format(one[share])))))))),
    items.length === 200 ? h("p", { class: "muted" }, "Only the first 200 series are shown.") : null, more];
}

const labels = (one) => Object.entries(one.labels).map(([label, value]) => `${label}=${value}`).join(" ");
const title = (one) => `${one.process} ${labels(one)}`.trim();
const key = (one) => [title(one), one.kind, one.scope, one.pushed ? "pushed" : ""].join("|");

function charts(name, one, format) {
  const options = { ...bounds(), zoom };
  const head = h("h3", {}, title(one), one.scope ? h("small", { class: "muted" }, ` measured by ${one.scope}`) : null);
  const notDrawn = one.notDrawn ? h("p", { class: "muted" }, `${one.draws ? "Percentiles not drawn" : "Not drawn"}: ${one.notDrawn}.`) : null;
  const few = one.few && one.draws === "percentiles" ? h("p", { class: "muted" }, `Only ${count(one.count)} values in this time range: percentiles of so few values are unreliable.`) : null;
  const history = one.draws === "value" ? one.points.map(([at, value]) => ({ at, value })) : one.history;
  const drawings = {
    value: () => [lines("Value", history, [["value", "value"]], { format, ...options })],
    rate: () => [lines("Rate", history, [["rate", "rate"]], { format: rate, least: 0.01, ...options })],
    percentiles: () => [lines("Percentiles", history, [["p50", "p50"], ["p95", "p95"], ["p99", "p99"]], { format, ...options }),
      lines("Rate", history, [["rate", "values"]], { format: rate, least: 0.01, ...options })],
  };
  return h("div", { class: "padded" }, head, notDrawn, few, history.length && one.draws ? h("div", { class: "three" }, drawings[one.draws]()) : one.draws ? empty("No points in this time range.") : null);
}
