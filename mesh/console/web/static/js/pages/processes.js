// Services and processes: versions, uptime, restarts and their reasons, usage of limits.

import { every, get } from "../api.js";
import { h, head, pill, refresh, show, table } from "../dom.js";
import { ago, bytes, clock, count, days, ms, percent, span } from "../format.js";
import { offset } from "./overview.js";

const LATE_MS = 250;
const NONE = "No scrape targets.";

export async function processes(main, { signal }) {
  const body = h("div", {});
  show(main, head("Processes", "Services with their replicas, and all processes and proxies. Memory of a process is resident memory, including pages that several processes share; memory of a proxy is what Envoy has allocated."), body);
  await every(5000, signal, async () => {
    const { items } = await get("processes", {}, signal);
    const services = Map.groupBy(items, (one) => one.workload);
    refresh(body,
      table("Services", ["Service", "Replicas", "Versions", "Restarts", "Last deployment"], [...services], service, NONE),
      table("Processes and proxies", ["Process", "State", "Version", "Uptime", "Restarts", "Loop delay", "Certificate", "Memory", "Fullest limit"], items, process, NONE));
  });
}

function service([name, items]) {
  const replicas = items.filter((one) => one.kind === "process"), proxies = items.filter((one) => one.kind === "proxy");
  const up = (some) => `${some.filter((one) => one.up).length} of ${some.length}`;
  const last = items.find((one) => one.lastDeployment)?.lastDeployment;
  const restarts = items.reduce((sum, one) => sum + one.restarts.length, 0);
  return [
    h("b", {}, name),
    h("span", { class: "chips" }, replicas.length ? pill(replicas.every((one) => one.up) ? "good" : "bad", `${up(replicas)} up`) : null, proxies.length ? pill(proxies.every((one) => one.up) ? "good" : "bad", `proxies ${up(proxies)}`) : null),
    [...new Set(replicas.map((one) => one.version).filter(Boolean))].join(", ") || "–",
    restarts || "none",
    last ? h("span", { title: last.at }, `${ago(last.at)}: ${last.what}`, last.who ? h("span", { class: "muted" }, ` by ${last.who}`) : null) : "none seen",
  ];
}

function process(one) {
  const [latest] = one.restarts, late = one.eventLoopDelaySeconds === null ? null : one.eventLoopDelaySeconds * 1000;
  return [
    one.process,
    h("span", { class: "chips" }, one.up ? pill("good", "up") : pill("bad", one.fault), one.clockOffsetSeconds === null ? null : pill("bad", offset(one.clockOffsetSeconds))),
    one.version || "–",
    one.up && one.startedAt ? h("span", { title: one.startedAt }, span(one.startedAt)) : "–",
    latest ? h("span", { title: one.restarts.map((r) => `${clock(r.at, false)} ${r.why}`).join("\n") }, `${one.restarts.length}: ${latest.why}, ${ago(latest.at)}`) : "none",
    late === null ? "–" : h("span", { class: late > LATE_MS ? "level-error" : "" }, ms(late)),
    one.certificate ? meter(one.certificate.lifeLeft, `${days(one.certificate.daysLeft)} left`, (left) => (left < 0.25 ? "bad" : left < 0.5 ? "warn" : "good")) : "–",
    bytes(one.memoryBytes),
    one.limits.length ? limits(one.limits) : "–",
  ];
}

function limits(all) {
  const [first] = all;
  const words = (one) => (one.refused ? `${one.name} rejected ${count(one.refused)}` : `${one.name} ${count(one.used)} of ${count(one.limit)}`);
  const shown = first.refused ? pill("bad", words(first)) : meter(first.used / first.limit, words(first), (used) => (used > 0.8 ? "bad" : used > 0.5 ? "warn" : "good"));
  return h("div", { title: all.map(words).join("\n") }, shown);
}

const meter = (share, text, kind) =>
  h("div", { class: "measure" }, text, h("div", { class: `meter ${kind(share)}`, title: percent(share, 0) }, h("i", { style: { width: `${Math.min(1, share) * 100}%` } })));
