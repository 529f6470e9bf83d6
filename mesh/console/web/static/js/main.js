// Routing, keyboard shortcuts and theme.

import { Failure, get, every } from "./api.js";
import { h, show } from "./dom.js";
import { count } from "./format.js";
import { overview } from "./pages/overview.js";
import { incident } from "./pages/incident.js";
import { graph } from "./pages/graph.js";
import { traces } from "./pages/traces.js";
import { trace } from "./pages/trace.js";
import { compare } from "./pages/compare.js";
import { logs } from "./pages/logs.js";
import { metrics } from "./pages/metrics.js";
import { mesh } from "./pages/mesh.js";
import { call } from "./pages/call.js";
import { processes } from "./pages/processes.js";

const PAGES = [
  [/^\/$/, overview, "Overview"],
  [/^\/incidents\/([0-9a-f]{12})$/, incident, "Incident"],
  [/^\/graph$/, graph, "Graph"],
  [/^\/traces$/, traces, "Traces"],
  [/^\/traces\/([0-9a-f]{32})$/i, trace, "Trace"],
  [/^\/compare$/, compare, "Compare"],
  [/^\/logs$/, logs, "Logs"],
  [/^\/metrics$/, metrics, "Metrics"],
  [/^\/processes$/, processes, "Processes"],
  [/^\/call$/, call, "Call"],
  [/^\/mesh$/, mesh, "Mesh"],
  [/^\/runbooks\/[a-zA-Z-]+\.md$/, runbook, "Runbook"],
];
const main = document.getElementById("main");
let current = new AbortController();

/** A runbook is rendered by the server: the client never parses HTML. */
function runbook(place) {
  if (place.dataset.path !== location.pathname) return location.reload();
  document.title = `${place.querySelector("h1")?.textContent} · AMARRE console`;
}

async function render() {
  current.abort();
  const mine = (current = new AbortController());
  [updated, follows] = [Date.now(), false];
  const path = location.pathname;
  const [pattern, page, title] = PAGES.find(([p]) => p.test(path)) ?? [];
  document.title = `${title ?? "Page not found"} · AMARRE console`;
  for (const link of document.querySelectorAll("nav a")) {
    const home = link.pathname === "/";
    const here = home ? path === "/" : path.startsWith(link.pathname) || (link.pathname === "/traces" && path === "/compare");
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (page !== runbook) delete main.dataset.path;
  if (!page) return show(main, h("h1", {}, "Page not found"));
  const tools = { signal: mine.signal, query: new URLSearchParams(location.search), go, keep };
  try {
    await page(main, tools, ...pattern.exec(path).slice(1));
  } catch (error) {
    if (error.name !== "AbortError") show(main, h("h1", {}, title), h("p", { class: "alert page", role: "alert" }, error.message));
  }
}

/** Adds the time range of this page to parameters without one. */
function withRange(parameters) {
  const here = new URLSearchParams(location.search);
  if (!parameters.has("from")) for (const name of ["from", "to"]) if (here.has(name)) parameters.set(name, here.get(name));
  return parameters;
}

/** Navigates to a page of the console and keeps the time range. */
export function go(address) {
  const to = new URL(address, location.origin);
  const query = withRange(to.searchParams).toString();
  history.pushState(null, "", to.pathname + (query ? `?${query}` : "") + to.hash);
  render();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** Stores the state of a page in its URL. */
export function keep(parameters) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value !== false);
  const query = withRange(new URLSearchParams(kept)).toString();
  history.replaceState(null, "", location.pathname + (query ? `?${query}` : ""));
}

addEventListener("popstate", render);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const address = link?.href?.baseVal ?? link?.getAttribute("href");
  if (!address?.startsWith("/") || address.startsWith("/runbooks/") || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(address);
});

