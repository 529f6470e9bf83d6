// The state of the mesh: control actions, certificates, faults, proxies, policies, intake, runs.

import { get, every } from "../api.js";
import { control } from "./control.js";
import { h, head, pill, refresh, show, table } from "../dom.js";
import { ago, bytes, count, counted, days, ms, percent } from "../format.js";

export async function mesh(main, { signal }) {
  const body = h("div", {});
  const actions = h("div", {});
  show(main, head("Mesh"), actions, body);
  control(actions, signal);
  await every(5000, signal, async () => {
    const [found, intake, runs] = await Promise.all([get("mesh", {}, signal), get("intake", {}, signal), get("runs", {}, signal)]);
    refresh(body,
      table("Certificates", ["Process", "Life left", "Expires", "Identity"], found.certificates, (c) => [c.process, h("div", {}, `${days(c.daysLeft)} (${percent(c.lifeLeft, 0)})`, h("div", { class: `meter ${c.lifeLeft < 0.25 ? "bad" : c.lifeLeft < 0.5 ? "warn" : "good"}` }, h("i", { style: { width: `${c.lifeLeft * 100}%` } }))), new Date(c.notAfter).toLocaleString("en-GB"), c.subject ? h("code", {}, c.subject) : "–"], "No certificates reported."),
      h("div", { class: "two" },
        table("Active faults", ["Proxy", "Path", "Delay", "Abort"], found.faults, (f) => [f.process, h("code", {}, f.path), f.delay ? `${f.delay} for ${percent(f.delayShare, 0)}` : "–", f.abort ? `${f.abort} for ${percent(f.abortShare, 0)}` : "–"], "No active faults."),
        table("Weights", ["Proxy", "Clusters", "Path"], found.weights, (w) => [w.process, h("span", { class: "chips" }, Object.entries(w.clusters).map(([name, share]) => pill("accent", `${name} ${share}`))), h("code", {}, w.path)], "No canary."),
        table("Open circuit breakers", ["Proxy", "Cluster", "Kind"], found.breakers, (b) => [b.process, b.cluster, pill("bad", b.kind)], "No open circuit breakers."),
        table("Ejected hosts", ["Proxy", "Cluster", "Host"], found.ejections, (e) => [e.process, e.cluster, e.address], "No ejected hosts.")),
      found.proxies.map((p) => collapsed(`Proxy ${p.process}`, ["Route", "Cluster", "Timeout", "Retries"], p.routes, (r) => [h("code", {}, r.path), r.cluster, r.timeout || "–", r.retries ? `${r.retries} on ${r.retryOn}` : "none"], p.fault || "No routes.", p.up ? pill("good", `${p.state.toLowerCase()} ${p.version}`) : pill("bad", p.fault))),
      collapsed("Policies", ["Method", "Callers", "Deadline", "User", "Retries", "Declared in"], found.policies, (p) => [p.rpc, p.callers.join(", "), ms(p.deadlineMs), p.session ? "required" : "–", p.retries ? "yes" : "no", h("code", {}, p.source)], "No contracts."),
      h("div", { id: "intake", class: "two" },
        table("Stored", ["Service", "Spans", "Logs", "Size"], intake.kept, (k) => [k.service, count(k.spans), count(k.logs), bytes(k.spanBytes + k.logBytes)], "No telemetry received yet."),
        table("Dropped or changed", ["What", "Service", "Count", "Last"], intake.dropped, (d) => [h("span", { title: d.meaning }, `${d.signal}: ${d.meaning}`), d.service, count(d.count), ago(d.last)], "No telemetry was dropped.")),
      compared(runs.items));
  });
}

const opened = new Set();

/** A collapsed table; it remembers whether it is open across redraws. */
function collapsed(title, ...rest) {
  const remember = (event) => { if (event.target.open) opened.add(title); else opened.delete(title); };
  const [section] = [table(title, ...rest)];
  const heading = section.querySelector("h2");
  heading.remove();
  return h("details", { class: "card flush", open: opened.has(title), ontoggle: remember }, h("summary", { "data-focus": title }, heading), section.firstElementChild);
}

/** A comparison of this run with earlier ones: the p95 of each method. */
function compared(runs) {
  const shown = runs, names = [...new Set(shown.flatMap((r) => Object.keys(r.methods)))].sort();
  return table("Runs", ["p95 of", ...shown.map((r, i) => (i ? new Date(r.started).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "short" }) : "this run"))], names,
    (name) => [name, ...shown.map((r) => (r.methods[name] ? h("span", {}, ms(r.methods[name].p95Ms), h("span", { class: "muted" }, `, ${counted(r.methods[name].calls, "call")}`)) : "–"))], "No runs yet. Runs are summarized every 30 s.");
}
