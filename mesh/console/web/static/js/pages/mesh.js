// The mesh as it is: proxies, certificates, faults, policies, what was not kept, runs.

import { get, every } from "../api.js";
import { control } from "./control.js";
import { h, head, pill, refresh, show, table } from "../dom.js";
import { ago, bytes, count, days, ms, percent } from "../format.js";

export async function mesh(main, { signal }) {
  const body = h("div", {});
  const steer = h("div", {});
  show(main, head("Mesh"), steer, body);
  control(steer, signal);
  await every(5000, signal, async () => {
    const [found, intake, runs] = await Promise.all([get("mesh", {}, signal), get("intake", {}, signal), get("runs", {}, signal)]);
    refresh(body,
      table("Certificates", ["Of", "Life left", "Ends", "Identity"], found.certificates, (c) => [c.process, h("div", {}, `${days(c.daysLeft)} (${percent(c.lifeLeft, 0)})`, h("div", { class: `meter ${c.lifeLeft < 0.25 ? "bad" : c.lifeLeft < 0.5 ? "warn" : "good"}` }, h("i", { style: { width: `${c.lifeLeft * 100}%` } }))), new Date(c.notAfter).toLocaleString("en-GB"), h("code", {}, c.subject)], "No certificates reported."),
      h("div", { class: "two" },
        table("Faults in force", ["Proxy", "Path", "Delay", "Abort"], found.faults, (f) => [f.process, h("code", {}, f.path), f.delay ? `${f.delay} for ${percent(f.delayShare, 0)}` : "–", f.abort ? `${f.abort} for ${percent(f.abortShare, 0)}` : "–"], "None."),
        table("Weights", ["Proxy", "Clusters", "Path"], found.weights, (w) => [w.process, h("span", { class: "chips" }, Object.entries(w.clusters).map(([name, share]) => pill("accent", `${name} ${share}`))), h("code", {}, w.path)], "No canary."),
        table("Open breakers", ["Proxy", "Cluster", "Kind"], found.breakers, (b) => [b.process, b.cluster, pill("bad", b.kind)], "No open breakers."),
        table("Ejected hosts", ["Proxy", "Cluster", "Host"], found.ejections, (e) => [e.process, e.cluster, e.address], "No ejected hosts.")),
      found.proxies.map((p) => shut(`Proxy ${p.process}`, ["Route", "Cluster", "Time-out", "Retries"], p.routes, (r) => [h("code", {}, r.path), r.cluster, r.timeout || "–", r.retries ? `${r.retries} on ${r.retryOn}` : "none"], p.fault || "No routes.", p.up ? pill("good", `${p.state.toLowerCase()} ${p.version}`) : pill("bad", p.fault))),
      shut("Policies as compiled", ["Method", "Callers", "Deadline", "User", "Retries", "Declared in"], found.policies, (p) => [p.rpc, p.callers.join(", "), ms(p.deadlineMs), p.session ? "needed" : "–", p.retries ? "yes" : "no", h("code", {}, p.source)], "No contracts."),
      h("div", { id: "intake", class: "two" },
        table("Kept", ["Service", "Spans", "Logs", "Size"], intake.kept, (k) => [k.service, count(k.spans), count(k.logs), bytes(k.spanBytes + k.logBytes)], "No telemetry received yet."),
        table("Dropped or changed", ["What", "Service", "Count", "Last"], intake.dropped, (d) => [h("span", { title: d.meaning }, `${d.signal}: ${d.meaning}`), d.service, count(d.count), ago(d.last)], "Everything received was kept.")),
      compared(runs.items));
  });
}

const opened = new Set();

/** A table that stays shut until it is asked for, also when the page is drawn anew. */
function shut(title, ...rest) {
  const remember = (event) => { if (event.target.open) opened.add(title); else opened.delete(title); };
  const [section] = [table(title, ...rest)];
  const heading = section.querySelector("h2");
  heading.remove();
  return h("details", { class: "card flush", open: opened.has(title), ontoggle: remember }, h("summary", { "data-focus": title }, heading), section.firstElementChild);
}

/** This run beside those before it: the p95 of each method. */
function compared(runs) {
  const shown = runs, names = [...new Set(shown.flatMap((r) => Object.keys(r.methods)))].sort();
  return table("Runs", ["p95 of", ...shown.map((r, i) => (i ? new Date(r.started).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "short" }) : "this run"))], names,
    (name) => [name, ...shown.map((r) => (r.methods[name] ? h("span", {}, ms(r.methods[name].p95Ms), h("span", { class: "muted" }, ` ${count(r.methods[name].calls)}`)) : "–"))], "No runs yet. A run is summarised every 30 s.");
}
