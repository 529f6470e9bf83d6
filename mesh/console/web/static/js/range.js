// The time range: one picker for every page, kept in the address.

import { h } from "./dom.js";

const PRESETS = [["-5m", "5 minutes"], ["-15m", "15 minutes"], ["-1h", "1 hour"], ["-6h", "6 hours"], ["-1d", "1 day"]];
const SECONDS = { m: 60, h: 3600, d: 86_400 };
export const DEFAULT = "-15m";

/** Returns the range in the address: RFC 3339 or relative; an empty "to" means now. */
export function range() {
  const query = new URLSearchParams(location.search);
  return { from: query.get("from") || DEFAULT, to: query.get("to") ?? "" };
}

/** Returns the range in seconds since the epoch. */
export function bounds({ from, to } = range()) {
  const at = (text) => {
    const found = /^-(\d+)([mhd])$/.exec(text);
    return found ? Date.now() / 1000 - Number(found[1]) * SECONDS[found[2]] : Date.parse(text) / 1000;
  };
  return { since: at(from), until: to ? at(to) : Date.now() / 1000 };
}

/** Puts a range into the address, which every page reads. */
export function choose(from, to = "") {
  const query = new URLSearchParams(location.search);
  query.set("from", from);
  if (to) query.set("to", to); else query.delete("to");
  history.pushState(null, "", `${location.pathname}?${query}`);
  dispatchEvent(new PopStateEvent("popstate"));
}

/** Chooses the time between two moments, in seconds; at least a second. */
export const zoom = (since, until) => choose(iso(Math.min(since, until - 1)), iso(until));
const iso = (seconds) => new Date(seconds * 1000).toISOString().replace(/\.\d+/, "");
const local = (seconds) => new Date(seconds * 1000 - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

/** Returns the picker: presets, or a begin and an end of one's own. */
export function picker() {
  const { from, to } = range(), preset = !to && PRESETS.some(([value]) => value === from);
  const { since, until } = bounds();
  const own = h("form", { class: "filters", hidden: preset, "aria-label": "Own time range", onsubmit: (event) => {
    event.preventDefault();
    const data = new FormData(own), begin = new Date(data.get("from")), end = new Date(data.get("to"));
    if (begin < end) choose(iso(begin / 1000), iso(end / 1000));
  } },
  h("label", {}, "From", h("input", { type: "datetime-local", name: "from", required: true, value: local(since) })),
  h("label", {}, "To", h("input", { type: "datetime-local", name: "to", required: true, value: local(until) })),
  h("button", {}, "Apply"));
  const select = h("select", { name: "range", onchange: (event) => { if (event.target.value === "own") own.hidden = false; else choose(event.target.value); } },
    PRESETS.map(([value, text]) => h("option", { value, selected: preset && value === from }, `Last ${text}`)), h("option", { value: "own", selected: !preset }, "From – to"));
  return h("div", { class: "range" }, h("label", {}, h("span", { class: "hidden" }, "Time range"), select), own);
}
