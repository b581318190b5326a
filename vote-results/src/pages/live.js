// Keeps the numbers on the page of a poll up to date. The page is complete without this script.
(() => {
  "use strict";
  const root = document.querySelector("[data-poll]");
  if (!root || !window.EventSource) return;

  const address = `/polls/${encodeURIComponent(root.dataset.poll)}`;
  const grouped = new Intl.NumberFormat("en");
  const part = (name) => root.querySelector(`[data-${name}]`);
  const rows = new Map([...root.querySelectorAll("[data-option]")].map((row) => [row.dataset.option, row]));
  const withheld = root.dataset.withheld === "true";
  let events = null;
  let timer = 0;

  const live = (is) => {
    part("live").hidden = !is;
  };

  const show = (results) => {
    const known = results.options.length === rows.size && results.options.every((o) => rows.has(o.option));
    if (!known || results.status !== root.dataset.status || Boolean(results.withheld) !== withheld) {
      // The page needs another layout, so reload it, after a random delay: all viewers get here at the same moment.
      stop();
      setTimeout(() => location.reload(), 2000 + Math.random() * 8000);
      return;
    }
    if (results.updated_at) {
      part("updated").textContent = `${results.updated_at.slice(0, 19).replace("T", " ")} UTC`;
      part("updated").dateTime = results.updated_at;
    }
    if (withheld) return;
    part("total").textContent = grouped.format(results.total);
    for (const option of results.options) {
      const row = rows.get(option.option);
      const percent = option.percent.toFixed(1);
      row.querySelector("[data-votes]").textContent = grouped.format(option.votes);
      row.querySelector("[data-percent]").textContent = `${percent}%`;
      const meter = row.querySelector("[role=meter]");
      meter.setAttribute("aria-valuenow", percent);
      meter.setAttribute("aria-valuetext", `${percent}%`);
      meter.firstElementChild.style.width = `${percent}%`;
    }
  };

  // Fallback while no stream is available: fetch the results once.
  const fetchOnce = async () => {
    try {
      const answer = await fetch(`${address}/results.json`);
      if (answer.ok) show(await answer.json());
    } catch {
      // The next attempt may succeed.
    }
  };

  const start = () => {
    if (events) return;
    events = new EventSource(`${address}/events`);
    events.addEventListener("results", (event) => {
      live(true);
      show(JSON.parse(event.data));
    });
    events.addEventListener("error", () => {
      live(false);
      // Browsers reconnect by themselves after a broken connection, but not after an error status.
      if (events && events.readyState === EventSource.CLOSED) {
        stop();
        fetchOnce();
        timer = setTimeout(start, 10000 + Math.random() * 20000);
      }
    });
  };

  const stop = () => {
    clearTimeout(timer);
    if (events) events.close();
    events = null;
    live(false);
  };

  // A page in the background needs no stream, and browsers allow only a few connections per host.
  const follow = () => (document.hidden ? stop() : start());
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", stop);
  window.addEventListener("pageshow", follow);
  follow();
})();
