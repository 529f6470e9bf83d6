// The time range picker of every page; the range is part of the URL.

import { h } from "./dom.js";

const PRESETS = [["-5m", "5 minutes"], ["-15m", "15 minutes"], ["-1h", "1 hour"], ["-6h", "6 hours"], ["-1d", "1 day"]];
const SECONDS = { s: 1, m: 60, h: 3600, d: 86_400 };
export const DEFAULT = "-15m";

/** Returns the range from the URL: RFC 3339 or relative; an empty "to" means now. */
export function range() {
  const query = new URLSearchParams(location.search);
  return { from: query.get("from") || DEFAULT, to: query.get("to") ?? "" };
}

/** Returns the range in seconds since the epoch; the last 15 minutes if it is invalid, which the API reports. */
export function bounds({ from, to } = range()) {
  const at = (text) => {
    const found = /^-(\d+)([smhd])$/.exec(text);
    if (text === "now") return Date.now() / 1000;
    return found ? Date.now() / 1000 - Number(found[1]) * SECONDS[found[2]] : Date.parse(text) / 1000;
  };
  const since = at(from), until = to ? at(to) : Date.now() / 1000;
  return since < until ? { since, until } : bounds({ from: DEFAULT, to: "" });
}

/** Writes a range to the URL and redraws the page. */
export function choose(from, to = "") {
  const query = new URLSearchParams(location.search);
  query.set("from", from);
  if (to) query.set("to", to); else query.delete("to");
  history.pushState(null, "", `${location.pathname}?${query}`);
  dispatchEvent(new PopStateEvent("popstate"));
}

/** Selects the range between two times in seconds, at least one second long. */
export const zoom = (since, until) => choose(iso(Math.min(since, until - 1)), iso(until));
const iso = (seconds) => new Date(seconds * 1000).toISOString().replace(/\.\d+/, "");
const local = (seconds) => new Date(seconds * 1000 - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

/** Returns the picker: presets, or a custom start and end. */
export function picker() {
  const { from, to } = range(), preset = !to && PRESETS.some(([value]) => value === from);
  const { since, until } = bounds();
  const own = h("form", { class: "filters", hidden: preset, "aria-label": "Custom time range", oninput: () => own.elements.to.setCustomValidity(""), onsubmit: (event) => {
    event.preventDefault();
    const data = new FormData(own), begin = new Date(data.get("from")), end = new Date(data.get("to"));
    if (begin < end) return choose(iso(begin / 1000), iso(end / 1000));
    own.elements.to.setCustomValidity("The end must be after the start.");
    own.reportValidity();
  } },
  h("label", {}, "From", h("input", { type: "datetime-local", name: "from", required: true, value: local(since) })),
  h("label", {}, "To", h("input", { type: "datetime-local", name: "to", required: true, value: local(until) })),
  h("button", {}, "Apply"));
  const select = h("select", { name: "range", onchange: (event) => { if (event.target.value === "own") own.hidden = false; else choose(event.target.value); } },
    PRESETS.map(([value, text]) => h("option", { value, selected: preset && value === from }, `Last ${text}`)), h("option", { value: "own", selected: !preset }, "Custom range"));
  return h("div", { class: "range" }, h("label", {}, h("span", { class: "hidden" }, "Time range"), select), own);
}
