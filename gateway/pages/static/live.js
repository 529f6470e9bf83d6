// Keeps the list of requests up to date: on a change event the page is fetched again and its
// content replaced. Without this script, users reload the page.

const SHORTEST_PAUSE_MS = 3000;
const LONGEST_PAUSE_MS = 60000;

const content = document.getElementById("live");
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
let refreshing = false;
let again = false;
let events = null;
let timer = null;
let pause = SHORTEST_PAUSE_MS;

async function refresh() {
  again = refreshing;
  if (refreshing) return;
  refreshing = true;
  try {
    const answer = await fetch(location.pathname + location.search, {
      headers: { accept: "text/html" },
    });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    replace(fresh, "#live");
    replace(fresh, ".tabs");
  } catch {
    // The network is down; the next event or reconnection refreshes.
  } finally {
    refreshing = false;
    // A change that arrived meanwhile may not be on the page that was fetched.
    if (again) refresh();
  }
}

function replace(fresh, selector) {
  const now = document.querySelector(selector);
  const then = fresh.querySelector(selector);
  if (!now || !then || now.innerHTML === then.innerHTML) return;
  const open = new Set([...now.querySelectorAll("details[open]")].map(cardOf));
  now.replaceChildren(...then.childNodes);
  for (const details of now.querySelectorAll("details")) {
    details.open = open.has(cardOf(details));
  }
}

function cardOf(element) {
  return element.closest("article")?.id;
}

function watch() {
  events = new EventSource(content.dataset.live);
  events.onopen = () => {
    pause = SHORTEST_PAUSE_MS;
  };
  events.onmessage = (event) => {
    const kind = JSON.parse(event.data).change?.kind;
    if (kind !== undefined && kind !== "CHANGE_KIND_UNSPECIFIED" && kind !== "CHANGE_KIND_CURRENT") refresh();
  };
  // The server ends each stream after a while.
  events.addEventListener("end", reconnect);
  // A browser reconnects by itself after a lost connection, but not after a status such as 503
  // or 429 (HTML, section 9.2.3).
  events.onerror = () => {
    if (events?.readyState === EventSource.CLOSED) reconnect();
  };
}

// Reconnects after a pause that doubles each time, and refreshes first.
function reconnect() {
  rest();
  timer = setTimeout(resume, pause * (1 + Math.random() / 2));
  pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
}

function rest() {
  clearTimeout(timer);
  events?.close();
  events = null;
}

function resume() {
  if (events || document.visibilityState !== "visible") return;
  refresh();
  watch();
}

// Pages with a form are not replaced while people type. Hidden tabs hold no connection, since
// browsers allow few per host.
if (content?.querySelector(".cards")) {
  watch();
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") resume();
    else rest();
  });
}
