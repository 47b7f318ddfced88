"use strict";
const lost = document.getElementById("lost");
let answered = new Date();
async function refresh() {
  let trouble = "No answer";
  try {
    const url = new URL(location.pathname, location.origin);
    const answer = await fetch(url, { cache: "no-store", headers: { "X-Requested-With": "fetch" }, signal: AbortSignal.timeout(4000) });
    if (answer.ok) {
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const open of document.querySelectorAll("details")) {
        next.getElementById(open.id)?.toggleAttribute("open", open.open);
      }
      document.querySelector("main").replaceWith(next.querySelector("main"));
      document.title = next.title;
      answered = new Date();
      trouble = "";
    } else if (answer.status === 401) {
      trouble = "The token is not accepted any more (401): reload the page. No answer";
    } else {
      trouble = "The gate answered " + answer.status + ". No page";
    }
  } catch { /* the gate is gone, or slow */ }
  document.body.classList.toggle("old", trouble !== "");
  lost.hidden = trouble === "";
  lost.textContent = trouble && trouble + " since " + answered.toTimeString().slice(0, 8) + ": what is below is old.";
}
async function loop() {
  if (!document.hidden) await refresh();
  setTimeout(loop, 5000);
}
setTimeout(loop, 5000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
