// The command palette: pages, actions, keys by name, a request by its id. A combobox with a listbox. app.js opens it, and
// loads this the first time.
"use strict";
(() => {
  const PAUSE_MS = 150;
  const MOST = 12;
  const REQUEST = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
  const PART = /^[0-9a-f-]{8,}$/i;
  const known = document.getElementById("palette-items");
  const { lang } = document.documentElement;
  const say = known.dataset;
  let shown = []; // { label, note, url, ... } as listed
  let active = 0;
  let running = null;

  const input = () => document.getElementById("palette-input");

  // Without case and accents: "odeme" finds "Ödeme", "istanbul" finds "ISTANBUL" in any language.
  const fold = (text) => text.toLocaleLowerCase(lang).normalize("NFD").replace(/\p{M}/gu, "").replaceAll("ı", "i");

  const pages = [...known.content.querySelectorAll("a")].map((link) => ({
    label: link.textContent.trim(),
    note: link.dataset.note || "",
    url: link.getAttribute("href"),
    dialog: link.hasAttribute("data-dialog"),
    press: link.dataset.press,
  }));

  function matching(text) {
    const words = fold(text).split(/\s+/).filter(Boolean);
    const found = pages.filter((each) => words.every((word) => fold(`${each.label} ${each.note}`).includes(word)));
    // What begins with the text comes before what only contains it.
    return found.sort((a, b) => fold(b.label).startsWith(words[0] ?? "") - fold(a.label).startsWith(words[0] ?? ""));
  }

  function requestOf(text) {
    if (REQUEST.test(text)) return [{ label: text, note: say.request, url: `${say.log}${text.toLowerCase()}/` }];
    if (PART.test(text) && /\d/.test(text)) return [{ label: text, note: say.requests, url: `${say.log}?id=${encodeURIComponent(text)}` }];
    return [];
  }

  function draw(items) {
    const field = input();
    if (!field) return;
    shown = items.slice(0, MOST);
    const list = document.getElementById("palette-list");
    list.replaceChildren(...shown.map(({ label, note }, number) => {
      const item = document.createElement("li");
      item.id = `palette-option-${number}`;
      item.setAttribute("role", "option");
      const name = document.createElement("span");
      name.className = "min-w-0 truncate";
      name.textContent = label;
      const kind = document.createElement("span");
      kind.className = "shrink-0 text-muted";
      kind.textContent = note;
      item.append(name, " ", kind);
      return item;
    }));
    list.hidden = !shown.length;
    field.setAttribute("aria-expanded", String(shown.length > 0));
    document.getElementById("palette-none").hidden = shown.length > 0;
    choose(0);
  }

  function choose(number) {
    active = shown.length ? (number + shown.length) % shown.length : -1;
    document.querySelectorAll("#palette-list li").forEach((item, at) => {
      item.setAttribute("aria-selected", String(at === active));
      if (at === active) item.scrollIntoView({ block: "nearest" });
    });
    if (active < 0) input().removeAttribute("aria-activedescendant");
    else input().setAttribute("aria-activedescendant", `palette-option-${active}`);
  }

  async function search() {
    const text = input()?.value.trim() ?? "";
    running?.abort();
    const own = [...requestOf(text), ...matching(text)];
    draw(own);
    if (!text) return;
    const { signal } = running = new AbortController();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    if (signal.aborted) return;
    try {
      const response = await fetch(`${say.keys}?${new URLSearchParams({ q: text })}`, { signal });
      if (!response.ok) return;
      const { keys } = await response.json();
      const chosen = active;
      draw([...own.slice(0, MOST - keys.length), ...keys.map(({ name, prefix, url }) => ({ label: name, note: `${say.key} ${prefix}…`, url }))]);
      choose(Math.max(0, chosen));
    } catch {
      // A newer search is on its way, or there is no connection: the pages are listed.
    }
  }

  function run({ url, dialog, press }) {
    const box = input().closest("dialog");
    box.addEventListener("close", () => {
      if (press) document.querySelector(press)?.click();
      else if (dialog) window.htmx.ajax("GET", url, { target: "#dialog-body" });
      else location.assign(url);
    }, { once: true });
    box.close();
  }

  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "palette-input" || event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      choose(active + step);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (shown[active]) run(shown[active]);
    }
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "palette-input") search();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-opens=palette]")) draw(pages);
    const item = event.target.closest("#palette-list li");
    if (item) run(shown[Number(item.id.split("-").at(-1))]);
  });
  search(); // for what was typed meanwhile
})();
