"use strict";
const lost = document.getElementById("lost");
let answered = new Date();
let refreshing = null;

// refresh has the page show what the gate says now. There is one refresh at a time.
function refresh() {
  refreshing ??= tell().finally(() => { refreshing = null; });
  return refreshing;
}

async function tell() {
  const trouble = await renew();
  const text = trouble && trouble + " since " + answered.toISOString().slice(11, 19) + " UTC: what is below is old.";
  document.body.classList.toggle("old", text !== "");
  lost.hidden = text === "";
  if (lost.textContent !== text) lost.textContent = text; // else it would be read aloud again
}

// renew returns what keeps the page from being that of now; empty if nothing does.
async function renew() {
  let body;
  try {
    const url = new URL(location.pathname, location.origin);
    const answer = await fetch(url, { cache: "no-store", headers: { "X-Requested-With": "fetch" }, signal: AbortSignal.timeout(4000) });
    if (answer.status === 401) return "The token is not accepted any more (401): reload the page. No answer";
    if (!answer.ok) return "The gate answered " + answer.status + ". No page";
    body = await answer.text();
  } catch {
    return "No answer"; // the gate is gone, or slow
  }
  const next = new DOMParser().parseFromString(body, "text/html");
  const now = document.querySelector("main"), then = next.querySelector("main[data-page]");
  if (!then) return "Something else than the gate answered. No page";
  if (getSelection().containsNode(now, true) && !getSelection().isCollapsed && new Date() - answered < 60000) return ""; // somebody copies it
  answered = new Date();
  if (then.dataset.page !== now.dataset.page) { // the gate has another version, and another script
    location.reload();
    return "";
  }
  for (const open of now.querySelectorAll("details")) {
    next.getElementById(open.id)?.toggleAttribute("open", open.open);
  }
  const focused = [...now.querySelectorAll("a, summary")].indexOf(document.activeElement);
  now.replaceWith(then);
  then.querySelectorAll("a, summary")[focused]?.focus({ preventScroll: true });
  document.title = next.title;
  return "";
}

async function loop() {
  if (!document.hidden) await refresh();
  setTimeout(loop, 5000);
}
setTimeout(loop, 5000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
