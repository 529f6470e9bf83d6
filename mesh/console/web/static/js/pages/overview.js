// Overview: incidents by cause, and a card per service.

import { get, every } from "../api.js";
import { h, head, pill, refresh, show, table } from "../dom.js";
import { picker, range } from "../range.js";
import { verdict } from "./control.js";
import { clock, counted, days, ms, percent, rate } from "../format.js";

const MOST_FAILURES = 8;

export async function overview(main, { signal }) {
  const body = h("div", {});
  show(main, head("Overview", "", picker()), body);
  const update = async () => {
    const [found, { items: past }, failed] = await Promise.all([
      get("overview", range(), signal),
      get("incidents", { state: "resolved", ...range() }, signal),
      get("traces", { status: "error", limit: MOST_FAILURES, ...range() }, signal),
    ]);
    refresh(body, alerts(found), h("div", { class: "grid" }, found.items.map(service)), failures(failed.items), resolved(past));
  };
  await every(5000, signal, update);
}

/** Hides alerts that are pending for only one evaluation, as when Prometheus starts. */
const lasts = (alert) => alert.state !== "pending" || Date.now() - Date.parse(alert.since) > 20_000;

function alerts({ incidents, serverAlerts, alertServers, fault, failingTasks }) {
  const served = alertServers.filter((server) => !server.fault);
  const down = alertServers.filter((server) => server.fault).map((server) => ({ severity: "ticket", name: server.name, message: `${server.name} ${server.fault}.`, source: "console" }));
  const writing = fault ? [{ severity: "page", name: "Telemetry not written", message: `${fault}.`, source: "console" }] : [];
  // Firing alerts belong to an incident; pending and silenced ones are listed separately.
  const tasks = failingTasks.map((task) => ({ severity: "ticket", name: "Background task failing", message: `The console's ${task} task is failing and being restarted.`, source: "console" }));
  const own = [...writing, ...tasks, ...down].slice(0, 8), others = serverAlerts.filter((alert) => alert.state !== "firing").filter(lasts);
  return h("section", { class: "alerts", "aria-label": "Alerts" },
    incidents.slice(0, 20).map(cause), own.map((alert) => one(alert, alertServers)), waiting(others, alertServers),
    incidents.length || own.length ? null : h("p", { class: "calm" }, "No active alerts. All objectives are met."),
    h("p", { class: "muted" }, incidents.length > 20 ? `and ${incidents.length - 20} more · ` : "", "Evaluated by the console",
      served.map((server) => [", ", h("a", { href: `${server.url}/`, rel: "noreferrer", "data-focus": server.name }, server.name)])));
}

const FIRST = { CallersRefused: "denied call", MethodSlowerThanPromised: "slow trace" };
/** Names the first trace of an incident. */
export const first = ({ cause }) => `first ${FIRST[cause.alert] ?? "failed trace"}`;

/** One row per cause: service, alert, number of effects, last change, first failed trace. */
function cause(item) {
  const about = [item.cause.service, ...item.effects.map((effect) => effect.service)];
  const change = item.changes.find((one) => !one.service || about.includes(one.service)) ?? item.changes[0];
  return h("p", { class: `alert ${item.recovered ? "quiet" : item.severity}`, role: "status", "data-incident": item.id },
    h("b", {}, h("a", { href: `/incidents/${item.id}`, "data-focus": item.id, "data-row": true }, item.cause.service)), h("b", {}, item.cause.alert),
    h("span", { class: "grow" }, item.cause.summary, item.effects.length ? h("small", {}, ` ${item.effects.length} ${item.effects.length === 1 ? "effect" : "effects"}`) : null,
      item.recovered ? h("small", {}, " · recovered") : null,
      item.source && item.source !== "console" ? h("small", {}, ` · ${reported(item)}`) : null,
      change ? h("small", {}, ` · last change ${clock(change.at, false)}: ${change.what}${change.who ? ` by ${change.who}` : ""}`) : null), " ",
    item.traceId ? [h("a", { href: `/traces/${item.traceId}`, "data-focus": `trace ${item.id}` }, first(item)), " "] : null,
    item.runbook ? [h("a", { href: item.runbook, "data-focus": `runbook ${item.id}` }, "runbook"), " "] : null,
    h("small", {}, `since ${clock(item.since, false)}`));
}

/** The incidents of the time range that are over. */
const resolved = (items) => items.length > 0 && table("Resolved incidents", ["From", "To", "Service", "Cause"], items.slice(0, 50), (one) => [
  clock(one.since, false), clock(one.resolvedAt, false), one.cause.service, h("a", { href: `/incidents/${one.id}`, "data-focus": `past ${one.id}` }, one.cause.alert)]);

let opened = false;

/** Alerts that are pending or silenced, folded: they are no incidents, or not yet. */
function waiting(others, servers) {
  if (!others.length) return null;
  const text = others.length === 1 ? "1 alert is pending or silenced" : `${others.length} alerts are pending or silenced`;
  return h("details", { class: "waiting", open: opened, ontoggle: (event) => { opened = event.target.open; } },
    h("summary", { class: "muted", "data-focus": "waiting" }, text), others.slice(0, 50).map((alert) => one(alert, servers)));
}

/** Says that an alert comes from another server: its rules look further back than the console. */
export const reported = ({ source }) => `reported by ${source}, which clears alerts minutes after the console`;

