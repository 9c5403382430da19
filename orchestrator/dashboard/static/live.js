// Keeps the parts of a page that change up to date. Without it the page is whole, only as of when it was loaded.
(() => {
  "use strict";
  const LIVE_MS = 1000, ENDED_MS = 10000, LONGEST_MS = 10000, TIMEOUT_MS = 15000, PICTURE_MS = 4000;
  const live = document.getElementById("live");
  const words = document.getElementById("freshness-words");
  const announcer = document.getElementById("announcer");
  const title = document.title;
  const url = live.dataset.liveUrl;
  let tag = live.dataset.etag, seenAt = new Date(), failures = 0, timer = 0, waiting = false;

  const clock = (moment) => moment.toLocaleTimeString([], { hour12: false });
  const announce = (text) => { announcer.textContent = text; };

  function showFresh() {
    const wasStale = document.body.classList.contains("stale");
    document.body.classList.add("live");
    document.body.classList.remove("stale");
    words.textContent = `Live, as of ${clock(seenAt)}`;
    if (wasStale) {
      document.title = title;
      announce("The connection is back.");
    }
  }

  function showStale() {
    const since = clock(seenAt);
    document.body.classList.remove("live");
    words.textContent = `No connection: this is as of ${since}. Trying again…`;
    if (!document.body.classList.contains("stale")) {
      document.body.classList.add("stale");
      document.title = `Stale: ${title}`;
      announce(`The connection is lost. What is shown is as of ${since}.`);
    }
  }

  const regions = (root) => new Map([...root.querySelectorAll("[data-region]")].map((one) => [one.dataset.region, one]));

  // A person who types, marks text or has opened a menu there must not lose it.
  function isInUse(region) {
    const active = document.activeElement;
    const types = active && region.contains(active) && active.matches("input:not([type=hidden])");
    const selection = document.getSelection();
    const marks = selection && !selection.isCollapsed && region.contains(selection.anchorNode);
    return types || marks;
  }

  // Pictures are fetched before they are shown, so that nothing flickers.
  function picturesOf(region) {
    const hrefs = [...region.querySelectorAll("image")].map((one) => one.getAttribute("href"));
    const sources = [...region.querySelectorAll("img")].map((one) => one.getAttribute("src"));
    return [...hrefs, ...sources];
  }

  async function fetched(source) {
    const picture = new Image();
    picture.src = source;
    const late = new Promise((resolve) => { setTimeout(resolve, PICTURE_MS); });
    await Promise.race([picture.decode().catch(() => undefined), late]);
  }

  async function replace(before, after) {
    const known = new Set(picturesOf(before));
    await Promise.all(picturesOf(after).filter((source) => !known.has(source)).map(fetched));
    if (isInUse(before)) return false;
    const open = new Set([...before.querySelectorAll("details[open]")].map((one) => one.id));
    for (const one of after.querySelectorAll("details")) one.open = open.has(one.id);
    const focused = before.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...before.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    before.replaceWith(after);
    [...after.querySelectorAll(".scroll")].forEach((one, index) => { one.scrollLeft = scrolled[index] ?? 0; });
    if (focused) {
      const again = document.getElementById(focused) ?? after.querySelector("h2, h3");
      if (again && !again.matches("a, button, input, summary")) again.tabIndex = -1;
      again?.focus({ preventScroll: true });
    }
    return true;
  }

  const spoken = () => live.querySelector("[data-announce]")?.dataset.announce ?? "";

  // Returns whether everything that changed is shown; what was in use is tried again next time.
  async function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    const before = regions(live), after = regions(fresh), said = spoken();
    const names = (all) => [...all.keys()].join();
    let isWhole = true;
    if (names(before) !== names(after)) {
      if ([...before.values()].some(isInUse)) return false;
      live.replaceChildren(...fresh.childNodes);
    } else {
      for (const [name, region] of after) {
        const old = before.get(name);
        if (old.outerHTML.replaceAll(' open=""', "") !== region.outerHTML) isWhole = (await replace(old, region)) && isWhole;
      }
    }
    if (spoken() !== said) announce(spoken());
    return isWhole;
  }

  async function ask() {
    const headers = tag ? { "If-None-Match": `"${tag}"` } : {};
    const answer = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    const html = await answer.text();
    if (answer.status === 401) { location.reload(); return; }
    if (answer.status === 200) {
      const isWhole = await show(html);
      tag = isWhole ? (answer.headers.get("ETag") ?? "").replaceAll('"', "") : "";
    } else if (answer.status !== 304) {
      throw new Error(`status ${answer.status}`);
    }
    seenAt = new Date();
    failures = 0;
    showFresh();
  }

  const pause = () => {
    if (failures) return Math.min(LONGEST_MS, LIVE_MS * 2 ** failures);
    return live.querySelector("[data-refresh=ended]") ? ENDED_MS : LIVE_MS;
  };

  async function turn() {
    clearTimeout(timer);
    if (waiting || document.hidden) return;
    waiting = true;
    try {
      await ask();
    } catch {
      failures += 1;
      showStale();
    }
    waiting = false;
    timer = setTimeout(turn, pause());
  }

  // What came of a form is told once, not again when the page is loaded again.
  const here = new URL(location.href);
  if (here.searchParams.has("told")) {
    here.searchParams.delete("told");
    history.replaceState(null, "", here);
  }

  document.addEventListener("visibilitychange", turn);
  addEventListener("online", turn);
  addEventListener("pageshow", (event) => { if (event.persisted) turn(); });
  turn();
})();
