// What must move: live values, sorting, tooltips, copying, the reader's own zone, a question before what can't be undone.
// Without this file every page works, but for live values.
"use strict";

// --- live values: the server sends the parts of the page that have changed ------------------------------------------

function live(root) {
  const state = document.querySelector("[data-live-state]");
  const say = (text) => { if (state) state.textContent = text; };
  let source;
  let held = [];
  const busy = (part) => part.matches(":hover, :focus-within") || String(getSelection()) !== "";
  const put = (part, html) => { if (part.innerHTML !== html) part.innerHTML = html; };
  const take = (event) => {
    const { id, html } = JSON.parse(event.data);
    const part = document.getElementById(id);
    if (!part) return;
    held = held.filter((one) => one.part !== part);
    // Nothing jumps while somebody reads or points: it waits until they look elsewhere.
    if (busy(part)) held.push({ part, html });
    else put(part, html);
  };
  // Where nobody looks, nothing is asked for: over HTTP/1.1 a browser has six connections to aimux for all of its tabs, and
  // with as many of them live no other page would load.
  function open() {
    source?.close();
    if (document.hidden) return;
    source = new EventSource(root.dataset.live);
    source.addEventListener("part", take);
    source.onopen = () => say("live");
    source.onerror = () => {
      say("not live: trying to reach aimux again");
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 3000);
    };
  }
  // A browser gives up after an answer that is no stream: a proxy's while aimux is away, or ours to who may look no more.
  async function again() {
    if (document.hidden) return;
    const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    if (answer?.ok) open();
    else if (answer === null || answer.status >= 500) setTimeout(again, 3000);
    else location.reload();
  }
  setInterval(() => {
    held = held.filter(({ part, html }) => busy(part) || put(part, html));
  }, 500);
  document.addEventListener("visibilitychange", () => { if (document.hidden) source?.close(); else again(); });
  open();
}

// --- tables that can be sorted ---------------------------------------------------------------------------------------

const value = (row, column) => {
  const cell = row.cells[column];
  const sort = cell.dataset.sort ?? cell.textContent.trim();
  return cell.dataset.sort !== undefined && !Number.isNaN(Number(sort)) ? Number(sort) : sort.toLowerCase();
};

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.className = "sort";
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
      const body = table.tBodies[0];
      const order = (a, b) => (a < b ? -down : a > b ? down : 0);
      body.append(...[...body.rows].sort((a, b) => order(value(a, column), value(b, column))));
    });
  });
}

// --- exact values ----------------------------------------------------------------------------------------------------

function tips() {
  let tip = null;
  const hide = () => { tip?.remove(); tip = null; };
  const show = (mark) => {
    hide();
    const title = mark.querySelector("title");
    if (!title) return;
    mark.dataset.tip ??= title.textContent;
    mark.setAttribute("aria-label", mark.dataset.tip);
    title.textContent = "";  // or the browser shows a second one
    tip = document.createElement("div");
    tip.className = "tip";
    tip.textContent = mark.dataset.tip;
    document.body.append(tip);
    const box = mark.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    // Set by script, which the policy allows; only style attributes in the markup are refused.
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.(".mark");
    if (mark) show(mark); else hide();
  });
  document.addEventListener("focusin", (event) => { if (event.target.closest?.(".mark")) show(event.target.closest(".mark")); });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, { passive: true });
}

// --- times in the reader's own zone ----------------------------------------------------------------------------------

const zone = new Intl.DateTimeFormat("en", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short",
});
for (const time of document.querySelectorAll("time[data-moment]")) {
  const at = Object.fromEntries(zone.formatToParts(new Date(time.dateTime)).map(({ type, value }) => [type, value]));
  time.textContent = `${at.year}-${at.month}-${at.day} ${at.hour}:${at.minute} ${at.timeZoneName}`;
}
document.addEventListener("pointerover", (event) => {
  const time = event.target.closest?.("time[datetime]");
  if (time) time.title = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
});

// --- what is shown once: loading the page again must not send its form again, which would make another token ---------

const shownOnce = document.querySelector("[data-instead]");
if (shownOnce) history.replaceState(null, "", shownOnce.dataset.instead);

// --- copying and asking ----------------------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  let copied = true;
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {  // without TLS there is no clipboard, and somebody may have forbidden it: the selection is left to be copied
    getSelection().selectAllChildren(source);
    copied = document.execCommand("copy");
  }
  button.dataset.before ??= button.textContent;
  button.textContent = copied ? "Copied" : "Selected: copy it by the keyboard";
  setTimeout(() => { button.textContent = button.dataset.before; }, 1500);
});

// --- choosing --------------------------------------------------------------------------------------------------------

// What is chosen with the pointer, or in the list that Enter or a space opens, is sent at once. Arrows and letters without that
// list pass one choice on the way to another, each of them a change: there the form's button sends.
let key = "";
document.addEventListener("keydown", (event) => { key = event.key; });
document.addEventListener("pointerdown", () => { key = ""; });
document.addEventListener("change", (event) => {
  if (["", "Enter", " "].includes(key) && event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});
// An address that others are given says what was filled in, and not what was not.
document.addEventListener("formdata", (event) => {
  if (event.target.method !== "get") return;
  for (const [name, text] of [...event.formData]) if (text === "") event.formData.delete(name);
});

// --- a device login: looks by itself whether the person has confirmed -----------------------------------------------

function poll(form) {
  const state = form.querySelector("[data-poll-state]");
  state.textContent = "Waiting for you to confirm. This page notices by itself.";
  const timer = setInterval(async () => {
    let answer;
    try {
      // The answer that is awaited leads to another page, which has to be loaded once, to show what has happened.
      answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), redirect: "manual" });
    } catch { return; }  // out of reach for a moment
    if (answer.type === "opaqueredirect") { clearInterval(timer); location.assign(form.dataset.done); }
    else if (!answer.ok) { clearInterval(timer); form.requestSubmit(); }
  }, Math.max(1, Number(form.dataset.poll) || 5) * 1000);
}

// What can't be undone is asked about first, and nothing is sent twice: a second click would issue another token, of which
// the answer to the first would never be seen.
const sent = new WeakSet();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (sent.has(form) || (form.dataset.ask && !confirm(form.dataset.ask))) {
    event.preventDefault();
    event.stopImmediatePropagation();
    return;
  }
  sent.add(form);
  setTimeout(() => sent.delete(form), 5000);  // whoever has stopped it may try again
});

// Long work: the button says what is under way.
document.addEventListener("submit", (event) => {
  const text = event.target.dataset.busy ?? event.submitter?.dataset.busy;
  const button = event.submitter ?? event.target.querySelector("button");
  if (!text || !button) return;
  button.setAttribute("aria-busy", "true");
  button.dataset.before = button.textContent;
  setTimeout(() => { button.disabled = true; button.textContent = text; });  // after the form was read
});
addEventListener("pageshow", () => {  // back again, from the browser's memory
  for (const form of document.forms) sent.delete(form);
  for (const button of document.querySelectorAll("[aria-busy]")) {
    button.removeAttribute("aria-busy");
    button.disabled = false;
    button.textContent = button.dataset.before;
  }
});

// Where a plot is wider than the screen, today comes first.
for (const plot of document.querySelectorAll(".scroll > .plot")) plot.parentElement.scrollLeft = plot.parentElement.scrollWidth;
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
for (const table of document.querySelectorAll("table.sortable")) sortable(table);
for (const form of document.querySelectorAll("form[data-poll]")) poll(form);
for (const root of document.querySelectorAll("[data-live]")) live(root);
tips();