const help = document.getElementById("help");
/** Speech input triggers single-key shortcuts by accident; they can be turned off (WCAG 2.1.4). */
const keysWork = () => localStorage.getItem("keys") !== "off";
function showKeys() {
  const keys = [...document.querySelectorAll("nav a")].map((a) => [`g ${a.dataset.key}`, a.textContent]);
  const rows = [...keys, ["/", "Search"], ["j k", "Next, previous row"], ["Enter", "Open the row"], ["?", "Show shortcuts"], ["Esc", "Close"]];
  show(help, h("h2", {}, "Keyboard shortcuts"), h("table", {}, rows.map(([key, text]) =>
    h("tr", {}, h("td", {}, key.split(" ").map((k) => [h("kbd", {}, k), " "])), h("td", {}, text)))),
    h("form", { method: "dialog" },
      h("label", { class: "check" }, h("input", { type: "checkbox", checked: keysWork(), onchange: (event) => localStorage.setItem("keys", event.target.checked ? "on" : "off") }), "Enable shortcuts"),
      h("button", {}, "Close")));
  help.showModal();
}
document.getElementById("keys").addEventListener("click", showKeys);

let prefix = 0;
addEventListener("keydown", (event) => {
  if (!keysWork() || event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.key === "?") return showKeys();
  if (event.key === "/") {
    event.preventDefault();
    return main.querySelector("input")?.focus();
  }
  if (event.key === "j" || event.key === "k") {
    const rows = [...main.querySelectorAll("[data-row]")];
    const at = rows.indexOf(document.activeElement?.closest("[data-row]"));
    return rows[event.key === "j" ? Math.min(at + 1, rows.length - 1) : Math.max(at - 1, 0)]?.focus();
  }
  if (Date.now() - prefix < 1200) {
    const link = document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
    prefix = 0;
    if (link) return go(link.getAttribute("href"));
  }
  if (event.key === "g") prefix = Date.now();
});

const theme = document.getElementById("theme");
const THEMES = ["", "light", "dark"];
function useTheme(name) {
  if (name) document.documentElement.dataset.theme = name; else delete document.documentElement.dataset.theme;
  theme.textContent = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" }[name];
}
theme.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(localStorage.getItem("theme") ?? "") + 1) % 3];
  localStorage.setItem("theme", next);
  useTheme(next);
});
useTheme(localStorage.getItem("theme") ?? "");

const intake = document.getElementById("intake");
every(10_000, new AbortController().signal, async () => {
  const { kept, dropped, fault } = await get("intake");
  const lost = dropped.filter((d) => !d.harmless).reduce((sum, d) => sum + d.count, 0);
  show(intake, h("a", { href: "/mesh#intake" }, `${count(kept.reduce((sum, k) => sum + k.spans, 0))} spans`),
    lost ? h("span", {}, `, ${count(lost)} dropped`) : "", fault ? h("b", { class: "level-error" }, " not writing") : "");
});
const live = document.getElementById("live");
const notice = h("p", { class: "alert page", role: "alert" }), failures = new Map();
let updated = Date.now(), follows = false;
/** Shows why a part of the page cannot be updated, until it can. */
function report({ type, detail: { signal, error } }) {
  if (type === "failed") failures.set(signal, error); else failures.delete(signal);
  for (const one of failures.keys()) if (one.aborted) failures.delete(one);
  if (signal === current.signal) follows = true;
  if (!failures.size) { if (signal === current.signal) updated = Date.now(); notice.remove(); return; }
  const [why] = failures.values(), text = why instanceof Failure ? why.message : "The console does not respond.";
  if (notice.textContent !== text) notice.textContent = text;
  if (notice.parentNode !== main) main.prepend(notice);
}
addEventListener("updated", report);
addEventListener("failed", report);
setInterval(() => {
  const fixed = new URLSearchParams(location.search).get("to"), stale = failures.size > 0 || (follows && Date.now() - updated > 20_000);
  const state = stale ? "Stale, last update" : follows ? "Live, updated" : "Loaded";
  const text = fixed ? "Fixed time range" : `${state} ${new Date(updated).toLocaleTimeString("en-GB")}`;
  if (live.textContent !== text) live.textContent = text;
  live.classList.toggle("level-error", stale && !fixed);
  if (failures.size && [...failures.keys()].every((one) => one.aborted)) { failures.clear(); notice.remove(); }
}, 1000);
render();
