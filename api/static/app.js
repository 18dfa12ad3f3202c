// Makes pages live: one event stream, values in place, ages that tick, parts that refresh. No page needs it to be read.
"use strict";
(() => {
  const body = document.body;
  const words = JSON.parse(body.dataset.words);
  const behind = Date.now() - Number(body.dataset.now); // this browser's clock may be wrong; the server's counts
  const now = () => Date.now() - behind;

  // ---- words -------------------------------------------------------------------------------------------------------

  const say = (key, places = {}) =>
    Object.entries(places).reduce((text, [name, value]) => text.replace(`{${name}}`, value), words[key] ?? key);

  function ageText(ts) {
    const seconds = Math.max(0, Math.floor((now() - ts) / 1000));
    if (seconds < 2) return say("age.now");
    for (const [key, size, most] of [["age.s", 1, 60], ["age.min", 60, 3600], ["age.h", 3600, 172800]]) {
      if (seconds < most) return say(key, { n: Math.floor(seconds / size) });
    }
    return say("age.d", { n: Math.floor(seconds / 86400) });
  }

  const pad = (number) => String(number).padStart(2, "0");

  function clockText(ts) {
    const at = new Date(ts);
    const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
    return `${day} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  }

  // A value as text, without its unit; the server does the same in `html.Words.shown`.
  function shown(field, value, digits = 2) {
    if (value === null || value === undefined) return "–";
    if (typeof value === "number") return digits ? String(Number(value.toFixed(digits))) : value.toFixed(0);
    return words[`value.${field}.${value}`] ?? words[`value.${value}`] ?? String(value);
  }

  // ---- what is on the page -----------------------------------------------------------------------------------------

  function tick(root = document) {
    for (const time of root.querySelectorAll("time[data-age]")) time.textContent = ageText(Number(time.dataset.age));
  }

  function settle(root = document) {
    for (const time of root.querySelectorAll("time[data-clock]")) time.textContent = clockText(Number(time.dataset.clock));
    for (const time of root.querySelectorAll("time[data-age]")) time.title = clockText(Number(time.dataset.age));
    for (const car of root.querySelectorAll("[data-floor-of]")) placeCar(car, null);
    tick(root);
  }

  function placeCar(car, floor) {
    const { floors, storey } = car.ownerSVGElement.dataset;
    if (floor === null) {
      // The style moves smoothly where the attribute jumps; after a refresh the attribute is the newer of the two.
      const y = car.transform.baseVal.consolidate()?.matrix.f;
      if (y !== undefined) car.style.transform = `translateY(${y}px)`;
      return;
    }
    const clamped = Math.min(Math.max(floor, 1), Number(floors));
    const y = 10 + (Number(floors) - clamped) * Number(storey);
    car.setAttribute("transform", `translate(0 ${y})`);
    car.style.transform = `translateY(${y}px)`;
    car.classList.remove("lost");
  }

  // ---- live values -------------------------------------------------------------------------------------------------

  const newest = new Map(); // "device part/field" -> device time: late samples must not overwrite newer ones

  function applyValues({ device, parts }) {
    const fresh = {};
    for (const [part, fields] of Object.entries(parts)) {
      for (const [field, { value, ts }] of Object.entries(fields)) {
        const key = `${part}/${field}`;
        const seen = `${device} ${key}`;
        if ((newest.get(seen) ?? 0) > ts) continue;
        newest.set(seen, ts);
        fresh[key] = { value, ts, field };
      }
    }
    for (const box of document.querySelectorAll(`[data-device="${CSS.escape(device)}"]`)) {
      for (const [key, one] of Object.entries(fresh)) applyValue(box, key, one);
      for (const part of Object.keys(parts)) {
        for (const time of box.querySelectorAll(`[data-age-of-part="${CSS.escape(part)}"]`)) {
          time.dataset.age = String(Math.max(Number(time.dataset.age), ...Object.values(parts[part]).map((one) => one.ts)));
          time.textContent = ageText(Number(time.dataset.age));
        }
      }
      for (const busy of box.querySelectorAll("[data-busy]")) countBusy(box, busy);
      for (const seen of box.querySelectorAll("time[data-seen]")) {
        seen.dataset.age = String(Math.round(now()));
        seen.textContent = ageText(now());
      }
    }
  }

  function applyValue(box, key, { value, ts, field }) {
    const name = CSS.escape(key);
    for (const place of box.querySelectorAll(`[data-text="${name}"]`)) {
      place.textContent = shown(field, value, Number(place.dataset.digits ?? 2));
    }
    for (const row of box.querySelectorAll(`[data-row="${name}"]`)) row.classList.remove("stale");
    for (const time of box.querySelectorAll(`[data-age-of="${name}"]`)) {
      time.dataset.age = String(ts);
      time.textContent = ageText(ts);
    }
    const drawn = [box, ...box.querySelectorAll(`[data-attr~="${name}"]`)];
    for (const place of drawn) {
      if (place.dataset.attr?.split(" ").includes(key)) place.setAttribute(`data-${field}`, String(value));
    }
    if (typeof value === "number") {
      for (const car of box.querySelectorAll(`[data-floor-of="${name}"]`)) placeCar(car, value);
    }
  }

  function countBusy(box, place) {
    const busy = box.querySelectorAll('[data-attr$="/state"][data-state="charging"]').length;
    place.textContent = say("pile.busy", { n: busy, all: place.dataset.busy });
  }

  // ---- refreshing parts of the page ---------------------------------------------------------------------------------

  const REFRESH_MS = 30_000; // for what only time changes: devices that fall silent, values that grow stale
  const GAP_MS = 700;
  let refreshed = Date.now();
  let waiting = null;

  function refresh() {
    if (waiting !== null) return;
    waiting = setTimeout(() => {
      waiting = null;
      refreshed = Date.now();
      window.htmx?.trigger(body, "refresh");
    }, Math.max(0, GAP_MS - (Date.now() - refreshed)));
  }

  // ---- the stream ---------------------------------------------------------------------------------------------------

  const MAX_DEVICES = 300; // as many as one stream may ask for
  let cursor = body.dataset.change;
  let stream = null;
  let watched = "";

  const devicesShown = () =>
    [...new Set([...document.querySelectorAll("[data-device]")].map((box) => box.dataset.device))].slice(0, MAX_DEVICES);

  function connect() {
    if (cursor === "" || document.hidden) return;
    watched = devicesShown().join(",");
    const query = new URLSearchParams({ last_id: cursor });
    if (watched) query.set("device", watched);
    stream = new EventSource(`/api/v1/live?${query}`);
    stream.addEventListener("hello", () => show("on"));
    stream.addEventListener("values", (event) => applyValues(JSON.parse(event.data)));
    stream.addEventListener("ticket", (event) => {
      cursor = event.lastEventId;
      const change = JSON.parse(event.data);
      if (change.action === "report") announce(change);
      refresh();
    });
    stream.addEventListener("error", () => {
      show("off");
      if (stream.readyState === EventSource.CLOSED) setTimeout(reconnect, 5000); // an answer that was no stream
    });
  }

  function disconnect() {
    stream?.close();
    stream = null;
  }

  function reconnect() {
    disconnect();
    connect();
  }

  function show(state) {
    const sign = document.getElementById("live");
    if (sign.dataset.state === state) return;
    sign.dataset.state = state;
    sign.querySelector("span").textContent = say(`live.${state}`);
  }

  function announce({ ticket, severity, device, title }) {
    const place = document.getElementById("announce");
    place.textContent = `${say("live.new")} ${ticket} ${severity} ${title[body.dataset.lang] ?? title.en} ${device}`;
  }

  // A hidden page gives its connection back: browsers allow six to one server. It catches up when it is seen again.
  document.addEventListener("visibilitychange", () => {
    disconnect();
    if (!document.hidden) {
      refresh();
      connect();
    }
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => event.persisted && reconnect());

  // ---- the ticket form ----------------------------------------------------------------------------------------------

  const ACTOR = "tizhuang.actor";

  function prepareForms(root = document) {
    const actor = root.querySelector("form[data-actions] #actor");
    if (actor && !actor.value) actor.value = localStorage.getItem(ACTOR) ?? "";
  }

  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-actions]");
    if (!form) return;
    localStorage.setItem(ACTOR, form.actor.value.trim());
    // A second click must not act again on the next state.
    setTimeout(() => form.querySelectorAll("button").forEach((button) => (button.disabled = true)));
  });

  // ---- start --------------------------------------------------------------------------------------------------------

  document.addEventListener("htmx:after:swap", () => {
    settle();
    prepareForms();
    if (stream && devicesShown().join(",") !== watched) reconnect();
  });
  setInterval(() => {
    if (document.hidden) return;
    tick();
    if (Date.now() - refreshed > REFRESH_MS) refresh();
  }, 1000);
  settle();
  prepareForms();
  connect();
  window.tizhuang = { say, now, shown };
})();
