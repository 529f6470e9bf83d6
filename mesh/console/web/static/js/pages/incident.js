// One incident: cause, preceding changes, contracts and calls of the affected methods.

import { every, get } from "../api.js";
import { h, head, pill, refresh, show, table } from "../dom.js";
import { ago, clock, count, ms, percent } from "../format.js";
import { actions } from "./control.js";
import { first, reported } from "./overview.js";

export async function incident(main, { signal }, id) {
  const body = h("div", {}), buttons = h("div", {});
  show(main, head("Incident"), body, buttons);
  let shownFor = "";
  await every(5000, signal, async () => {
    const found = await get(`incidents/${id}`, {}, signal);
    document.title = `${found.cause.alert} · AMARRE console`;
    refresh(body, summary(found), timeline(found), contracts(found), calls(found), effects(found));
    const key = `${found.cause.service} ${found.actions}`;
    if (shownFor !== key) {
      shownFor = key;
      show(buttons, await actions(found.cause.service, found.actions, signal));
    }
  });
}

function summary(found) {
  const firing = found.state === "firing";
  return h("section", { class: "card" },
    h("h2", {}, `${found.cause.service}: ${found.cause.alert}`),
    h("p", {}, found.cause.summary, found.source && found.source !== "console" ? h("span", { class: "muted" }, ` (${reported(found)})`) : null),
    h("p", { class: "chips" }, found.recovered && firing ? pill("", "recovered") : pill(firing ? "bad" : "good", firing ? "firing" : "resolved"), pill("", `since ${clock(found.since, false)} (${ago(found.since)})`), found.resolvedAt ? pill("", `resolved ${clock(found.resolvedAt, false)}`) : null, pill(found.severity === "page" ? "bad" : "warn", found.severity)),
    h("p", { class: "chips" },
      found.runbook ? h("a", { class: "button", href: found.runbook, "data-focus": "runbook" }, "Runbook") : null,
      found.traceId ? h("a", { class: "button", href: `/traces/${found.traceId}`, "data-focus": "trace" }, first(found).replace("f", "F")) : null,
      // A denied call has not failed, and its log records are not warnings.
      found.cause.alert === "CallersRefused" ? [
        found.rpcs.map((rpc) => h("a", { class: "button", href: `/traces?rpc=${encodeURIComponent(rpc)}`, "data-focus": `of ${rpc}` }, `Traces of ${rpc}`)),
        h("a", { class: "button", href: "/logs?kind=security", "data-focus": "logs" }, "Security log"),
      ] : [
        slow(found) ?? h("a", { class: "button", href: `/traces?service=${encodeURIComponent(found.cause.service)}&status=error`, "data-focus": "failed" }, "Failed traces"),
        h("a", { class: "button", href: `/logs?service=${encodeURIComponent(found.cause.service)}&level=warning`, "data-focus": "logs" }, "Logs"),
      ]));
}

/** A link to the slow traces of a method that is slower than its objective. */
function slow({ cause, rpcs: [rpc], methods }) {
  const limit = cause.alert === "MethodSlowerThanPromised" && methods.find((one) => one.rpc === rpc)?.objective?.latencyMs;
  return limit ? h("a", { class: "button", href: `/traces?rpc=${encodeURIComponent(rpc)}&min_ms=${limit}`, "data-focus": "slow" }, "Slow traces") : null;
}

const timeline = ({ changes }) => table("Changes before and during", ["When", "What", "Who"], changes,
  (one) => [clock(one.at, false), one.what, one.who || "–"], "No control action, restart, deployment, or change of certificate, configuration or clock in the 15 minutes before the incident.");

const contracts = ({ methods }) => methods.length > 0 && table("Contracts of the affected methods", ["Method", "Failed", "Objective", "Budget spent", "Budget left", "Deadline", "Retries", "Callers", "Declared in"], methods, (m) => [
  h("a", { href: `/traces?rpc=${m.rpc}`, "data-focus": m.rpc }, m.rpc),
  m.calls ? h("span", { class: m.errors ? "level-error" : "" }, `${count(m.errors)} of ${count(m.calls)}`) : "no calls",
  m.objective ? `${percent(m.objective.availability, 2)}, ${ms(m.objective.latencyMs)}` : "–",
  m.budgetFailures ? percent(m.errors / m.budgetFailures) : "–",
  m.objective ? percent(Math.max(0, m.budgetLeft), 0) : "–",
  ms(m.deadlineMs), m.retries ? "yes" : "no", m.callers.join(", "), h("code", { title: m.source }, m.source.split("/").pop())]);

function calls({ methods }) {
  const rows = methods.flatMap((m) => m.exemplars.map((one) => ({ ...one, rpc: m.rpc }))).sort((a, b) => b.failed - a.failed || b.durationMs - a.durationMs).slice(0, 12);
  return rows.length > 0 && table("Calls during the incident", ["When", "Method", "Code", "Duration", "Trace"], rows,
    (one) => [clock(one.at * 1000, false), one.rpc, pill(one.failed ? "bad" : "good", one.code), ms(one.durationMs), h("a", { href: `/traces/${one.traceId}`, "data-focus": one.traceId }, one.traceId.slice(0, 8))]);
}

function effects(found) {
  if (!found.effects.length) return null;
  return h("section", { class: "card flush" }, h("h2", {}, "Effects"), h("ul", { class: "plain padded" }, found.effects.map((one) => h("li", {}, h("b", {}, one.service), ` ${one.alert}`, one.since ? h("span", { class: "muted" }, ` since ${clock(one.since, false)}`) : null))),
    found.messages.length ? h("ul", { class: "plain padded muted" }, found.messages.map((text) => h("li", {}, text))) : null);
}