function one(alert, servers) {
  const quiet = alert.state === "pending" || alert.state === "suppressed";
  const url = servers.find((server) => server.name === alert.source)?.url;
  return h("p", { class: `alert ${quiet ? "quiet" : alert.severity}`, role: "status" }, h("b", {}, alert.name), h("span", { class: "grow" }, alert.message), " ",
    alert.runbook ? [h("a", { href: alert.runbook, rel: "noreferrer", "data-focus": `runbook ${alert.name} ${alert.message}` }, "runbook"), " "] : null,
    h("small", {}, alert.state ? `${alert.state} since ${clock(alert.since, false)} · ` : "", url ? h("a", { href: `${url}/`, rel: "noreferrer" }, alert.source) : alert.source));
}

function service(item) {
  const up = item.processes.filter((p) => p.up).length, all = item.processes.length;
  const failing = item.errorRatio > 0.05 ? "bad" : item.errorRatio > 0.01 ? "warn" : "good";
  const state = !all ? pill("", "not scraped") : up === all ? pill("good", all > 1 ? `${all} up` : "up") : pill("bad", up ? `${up} of ${all} up` : "down");
  const figure = (name, value, small) => h("div", {}, h("dt", {}, name), h("dd", {}, value, small ? h("small", {}, ` ${small}`) : null));
  return h("section", { class: "card service", "aria-label": item.service },
    h("header", {}, h("h2", {}, h("a", { href: `/traces?service=${item.service}`, "data-focus": item.service }, item.service)), item.proxiesDown ? pill("bad", "proxy down") : null, state),
    h("dl", { class: "figures" },
      figure("Rate", rate(item.rate)),
      h("div", {}, h("dt", {}, "Errors"), h("dd", { class: failing === "good" ? "" : `level-${failing === "bad" ? "error" : "warning"}` }, percent(item.errorRatio))),
      figure("In flight", item.inFlight ?? "–", item.saturation === null ? "" : `${percent(item.saturation, 0)} of limit`),
      figure("p50", ms(item.p50Ms)), figure("p95", ms(item.p95Ms)), figure("p99", ms(item.p99Ms))),
    item.saturation === null ? null : h("div", { class: `meter ${item.saturation > 0.8 ? "bad" : item.saturation > 0.5 ? "warn" : ""}` }, h("i", { style: { width: `${Math.min(100, item.saturation * 100)}%` } })),
    h("footer", {},
      item.certificateDays === null ? null : pill(item.certificateLife < 0.25 ? "warn" : "", `certificate ${days(item.certificateDays)}`),
      item.few ? pill("", `only ${counted(item.calls, "call")}`) : null,
      item.clockOffsetSeconds === null ? null : pill("bad", offset(item.clockOffsetSeconds)),
      item.openBreakers ? pill("bad", `${item.openBreakers} circuit breaker open`) : null,
      item.ejectedHosts ? pill("warn", `${item.ejectedHosts} ejected`) : null,
      item.canaryWeight ? [pill("accent", `canary ${item.canaryWeight} %`), verdict(item.canaryVerdict)] : null,
      item.processes.some((p) => p.memoryBytes) ? pill("", `${Math.round(item.processes.reduce((sum, p) => sum + (p.memoryBytes ?? 0), 0) / 1e6)} MB resident`) : null));
}

/** Describes a clock offset, which affects every time that the service reports. */
export const offset = (seconds) => `clock ${ms(Math.abs(seconds) * 1000)} ${seconds > 0 ? "ahead" : "behind"}`;

/** The outcome of a failed call that only the start of a service explains. */
export const early = ({ whileStarting }) => whileStarting ? pill("", `while ${whileStarting} was starting`) : null;

/** Where a call failed: its innermost failed rpc or step; the process whose proxy failed it; or the call itself. */
function place({ failedAt: at, rpc, name }) {
  if (at?.rpc || !at) return at?.rpc || rpc || name;
  if (at.proxy) return at.service.replace(/-envoy$/, "");
  return at.name === name ? name : `${at.service}: ${at.name}`;
}

/** One row per place and code, the latest first: a cause that fails many calls would fill the page. */
function failures(found) {
  const groups = Map.groupBy(found, (item) => `${place(item)} ${item.failedAt?.code || item.code} ${item.whileStarting}`);
  const items = [...groups.values()].map((alike) => ({ ...alike[0], times: alike.length, within: within(alike) }));
  if (!items.length) return null;
  return h("section", { class: "card flush" }, h("h2", {}, "Latest failures"),
    h("div", { class: "scroll" }, h("table", {}, items.map((item) => h("tr", {},
      h("td", {}, clock(item.start, false)),
      h("td", {}, h("a", { href: `/traces/${item.traceId}`, "data-focus": item.traceId, "data-row": true }, place(item)),
        item.within ? h("small", { class: "muted" }, ` in ${item.within}`) : null,
        item.times > 1 ? h("small", { class: "muted" }, ` ${item.times}${found.length < MOST_FAILURES ? "" : " or more"} times`) : null),
      h("td", {}, early(item) ?? (item.failedAt?.code || item.code ? pill(/^(2|OK)/.test(item.code) ? "warn" : "bad", item.failedAt?.code || item.code) : "")),
      h("td", { class: "num optional" }, ms(item.durationMs)))))));
}

/** The requests of which a failed call was part, unless it was the whole request. */
function within(alike) {
  const names = [...new Set(alike.map((item) => item.rpc || item.name))].filter((name) => name !== place(alike[0]));
  const known = names.filter((name) => !name.endsWith("(outside the API)"));
  return (known.length ? known : names).join(", ");
}
