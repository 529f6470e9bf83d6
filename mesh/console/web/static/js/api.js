// Client of the JSON API.

export class Failure extends Error {}
/** A console that takes longer is stuck, and its pages say so. */
const PATIENCE_MS = 10_000;

/** Returns the JSON of an endpoint; empty parameters are omitted. */
export async function get(path, parameters = {}, signal) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(kept).toString();
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const answer = await fetch(`/api/${path}${query ? `?${query}` : ""}`, { signal: signal ? AbortSignal.any([signal, limit]) : limit, headers: { accept: "application/json" } });
  return parsed(answer);
}

/** Parses a response; throws a Failure for an error status, with or without a JSON body. */
async function parsed(answer) {
  if (answer.status === 401) location.reload();
  const body = await answer.json().catch((error) => {
    if (answer.ok || error.name === "AbortError") throw error;
    return {};
  });
  if (!answer.ok) throw new Failure(body.error?.message ?? `The console returned HTTP ${answer.status}.`);
  return body;
}

/** Posts JSON to an endpoint and returns the JSON response. */
export async function post(path, body, signal) {
  return parsed(await fetch(`/api/${path}`, { method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify(body) }));
}

/** Sends a control action and returns its result. */
export const act = (name, given) => post("orders", { order: name, ...given });

/** Calls back with each batch of items of a stream, until it is aborted. */
export async function follow(path, parameters, signal, each) {
  const kept = Object.entries({ ...parameters, follow: "true" }).filter(([, value]) => value);
  const answer = await fetch(`/api/${path}?${new URLSearchParams(kept)}`, { signal });
  if (!answer.ok) throw new Failure((await answer.json()).error?.message ?? "The stream ended.");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    const items = lines.filter(Boolean).map((line) => JSON.parse(line));
    if (items.length) each(items);
  }
}

/** Runs a function periodically, never concurrently, and not while the page is hidden. */
export function every(milliseconds, signal, work) {
  let timer = 0;
  const turn = async () => {
    if (signal.aborted) return;
    if (!document.hidden) {
      try {
        await work();
        dispatchEvent(new CustomEvent("updated", { detail: { signal } }));
      } catch (error) {
        if (error.name === "AbortError") return;
        dispatchEvent(new CustomEvent("failed", { detail: { signal, error } }));
        console.error(error);
      }
    }
    if (!signal.aborted) timer = setTimeout(turn, milliseconds);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  return turn();
}
