// Suggestions of the log's search bar: fields, then values of the field with their numbers of requests.
"use strict";
(() => {
  const PAUSE_MS = 150;
  let options = []; // { text, note } as shown
  let place = null; // what an option replaces: [from, to] in the field's text
  let active = -1;
  let timer = 0;
  let running = null;

  const field = () => document.getElementById("search");
  const list = () => document.getElementById("search-options");

  // The term that is being typed: its field, and where the value in it begins.
  function termAt(text, caret) {
    let start = 0;
    let value = 0;
    let isQuoted = false;
    for (let at = 0; at < caret; at += 1) {
      if (isQuoted && text[at] === "\\") at += 1;
      else if (text[at] === '"') isQuoted = !isQuoted;
      else if (!isQuoted && /\s/.test(text[at])) start = value = at + 1;
      else if (!isQuoted && text[at] === ",") value = at + 1;
    }
    const term = text.slice(start, caret);
    const named = /^-?([A-Za-z_]+):/.exec(term);
    if (named) {
      const from = Math.max(value, start + named[0].length);
      return { field: named[1], typed: text.slice(from, caret), from };
    }
    const word = /^-?([A-Za-z_]*)$/.exec(term);
    return word ? { field: "", typed: word[1], from: caret - word[1].length } : null;
  }

  async function suggest() {
    const input = field();
    const caret = input.selectionStart;
    const term = input.selectionEnd === caret ? termAt(input.value, caret) : null;
    running?.abort();
    if (!term) {
      hide();
      return;
    }
    running = new AbortController();
    const query = new URLSearchParams({ field: term.field, typed: term.typed });
    for (const name of ["range", "start", "end"]) {
      const chosen = input.form.elements[name]?.value;
      if (chosen) query.set(name, chosen);
    }
    try {
      const response = await fetch(`${input.dataset.suggestions}?${query}`, { signal: running.signal });
      if (!response.ok) throw new Error(response.statusText);
      options = (await response.json()).suggestions.filter((each) => each.text !== term.typed);
    } catch {
      return; // a newer one is on its way, or there are none for now: the bar works without
    }
    place = [term.from, caret];
    draw(input);
  }

  function draw(input) {
    if (!options.length || document.activeElement !== input) {
      hide();
      return;
    }
    const box = list() ?? made(input);
    active = -1;
    box.replaceChildren(...options.map(({ text, note }, number) => {
      const item = document.createElement("li");
      item.id = `search-option-${number}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", "false");
      const value = document.createElement("span");
      value.className = "mono min-w-0 truncate";
      value.textContent = text;
      const count = document.createElement("span");
      count.className = "tnum min-w-0 truncate text-muted";
      count.textContent = note;
      item.append(value, count);
      return item;
    }));
    box.hidden = false;
    input.setAttribute("aria-expanded", "true");
    input.removeAttribute("aria-activedescendant");
  }

  function made(input) {
    const box = document.createElement("ul");
    box.id = "search-options";
    box.className = "options";
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", input.dataset.label);
    document.getElementById("search-box").append(box);
    for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-controls", box.id], ["aria-expanded", "false"]]) input.setAttribute(name, value);
    return box;
  }

  function hide() {
    clearTimeout(timer);
    active = -1;
    const box = list();
    if (!box) return;
    box.hidden = true;
    field()?.setAttribute("aria-expanded", "false");
    field()?.removeAttribute("aria-activedescendant");
  }

  function move(step) {
    active = (active + step + options.length + (active < 0 && step < 0 ? 1 : 0)) % options.length;
    for (const [number, item] of [...list().children].entries()) {
      item.setAttribute("aria-selected", String(number === active));
      if (number === active) item.scrollIntoView({ block: "nearest" });
    }
    field().setAttribute("aria-activedescendant", `search-option-${active}`);
  }

  function choose(number) {
    const input = field();
    const isField = options[number].text.endsWith(":");
    const rest = input.value.slice(place[1]).replace(/^[^\s,]+/, "");
    const text = options[number].text + (isField ? "" : " ");
    input.value = input.value.slice(0, place[0]) + text + (isField ? rest : rest.trimStart());
    const caret = place[0] + text.length;
    input.setSelectionRange(caret, caret);
    hide();
    if (isField) suggest();
    else input.form.requestSubmit();
  }

  const isOpen = () => list()?.hidden === false;

  document.addEventListener("input", (event) => {
    if (event.target.id !== "search") return;
    clearTimeout(timer);
    timer = setTimeout(suggest, PAUSE_MS);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "search" || event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (isOpen()) move(event.key === "ArrowDown" ? 1 : -1);
      else suggest();
    } else if (event.key === "Escape" && isOpen()) {
      event.preventDefault(); // which would empty the field
      hide();
    } else if (event.key === "Enter") {
      if (isOpen() && active >= 0) {
        event.preventDefault();
        choose(active);
      } else hide();
    }
  });
  document.addEventListener("focusout", (event) => {
    if (event.target.id === "search") hide();
  });
  document.addEventListener("mousedown", (event) => {
    if (event.target.closest("#search-options")) event.preventDefault(); // the field keeps the focus
  });
  document.addEventListener("click", (event) => {
    const item = event.target.closest("#search-options [role=option]");
    if (item) choose([...item.parentElement.children].indexOf(item));
  });
})();
