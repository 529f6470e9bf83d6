// Keeps the list of requests up to date: on a change event the page is fetched again and its
// content replaced. Without this script people reload.

const content = document.getElementById("live");
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
let waiting = false;
let events = null;

async function refresh() {
  if (waiting) return;
  waiting = true;
  try {
    const answer = await fetch(location.pathname + location.search, {
      headers: { accept: "text/html" },
    });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    replace(fresh, "#live");
    replace(fresh, ".tabs");
  } finally {
    waiting = false;
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
  events.onmessage = (event) => {
    const kind = JSON.parse(event.data).change?.kind;
    if (kind === "CHANGE_KIND_CHANGED" || kind === "CHANGE_KIND_REMOVED") refresh();
  };
  // The server ends each stream after a while; refresh to see what changed meanwhile.
  events.addEventListener("end", () => {
    rest();
    setTimeout(resume, 3000);
  });
}

function rest() {
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
