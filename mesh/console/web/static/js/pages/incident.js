// One incident: its cause, what changed before, the contract of the affected methods, what to do.

import { every, get } from "../api.js";
import { empty, facts, h, head, pill, refresh, show } from "../dom.js";
import { ago, clock, ms, percent } from "../format.js";
import { actions } from "./control.js";

export async function incident(main, { signal }, id) {
  const body = h("div", {}), buttons = h("div", {});
  show(main, head("Incident"), body, buttons);
  let shownFor = "";
  await every(5000, signal, async () => {
    const { items } = await get("incidents", { from: "-7d" }, signal);
    const found = items.find((one) => one.id === id);
    if (!found) return refresh(body, empty("This incident is not known; it was resolved long ago or merged into another one."));
    const [{ policies }, { items: methods }] = await Promise.all([get("mesh", {}, signal), get("metrics", { window: "1h" }, signal)]);
    document.title = `${found.cause.alert} · AMARRE console`;
    refresh(body, summary(found), timeline(found), contracts(found, policies, methods), effects(found));
    if (shownFor !== found.cause.service) {
      shownFor = found.cause.service;
      show(buttons, await actions(found.cause.service, signal));
    }
  });
}

function summary(found) {
  const firing = found.state === "firing";
  return h("section", { class: "card" },
    h("h2", {}, `${found.cause.service}: ${found.cause.alert}`),
    h("p", {}, found.cause.summary),
    h("p", { class: "chips" }, pill(firing ? "bad" : "good", firing ? "firing" : "resolved"), pill("", `since ${clock(found.since, false)} (${ago(found.since)})`), found.resolvedAt ? pill("", `resolved ${clock(found.resolvedAt, false)}`) : null, pill(found.severity === "page" ? "bad" : "warn", found.severity)),
    h("p", { class: "chips" },
      found.runbook ? h("a", { class: "button", href: found.runbook, "data-focus": "runbook" }, "Runbook") : null,
      found.traceId ? h("a", { class: "button", href: `/traces/${found.traceId}`, "data-focus": "trace" }, "First failed trace") : null,
      h("a", { class: "button", href: `/traces?service=${encodeURIComponent(found.cause.service)}&status=error`, "data-focus": "failed" }, "Failed traces"),
      h("a", { class: "button", href: `/logs?service=${encodeURIComponent(found.cause.service)}&level=warning`, "data-focus": "logs" }, "Logs")));
}

function timeline(found) {
  return h("section", { class: "card flush" }, h("h2", {}, "Changes before and during"), found.changes.length
    ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["When", "What", "Who"].map((t) => h("th", {}, t)))), h("tbody", {}, found.changes.map((one) => h("tr", {}, h("td", {}, clock(one.at, false)), h("td", {}, one.what), h("td", {}, one.who || "–"))))))
    : empty("No control action, restart or certificate change in the 15 minutes before."));
}

function contracts(found, policies, methods) {
  const affected = policies.filter((p) => found.rpcs.includes(p.rpc) || (!found.rpcs.length && p.rpc.startsWith(`${found.cause.service}.`)));
  if (!affected.length) return null;
  const state = new Map(methods.map((m) => [m.rpc, m]));
  return h("section", { class: "card flush" }, h("h2", {}, "Contract of the affected methods"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Contract of the affected methods" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Method", "Objective", "Budget left", "Deadline", "Retries", "Callers", "Declared in"].map((t) => h("th", {}, t)))),
    h("tbody", {}, affected.map((p) => {
      const m = state.get(p.rpc);
      return h("tr", {}, h("td", {}, h("a", { href: `/traces?rpc=${p.rpc}`, "data-focus": p.rpc }, p.rpc)), h("td", {}, m?.objective ? `${percent(m.objective.availability, 2)}, ${ms(m.objective.latencyMs)}` : "–"), h("td", {}, m?.objective ? percent(Math.max(0, m.budgetLeft), 0) : "–"), h("td", {}, ms(p.deadlineMs)), h("td", {}, p.retries ? "yes" : "no"), h("td", {}, p.callers.join(", ")), h("td", {}, h("code", {}, p.source)));
    })))));
}

function effects(found) {
  if (!found.effects.length) return null;
  return h("section", { class: "card flush" }, h("h2", {}, "Effects"), h("ul", { class: "plain" }, found.effects.map((one) => h("li", {}, h("b", {}, one.service), ` ${one.alert}`))),
    found.messages.length ? facts(found.messages.map((text) => ["", text])) : null);
}
