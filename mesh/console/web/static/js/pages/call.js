// Calling a gRPC method directly: request, bytes on the wire, deadline, retries, trace.

import { get, post } from "../api.js";
import { choice, empty, facts, h, head, pill, scrolls, show } from "../dom.js";
import { count, ms, percent } from "../format.js";

export async function call(main, { signal, query, keep }) {
  const { items, available, message } = await get("calls", {}, signal);
  if (!available) return show(main, head("Call"), empty(message));
  const byName = new Map(items.map((one) => [one.rpc, one])), asked = query.get("method") ?? items[0].rpc;
  if (!byName.has(asked)) throw new Error(`There is no method ${asked}; methods are for example ${items[0].rpc}.`);
  const about = h("div", {}), result = h("div", { role: "status" });
  const request = h("textarea", { name: "request", rows: 8, spellcheck: "false", "aria-label": "Request as JSON" });
  const form = h("form", { class: "card call", "aria-label": "Call a method", onsubmit: (event) => { event.preventDefault(); send(); } },
    h("div", { class: "filters" },
      choice("Method", "method", items.map((one) => one.rpc), asked, null),
      h("label", {}, "Calls as", h("input", { name: "identity", value: "gateway", required: true, pattern: "[a-z][a-z0-9\\-]*", spellcheck: "false" })),
      h("label", { class: "wide" }, "Session secret", h("input", { name: "session", type: "password", autocomplete: "off", placeholder: "for methods that need a signed-in user" }))),
    about, h("label", {}, "Request", request), h("p", {}, h("button", { class: "primary" }, "Call")));
  const chosen = () => {
    const one = byName.get(form.elements.method.value);
    keep({ method: one.rpc });
    form.elements.identity.value = one.callers.find((name) => name !== "*") ?? "gateway";
    request.value = JSON.stringify(one.request, null, 2);
    show(about, facts([["Deadline", ms(one.deadlineMs)], ["Retries", one.retries ? "by proxies and clients" : "never"], ["Callers", one.callers.join(", ")], ["User", one.session ? "required" : "not required"], ["Declared in", h("code", {}, one.source)]]));
  };
  const send = async () => {
    show(result, h("p", { class: "muted" }, "Calling …"));
    try {
      const given = JSON.parse(request.value || "{}"), data = new FormData(form);
      show(result, ...outcome(await post("calls", { method: data.get("method"), identity: data.get("identity"), session: data.get("session"), request: given }, signal)));
    } catch (error) {
      show(result, h("p", { class: "level-error", role: "alert" }, error instanceof SyntaxError ? `The request is not valid JSON: ${error.message}` : error.message));
    }
  };
  show(main, head("Call", "Calls a method of a service over mutual TLS, as one of its callers. The audit log records caller and method, but not the request."), form, result);
  form.elements.method.addEventListener("change", () => { show(result); chosen(); });
  chosen();
}

function outcome(found) {
  const said = Object.entries(found.facts).map(([key, value]) => [key, value]);
  return [
    h("section", { class: "card" }, h("h2", {}, "Outcome"),
      h("p", { class: "chips" }, pill(found.code === "OK" ? "good" : "bad", found.code), pill("", `${ms(found.duration_ms)}, ${percent(found.duration_ms / found.deadline_ms)} of the ${ms(found.deadline_ms)} deadline`), pill("", found.retries ? "may be retried" : "never retried"), h("a", { class: "button", href: `/traces/${found.trace_id}` }, "Trace")),
      found.message ? h("p", {}, found.message) : null, said.length ? facts(said) : null),
    message("Request on the wire", found.request),
    found.responses.map((one, n) => message(found.responses.length > 1 ? `Response ${n + 1}` : "Response", one)),
    found.more ? empty("The stream continues; only the first responses are shown.") : null,
  ].flat();
}

const message = (title, { json, bytes, wire }) => h("section", { class: "card" }, h("h2", {}, title),
  json === undefined ? null : scrolls(`${title} as JSON`, "tall", h("pre", {}, JSON.stringify(json, null, 2))),
  h("p", { class: "muted" }, `${count(bytes)} bytes${wire.length / 2 < bytes ? `, the first ${count(wire.length / 2)} shown` : ""}`),
  wire ? scrolls(`${title} as bytes`, "tall", h("pre", {}, dump(wire))) : null);

/** Returns a hex dump: sixteen bytes per line, with offset and characters. */
function dump(wire) {
  const lines = wire.match(/.{1,32}/g) ?? [];
  return lines.map((line, n) => {
    const pairs = line.match(/../g);
    const text = pairs.map((pair) => { const code = parseInt(pair, 16); return code >= 32 && code < 127 ? String.fromCharCode(code) : "."; }).join("");
    return `${(n * 16).toString(16).padStart(4, "0")}  ${pairs.join(" ").padEnd(47)}  ${text}`;
  }).join("\n");
}
