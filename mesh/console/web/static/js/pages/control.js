// Control actions (faults, canaries, restarts) and their audit log.

import { act, every, get } from "../api.js";
import { choice, empty, h, pill, refresh, scrolls, show } from "../dom.js";

const STATUSES = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "NOT_FOUND"];

export async function control(place, signal) {
  const outcome = h("p", { class: "outcome", role: "status" }), state = h("div", {}), journal = h("div", {});
  let busy = false;
  const give = async (name, given, question) => {
    if (busy || (question && !confirm(question))) return;
    busy = true;
    place.setAttribute("aria-busy", "true");
    show(outcome, "In progress …");
    outcome.className = "outcome";
    try {
      const { told } = await act(name, given);
      show(outcome, `Done: ${words(name, given)}. ${told.join(" ")}`);
      outcome.className = "outcome good";
    } catch (error) {
      show(outcome, error.message);
      outcome.className = "outcome bad";
    }
    busy = false;
    place.removeAttribute("aria-busy");
    await look();
  };
  const look = async () => {
    const found = await get("orders", {}, signal);
    if (!found.available) return show(place, h("p", { class: "calm" }, found.message));
    if (!place.firstChild) {
      const { policies } = await get("mesh", {}, signal);
      show(place, h("section", { class: "card control" }, h("h2", {}, "Control"), forms(policies, give), outcome, state), journal);
    }
    refresh(state, inForce(found, give));
    refresh(journal, auditLog(found.items));
  };
  await every(5000, signal, look);
}

/** Returns buttons for the control actions that a runbook mentions; none without a runner. */
export async function actions(service, wanted, signal) {
  const { available, canaries, faults } = await get("orders", {}, signal);
  if (!available || !wanted.length) return null;
  const status = h("p", { class: "outcome", role: "status" });
  const button = (label, name, given, question) => h("button", { type: "button", onclick: async () => {
    if (question && !confirm(question)) return;
    show(status, "In progress …");
    try { await act(name, given); show(status, `Done: ${words(name, given)}.`); } catch (error) { show(status, error.message); }
  } }, label);
  const canaryRuns = canaries.some((c) => c.service === service && /^(starting|running)/.test(c.state));
  const buttons = {
    "restart": () => ["gateway", "auth", "survey", "health"].includes(service) && button(`Restart ${service}`, "restart", { service }, `Drain and replace every process of ${service}? In-flight calls are drained.`),
    "canary abort": () => canaryRuns && button(`Abort the canary of ${service}`, "canary abort", { service }),
    "fault clear": () => faults.length > 0 && button("End all injected faults", "fault clear", {}),
    "certs rotate": () => button("Renew all certificates", "rotate", {}, "Issue new certificates for every workload? Connections stay open."),
  };
  const shown = wanted.map((name) => buttons[name]()).filter(Boolean);
  return shown.length ? h("section", { class: "card" }, h("h2", {}, "Runbook actions"), h("p", { class: "chips" }, shown), status) : null;
}

function forms(policies, give) {
  const methods = policies.map((p) => p.rpc), services = [...new Set(methods.map((m) => m.split(".")[0]))];
  return h("div", { class: "three" },
    form("Start a fault", [
      choice("Method", "method", methods, "", null),
      number("Delay, ms", "delay_ms", { min: 1, max: 600000, placeholder: "none" }),
      choice("Abort with", "abort", STATUSES, "", "nothing"),
      number("Share of calls, %", "percent", { min: 1, max: 100, value: 100 }),
    ], "Start fault", (data) => give("fault add", { method: data.get("method"), percent: Number(data.get("percent")), ...(data.get("delay_ms") ? { delay_ms: Number(data.get("delay_ms")) } : {}), ...(data.get("abort") ? { abort: data.get("abort") } : {}) })),
    form("Start a canary", [
      choice("Service", "service", services, "", null),
      number("Weight, %", "weight", { min: 0, max: 100, value: 10 }),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "manual" }), "manual promotion"),
    ], "Start canary", (data) => give("canary start", { service: data.get("service"), weight: Number(data.get("weight")), manual: data.has("manual") })),
    form("Drain and replace", [choice("Service", "service", ["gateway", ...services], "", null)], "Restart",
      (data) => give("restart", { service: data.get("service") }, `Drain and replace every process of ${data.get("service")}? In-flight calls are drained.`)));
}

function form(title, fields, button, send) {
  return h("form", { "aria-label": title, onsubmit: (event) => { event.preventDefault(); send(new FormData(event.target)); } },
    h("h3", {}, title), h("div", { class: "filters" }, fields, h("button", { class: "primary" }, button)));
}

const number = (label, name, facts) => h("label", {}, label, h("input", { type: "number", name, ...facts }));

function inForce({ faults, canaries }, give) {
  const end = (fault) => { const method = fault.split(":")[0]; return give("fault clear", { method }); };
  return [
    faults.map((fault) => h("p", { class: "row" }, pill("warn", "fault"), h("span", {}, fault), h("button", { type: "button", "data-focus": `end ${fault}`, onclick: () => end(fault) }, "End fault"))),
    canaries.filter((c) => /^(starting|running|being promoted|promotion failed)/.test(c.state)).map((c) => canary(c, give)),
  ];
}

/** Returns the verdict on a canary as a pill. */
export const verdict = (found) => (found ? pill({ healthy: "good", bad: "bad" }[found] ?? "", { wait: "too few calls to judge" }[found] ?? found) : null);

function canary({ service, state, weight, manual, verdict: found, stable, canary: own }, give) {
  const share = (to) => h("button", { type: "button", "data-focus": `${service} ${to}`, "aria-pressed": String(to === weight), onclick: () => give("canary set", { service, weight: to }) }, `${to} %`);
  return h("div", { class: "row" }, pill("accent", `canary of ${service}`), h("span", {}, `${state}, ${weight} %, ${manual ? "manual promotion" : "automatic promotion"}`), verdict(found),
    h("span", { class: "chips", role: "group", "aria-label": `Weight of the canary of ${service}` }, [0, 10, 25, 50, 100].map(share)),
    h("button", { type: "button", class: "primary", "data-focus": `promote ${service}`, onclick: () => give("canary promote", { service }, `Replace all replicas of ${service} with the canary's program?`) }, "Promote"),
    h("button", { type: "button", "data-focus": `abort ${service}`, onclick: () => give("canary abort", { service }) }, "Abort"),
    h("small", { class: "muted" }, `stable ${stable} · canary ${own}`));
}

const words = (name, given) => [name, ...Object.entries(given).filter(([, v]) => v !== false && v !== "").map(([key, value]) => (["method", "service"].includes(key) ? value : `${key.replace("_ms", "")} ${value === true ? "" : value}${key === "delay_ms" ? " ms" : ["percent", "weight"].includes(key) ? " %" : ""}`.trim()))].join(" ");

function auditLog(items) {
  return h("section", { class: "card flush" }, h("h2", {}, "Control actions"), items.length
    ? scrolls("Control actions", "tall", h("table", {}, h("thead", {}, h("tr", {}, ["When", "Who", "What", "Outcome"].map((t) => h("th", {}, t)))),
      h("tbody", {}, items.map((o) => h("tr", {}, h("td", {}, new Date(o.at).toLocaleString("en-GB")), h("td", {}, o.by), h("td", {}, h("code", {}, words(o.order, o.asked))), h("td", {}, o.fault ? pill("bad", o.fault) : pill("good", "done")))))))
    : empty("No control actions yet."));
}
