// Sends the forms of the API explorer and shows the response.

const STREAM_LINES = 40;

for (const form of document.querySelectorAll("form[data-path]")) {
  form.querySelector("button[type=submit]").hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
}

async function send(form) {
  const output = form.querySelector("output");
  output.hidden = false;
  output.textContent = "…";
  form.running?.abort();
  form.running = new AbortController();
  try {
    const answer = await fetch(address(form), { ...options(form), signal: form.running.signal });
    const head = `${answer.status} ${answer.statusText}\n${answer.headers.get("content-type") ?? ""}\n\n`;
    if ("stream" in form.dataset && answer.ok) await follow(answer, output, head);
    else output.textContent = head + (await readable(answer));
  } catch (error) {
    if (error.name !== "AbortError") output.textContent = String(error);
  }
}

function address(form) {
  const query = new URLSearchParams();
  for (const input of form.querySelectorAll('input[data-in="query"]')) {
    if (input.value !== "") query.append(input.name, input.value);
  }
  return query.size ? `${form.dataset.path}?${query}` : form.dataset.path;
}

function options(form) {
  const headers = { accept: "application/json, */*" };
  for (const input of form.querySelectorAll('input[data-in="header"]')) {
    if (input.value !== "") headers[input.name] = input.value;
  }
  const body = form.elements.body?.value;
  if (body !== undefined) headers["content-type"] = "application/json";
  return { method: form.dataset.verb, headers, body };
}

async function readable(answer) {
  const kind = answer.headers.get("content-type") ?? "";
  if (kind.startsWith("application/json")) return JSON.stringify(await answer.json(), null, 2);
  if (kind.startsWith("text/")) return await answer.text();
  return `${(await answer.blob()).size} bytes`;
}

async function follow(answer, output, head) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let lines = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    lines = lines.concat(value.split("\n")).slice(-STREAM_LINES);
    output.textContent = head + lines.join("\n");
  }
}
