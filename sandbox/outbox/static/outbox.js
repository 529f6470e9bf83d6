// Shows new mails without being asked: looks every two seconds, loads the page when one came.
const shown = document.body.dataset.newest;

async function look() {
  if (document.visibilityState === "hidden") return;
  try {
    const messages = await (await fetch("/messages")).json();
    const newest = messages.length ? messages[0].id : "";
    if (newest !== shown) location.reload();
  } catch {
    // The outbox is being restarted; the next look will tell.
  }
}

document.getElementById("clear").addEventListener("click", async () => {
  await fetch("/messages", { method: "DELETE" });
  location.reload();
});
setInterval(look, 2000);
