// Trace search.

import { get } from "../api.js";
import { choice, h, head, pill, refresh, show } from "../dom.js";
import { dots } from "../charts.js";
import { picker, range, zoom } from "../range.js";
import { clock, hue, ms } from "../format.js";
import { facets, saved } from "./facets.js";
import { early } from "./overview.js";

const FIELDS = ["service", "rpc", "status", "min_ms", "max_ms", "attr", "q", "probes"];

export async function traces(main, { signal, query, keep }) {
  const wanted = Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? ""]));
  const [{ kept }, { policies }] = await Promise.all([get("intake", {}, signal), get("mesh", {}, signal)]);
  const list = h("tbody", {}), kinds = h("div", {}), searches = h("div", {}), chart = h("div", {}), foot = h("div", { class: "empty", role: "status" });
  const form = h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    choice("Service", "service", kept.map((k) => k.service), wanted.service, "any"),
    choice("Method", "rpc", policies.map((p) => p.rpc), wanted.rpc, "any"),
    choice("Status", "status", [["error", "failed"], ["ok", "succeeded"]], wanted.status, "any"),
    h("label", {}, "At least (ms)", h("input", { name: "min_ms", type: "number", min: 0, step: "any", size: 6, value: wanted.min_ms })),
    h("label", {}, "At most (ms)", h("input", { name: "max_ms", type: "number", min: 0, step: "any", size: 6, value: wanted.max_ms })),
    h("label", { class: "wide" }, "Attribute", h("input", { name: "attr", placeholder: "key=value", value: wanted.attr, spellcheck: "false" })),
    h("label", { class: "wide" }, "Name contains", h("input", { name: "q", value: wanted.q, spellcheck: "false" })),
    h("label", { class: "check" }, h("input", { name: "probes", type: "checkbox", checked: wanted.probes === "true" }), "health checks"),
    h("button", { class: "primary" }, "Search"));
  const drawSaved = () => show(searches, saved(drawSaved));
  show(main, head("Traces", "", picker()), form, searches, kinds, h("div", { class: "card" }, chart, h("div", { class: "scroll" },
    h("table", {}, h("thead", {}, h("tr", {}, ["Time", "Trace", "Services", "Relative duration", "Duration", "Spans", "Outcome"].map((t, i) => h("th", { class: [2, 3, 5].includes(i) ? "optional" : i === 4 ? "num" : "" }, t)))), list)), foot));

  let turn = 0, items = [];
  const search = async (token = "", started = performance.now(), quiet = false) => {
    const mine = token ? turn : (turn += 1);
    if (!token) { items = []; show(list); }
    if (!quiet) show(foot, "Searching …");
    let page;
    try {
      page = await get("traces", { ...wanted, ...range(), limit: 50, page_token: token }, signal);
    } catch (error) {
      if (error.name !== "AbortError") show(foot, h("span", { class: "level-error" }, error.message));
      return;
    }
    if (mine !== turn) return;
    if (!token) narrow(mine);
    items.push(...page.items);
    const longest = Math.max(...items.map((i) => i.durationMs), 1);
    show(list, items.map((item) => row(item, longest)));
    show(chart, dots(items.slice(0, 200), ms, zoom));
    const more = () => search(page.nextPageToken);
    // Continue a search that hit its time limit with few results, up to five seconds.
    if (page.nextPageToken && page.items.length < 10 && performance.now() - started < 5000) return search(page.nextPageToken, started);
    // Spans arrive a few seconds after their calls: repeat an early search once.
    if (!items.length && !page.nextPageToken) setTimeout(() => mine === turn && !signal.aborted && search("", performance.now(), true), 2000);
    show(foot, page.nextPageToken ? h("button", { type: "button", onclick: more }, page.items.length ? "Older traces" : "No matches so far: search further back") :
      items.length ? `${items.length} traces; no older ones.` : "No matching traces yet.");
  };
  const narrow = async (mine) => {
    const found = await get("traces/facets", { ...wanted, ...range() }, signal).catch((error) => { if (error.name !== "AbortError") throw error; });
    if (found && mine === turn) refresh(kinds, facets(found, wanted, choose));
  };
  const choose = (fields) => {
    for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
    return changed();
  };
  const changed = () => {
    const data = new FormData(form);
    for (const name of FIELDS) wanted[name] = (data.get(name) ?? "").trim();
    wanted.probes = data.get("probes") ? "true" : "";
    keep(wanted);
    drawSaved();
    return search();
  };
  form.addEventListener("submit", changed);
  form.addEventListener("change", changed);
  drawSaved();
  await search();
}

function row(item, longest) {
  return h("tr", {},
    h("td", {}, clock(item.start, false)),
    h("td", { class: "step" }, h("a", { href: `/traces/${item.traceId}`, "data-row": true }, item.rpc || item.name), item.rpc && !item.name.endsWith(item.rpc.split(".")[1]) ? h("div", { class: "muted" }, item.name) : null),
    h("td", { class: "optional" }, h("div", { class: "chips" }, item.services.map((one) => h("span", { class: `pill ${one.errors ? "bad" : ""}` }, h("i", { style: { background: hue(one.name), width: ".5rem", height: ".5rem", "border-radius": "3px" } }), one.name)))),
    h("td", { class: "bar-cell optional" }, h("div", { class: `bar ${item.status === "error" ? "bad" : ""}`, style: { width: `${Math.max(1, (item.durationMs / longest) * 100)}%` } })),
    h("td", { class: "num" }, ms(item.durationMs)),
    h("td", { class: "num optional" }, item.spanCount),
    h("td", {}, early(item) ?? (item.status === "error" ? pill("bad", item.code && item.code !== "OK" ? item.code : `${item.errorCount} failed`) : item.code && item.code !== "OK" && item.code !== "200" ? pill("warn", item.code) : pill("good", item.code || "ok"))));
}
