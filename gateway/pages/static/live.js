// Keeps the list of requests up to date: on a change event the page is fetched again and its
// content replaced, or the whole page if it is now that of another user. Without this script,
// users reload the page.

const SHORTEST_PAUSE_MS = 3000;
const LONGEST_PAUSE_MS = 60000;

// Pages that respond to a form are shown at the address of the form.
const ADDRESS = `/${location.search}`;

const content = document.getElementById("live");
const live = Boolean(content?.querySelector(".cards"));
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
    const answer = await fetch(ADDRESS, { headers: { accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const user = userOf(fresh);
    // Another tab has signed this user out, or somebody else in.
    if (user !== userOf(document) && (user || answer.ok)) location.replace(ADDRESS);
    if (!answer.ok || !live) return;
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

function userOf(page) {
  return page.querySelector("main")?.dataset.user;
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
  if (live) watch();
}

// Pages with a form are not replaced while people type. Hidden tabs hold no connection, since
// browsers allow few per host.
if (live) watch();
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") resume();
  else rest();
});
