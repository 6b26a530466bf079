"use strict";
// Fetches the page itself once a second and puts its <main> in the place of the old one: one form of everything.
const EVERY = 1000, KEPT = 121, rates = [];
let before = null;
const body = document.body;
const show = (id, text) => { const e = document.getElementById(id); if (e) e.textContent = text; };
const number = n => n >= 100 ? n.toFixed(0) : n.toFixed(1);
function note(main) {
  const total = +main.dataset.requests, time = performance.now(), pid = main.dataset.pid;
  if (before && before.pid === pid && total >= before.total) {
    rates.push((total - before.total) / (time - before.time) * 1000);
    if (rates.length > KEPT) rates.shift();
  } else if (before) rates.length = 0;
  before = { total, time, pid };
  if (!rates.length) return;
  body.classList.add("live");
  show("rate", number(rates[rates.length - 1]));
  show("rate-of", "requests per second, now");
  const most = Math.max(1, ...rates), width = 600 / (KEPT - 1), first = 600 - (rates.length - 1) * width;
  const line = rates.map((r, i) => `${(first + i * width).toFixed(1)} ${(60 - 58 * r / most).toFixed(1)}`).join(" L");
  document.querySelector(".chart path.line").setAttribute("d", "M" + line);
  document.querySelector(".chart path.area").setAttribute("d", `M${first.toFixed(1)} 60 L${line} L600 60 Z`);
  show("most", `at most ${number(most)}/s`);
}
async function turn() {
  if (!document.hidden) {
    try {
      const response = await fetch("/", { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!response.ok) throw new Error(response.status);
      // Its style has another nonce than this page's policy, and would be an error on the console each time.
      const text = (await response.text()).replace(/<style[^]*?<\/style>/, "");
      const page = new DOMParser().parseFromString(text, "text/html");
      const main = page.querySelector("main");
      document.querySelector("main").replaceWith(main);
      document.querySelector("header").replaceWith(page.querySelector("header"));
      document.title = page.title;
      body.classList.remove("lost");
      note(main);
    } catch (error) {
      body.classList.add("lost");
    }
  }
  setTimeout(turn, EVERY);
}
note(document.querySelector("main"));
setTimeout(turn, EVERY);
