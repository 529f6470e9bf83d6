// Log search and live tail.

import { follow, get } from "../api.js";
import { choice, h, head, show } from "../dom.js";
import { picker, range } from "../range.js";
import { record } from "./trace.js";

const MOST = 1000, FIELDS = ["service", "level", "kind", "q", "trace_id"];

export async function logs(main, { signal, query, keep }) {
  const wanted = Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? ""]));
  const { kept } = await get("intake", {}, signal);
  const list = h("div", { class: "logs", role: "log", "aria-live": "off" }), foot = h("div", { class: "empty", role: "status" });
  const live = h("button", { type: "button", "aria-pressed": "false", onclick: () => tail(live.getAttribute("aria-pressed") !== "true") }, "Live tail");
  const form = h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    choice("Service", "service", kept.map((k) => k.service), wanted.service, "any"),
    choice("Minimum level", "level", ["debug", "info", "warning", "error"], wanted.level, "any level"),
    choice("Kind", "kind", ["access", "error", "slow", "security", "event"], wanted.kind, "any"),
    h("label", { class: "wide" }, "Text", h("input", { name: "q", value: wanted.q, spellcheck: "false" })),
    h("label", { class: "wide" }, "Trace", h("input", { name: "trace_id", value: wanted.trace_id, spellcheck: "false", pattern: "[0-9a-fA-F]{32}" })),
    h("button", { class: "primary" }, "Search"), live);
  show(main, head("Logs", "", picker()), form, h("section", { class: "card flush" }, list, foot));

  let tailing = null, waiting = [], frame = 0, turn = 0;
  // New records are rendered once per frame, and only the last 1000 are kept.
  const paint = () => {
    frame = 0;
    const fresh = waiting.splice(0).slice(-MOST);
    list.prepend(...fresh.reverse().map(record));
    while (list.childElementCount > MOST) list.lastElementChild.remove();
  };
  const tail = (on) => {
    tailing?.abort();
    tailing = null;
    live.setAttribute("aria-pressed", String(on));
    if (!on) return;
    const mine = (tailing = new AbortController());
    signal.addEventListener("abort", () => mine.abort());
    follow("logs", wanted, mine.signal, (items) => {
      waiting.push(...items);
      if (waiting.length > 5 * MOST) waiting = waiting.slice(-MOST);
      frame ||= requestAnimationFrame(paint);
    }).catch((error) => { if (error.name !== "AbortError") show(foot, error.message); })
      .finally(() => { if (mine === tailing) live.setAttribute("aria-pressed", "false"); });
  };
  const search = async (token = "", started = performance.now()) => {
    const mine = token ? turn : (turn += 1);
    if (!token) show(list);
    show(foot, "Searching …");
    let page;
    try {
      page = await get("logs", { ...wanted, ...range(), limit: 200, page_token: token }, signal);
    } catch (error) {
      if (error.name !== "AbortError") show(foot, h("span", { class: "level-error" }, error.message));
      return;
    }
    if (mine !== turn) return;
    list.append(...page.items.map(record));
    if (page.nextPageToken && page.items.length < 20 && performance.now() - started < 5000) return search(page.nextPageToken, started);
    show(foot, page.nextPageToken ? h("button", { type: "button", onclick: () => search(page.nextPageToken) }, "Older records") : list.childElementCount ? "No older records." : "No matching records.");
  };
  const changed = () => {
    const data = new FormData(form);
    for (const name of FIELDS) wanted[name] = (data.get(name) ?? "").trim();
    keep(wanted);
    if (tailing) tail(true);
    return search();
  };
  form.addEventListener("submit", changed);
  form.addEventListener("change", changed);
  await search();
}
