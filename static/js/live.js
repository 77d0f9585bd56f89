// The live tail of the request log: rows arrive over a WebSocket, filtered by the server, and are added on top of the table.
// While the user reads the table (mouse, focus, scrolled down, an open drawer), new rows wait behind a button.
"use strict";
(() => {
  const button = document.getElementById("live");
  if (!button || !("WebSocket" in window)) return;
  const stateText = document.getElementById("live-state");
  const pill = document.getElementById("live-new");
  const form = document.getElementById("filters");
  const field = document.getElementById("live-field");
  const model = document.getElementById("live-row");
  const language = document.documentElement.lang;
  const MOST_ROWS = 200;
  const LONGEST_PAUSE_S = 30;
  const number = new Intl.NumberFormat(language);
  const money = new Intl.NumberFormat(language, { minimumFractionDigits: 6, maximumFractionDigits: 6 });
  // What is less than the last decimal is not nothing.
  const usd = (nanos) => (nanos > 0 && nanos <= 500 ? `<$${money.format(1e-6)}` : `$${money.format(nanos / 1e9)}`);

  let isWanted = false;
  let socket = null;
  let sent = ""; // the wish the server has
  let tries = 0;
  let timer = 0;
  let watchdog = 0;
  let last = ""; // the newest request seen: from there the server goes on after a break
  let waiting = [];
  let skipped = 0;

  const body = () => document.querySelector("#results tbody");
  const shownIds = () => new Set([...document.querySelectorAll("#results tr[data-id]")].map((row) => row.dataset.id));

  function show(state, text) {
    if (state) button.dataset.state = state;
    else delete button.dataset.state;
    if (stateText.textContent !== text) stateText.textContent = text;
  }

  function showOn() {
    const paused = isBusy();
    const note = skipped ? button.dataset.saySkipped.replace("{n}", number.format(skipped)) : "";
    show(paused ? "paused" : "on", note || (paused ? button.dataset.sayPaused : button.dataset.sayOn));
  }

  function isBusy() {
    const results = document.getElementById("results");
    return (
      document.querySelector("dialog[open]") !== null ||
      results.contains(document.activeElement) ||
      results.getBoundingClientRect().top < 0 ||
      (matchMedia("(hover: hover)").matches && [results, pill].some((each) => each.matches(":hover")))
    );
  }

  function wish() {
    const chosen = new FormData(form);
    const wanted = { type: "filter" };
    for (const [name, value] of [["stage", "stage"], ["model", "model"], ["status", "status"], ["key", "key"], ["q", "q"]]) {
      if (chosen.get(value)) wanted[name] = chosen.get(value);
    }
    if (chosen.get("member")) wanted.user = Number(chosen.get("member"));
    if (chosen.get("planned")) wanted.q = [wanted.q, "planned:yes"].filter(Boolean).join(" ");
    return wanted;
  }

  function start() {
    isWanted = true;
    tries = 0;
    remember();
    connect();
  }

  function stop() {
    isWanted = false;
    clearTimeout(timer);
    clearTimeout(watchdog);
    if (socket) socket.close();
    socket = null;
    waiting = [];
    pill.hidden = true;
    show("", "");
    remember();
  }

  // In the address, so that a reload resumes; and among the filters, whose address replaces it.
  function remember() {
    button.setAttribute("aria-pressed", String(isWanted));
    field.disabled = !isWanted;
    const url = new URL(location.href);
    if (isWanted) url.searchParams.set("live", "1");
    else url.searchParams.delete("live");
    history.replaceState(history.state, "", url);
  }

  function connect() {
    clearTimeout(timer);
    show("connecting", button.dataset.sayConnecting);
    const opened = new WebSocket(new URL(button.dataset.path, location.href).href.replace(/^http/, "ws"));
    socket = opened;
    opened.addEventListener("open", () => say());
    opened.addEventListener("message", (event) => {
      if (socket === opened) hear(JSON.parse(event.data));
    });
    opened.addEventListener("close", (event) => {
      if (socket !== opened) return;
      socket = null;
      clearTimeout(watchdog);
      if (isWanted) again(event.code);
    });
  }

  function again(code) {
    if (code === 4404 || code === 4400) {
      const text = code === 4404 ? button.dataset.sayGone : button.dataset.sayBad;
      stop();
      show("lost", text);
      return;
    }
    tries += 1;
    // With jitter, so that clients do not reconnect all at once after a restart.
    const longest = Math.min(LONGEST_PAUSE_S, 2 ** (tries - 1));
    const pause_s = Math.max(1, Math.round(longest * (0.5 + Math.random() / 2)));
    show("lost", button.dataset.sayLost.replace("{n}", String(pause_s)));
    timer = setTimeout(connect, pause_s * 1000);
  }

  function say() {
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    const wanted = wish();
    sent = JSON.stringify(wanted);
    const known = last || document.querySelector("#results tr[data-id]")?.dataset.id;
    socket.send(JSON.stringify(known ? { ...wanted, after: known } : wanted));
  }

  function hear(message) {
    if (message.type === "ready") {
      tries = 0;
      button.dataset.heartbeat = message.heartbeat_s;
      showOn();
    } else if (message.type === "rows") {
      const known = shownIds();
      for (const row of waiting) known.add(row.id);
      waiting.push(...message.rows.filter((row) => !known.has(row.id)));
      if (waiting.length > MOST_ROWS) waiting = waiting.slice(-MOST_ROWS);
      if (message.rows.length) last = message.rows[message.rows.length - 1].id;
      skipped = message.skipped;
      flush(false);
    }
    // Silence for more than two heartbeats means a dead connection.
    clearTimeout(watchdog);
    const heartbeat_s = Number(button.dataset.heartbeat) || 30;
    watchdog = setTimeout(() => socket && socket.close(), heartbeat_s * 2500);
  }

  function flush(isAsked) {
    if (waiting.length && (isAsked || !isBusy())) {
      const table = body();
      const rows = waiting;
      waiting = [];
      if (table) put(table, rows);
      else form.requestSubmit(); // the first ones: the server draws the table
    }
    pill.hidden = !waiting.length;
    if (waiting.length) pill.textContent = waiting.length === 1 ? pill.dataset.sayOne : pill.dataset.sayMore.replace("{n}", number.format(waiting.length));
    if (isWanted && socket) showOn();
  }

  function put(table, rows) {
    for (const row of rows) {
      table.prepend(drawn(row));
      window.htmx.process(table.firstElementChild);
    }
    const all = table.querySelectorAll("tr[data-id]");
    for (const row of [...all].slice(MOST_ROWS)) row.remove();
    // "Load older" continues after the rows that remain.
    const older = table.querySelector("#older a");
    if (older && all.length > MOST_ROWS) {
      const query = new URLSearchParams(older.getAttribute("href"));
      query.set("before", all[MOST_ROWS - 1].dataset.id);
      older.setAttribute("href", `?${query}`);
      older.setAttribute("hx-get", `${location.pathname}?${query}`);
      window.htmx.process(older, true);
    }
  }

  function drawn(row) {
    const line = model.content.firstElementChild.cloneNode(true);
    const set = (name, text) => { line.querySelector(`[data-part=${name}]`).textContent = text; };
    line.dataset.id = row.id;
    const link = line.querySelector("a");
    for (const name of ["href", "hx-get"]) link.setAttribute(name, link.getAttribute(name).replace(model.dataset.placeholder, row.id));
    const time = line.querySelector("time");
    time.dateTime = row.started_at;
    time.textContent = document.body.dataset.saySec.replace("{n}", String(Math.max(0, Math.floor((Date.now() - Date.parse(row.started_at)) / 1000))));
    set("status", row.status);
    const status = line.querySelector("[data-part=status]");
    status.classList.add(row.status < 400 ? "tone-success" : row.status < 500 ? "tone-warning" : "tone-error");
    if (row.error_code) status.title = row.error_code;
    set("stage", row.stage);
    set("model", row.model);
    // A long list of keys is a datalist, whose options have their labels as values.
    const keys = form.elements.key.options ?? document.getElementById("choices-key").options;
    const key = [...keys].find((option) => (option.dataset.value ?? option.value) === row.key_id);
    set("key", key?.text || key?.value || "—");
    set("tokens", `${number.format(row.tokens.prompt)} / ${number.format(row.tokens.completion)}${row.tokens.is_estimated ? " ~" : ""}`);
    set("latency", `${number.format(row.latency_ms)} ms`);
    set("cost", usd(row.cost.nanos));
    set("id", `…${row.id.slice(-8)}`);
    line.querySelector("[data-part=id]").title = row.id;
    return line;
  }

  button.hidden = false;
  button.addEventListener("click", () => (isWanted ? stop() : start()));
  pill.addEventListener("click", () => {
    flush(true);
    scrollTo({ top: 0 });
  });
  for (const [target, name] of [[document, "mouseover"], [document, "scroll"], [document, "focusout"], [document, "focusin"]]) {
    target.addEventListener(name, () => isWanted && requestAnimationFrame(() => flush(false)), { passive: true });
  }
  document.addEventListener("close", () => isWanted && flush(false), true);
  window.addEventListener("online", () => isWanted && !socket && connect());
  // New filters: discard waiting rows of the previous ones.
  document.addEventListener("htmx:after:swap", () => {
    if (!isWanted || JSON.stringify(wish()) === sent) return;
    waiting = [];
    pill.hidden = true;
    last = "";
    say();
  });
  if (!field.disabled) start();
})();
