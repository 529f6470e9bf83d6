// Search facets, and saved searches.

import { h } from "../dom.js";
import { count } from "../format.js";

const NAMES = { service: "Service", rpc: "Method", status: "Outcome", code: "Code", duration: "Duration" };
const STATUS = { error: "failed", ok: "succeeded" };
const KEPT = "searches";

/** Returns a group of buttons per facet; pressed ones are part of the search. */
export function facets({ facets: found, traces, complete }, wanted, choose) {
  const groups = Object.entries(found).filter(([name, values]) => name !== "code" && values.length);
  if (!traces) return null;
  return h("div", { class: "facets" }, groups.map(([name, values]) => h("div", { role: "group", "aria-label": `Filter by ${NAMES[name].toLowerCase()}` },
    h("span", { class: "muted" }, NAMES[name]),
    values.map((one) => {
      const fields = name === "duration" ? { min_ms: String(one.min_ms || ""), max_ms: String(one.max_ms || "") } : { [name]: one.value };
      const pressed = Object.entries(fields).every(([key, value]) => wanted[key] === value);
      return h("button", { type: "button", class: "chip", "aria-pressed": String(pressed), "data-focus": `${name} ${one.value ?? one.min_ms}`,
        onclick: () => choose(pressed ? Object.fromEntries(Object.keys(fields).map((key) => [key, ""])) : fields) }, `${text(name, one)} `, h("span", { class: "muted" }, count(one.count)));
    }))), complete ? null : h("p", { class: "muted" }, `Counted in the newest ${count(traces)} traces.`));
}

function text(name, { value, min_ms, max_ms }) {
  if (name === "status") return STATUS[value];
  if (name !== "duration") return value;
  return max_ms ? `${min_ms}–${max_ms} ms` : `over ${min_ms} ms`;
}

const all = () => JSON.parse(localStorage.getItem(KEPT) ?? "[]");
const store = (searches) => localStorage.setItem(KEPT, JSON.stringify(searches));

/** Returns the saved searches as links, and a button to save the current one. */
export function saved(redraw) {
  const searches = all(), here = location.search.slice(1);
  const save = () => {
    const name = prompt("Name of this search")?.trim();
    if (name) { store([...all().filter((one) => one.name !== name), { name, query: location.search.slice(1) }]); redraw(); }
  };
  return h("p", { class: "chips saved" },
    searches.map(({ name, query }) => h("span", { class: "pill" }, h("a", { href: `/traces?${query}`, "aria-current": query === here ? "true" : null }, name),
      h("button", { type: "button", class: "quiet", "aria-label": `Delete the search ${name}`, onclick: () => { store(all().filter((one) => one.name !== name)); redraw(); } }, "×"))),
    h("button", { type: "button", class: "quiet", onclick: save }, "Save this search"));
}
