// Behaviours of every page, by event delegation: content that htmx swaps in works at once.
"use strict";
(() => {
  const say = (name) => document.body.dataset[name];
  const toasts = () => document.getElementById("toasts");

  function toast(text, isError = false) {
    const item = document.createElement("div");
    item.className = isError ? "toast-item tone-error" : "toast-item";
    item.textContent = text;
    toasts().append(item);
    showToasts();
  }

  // Shown again each time: the newest popover is above an open dialog.
  function showToasts() {
    const box = toasts();
    if (!box.children.length) return;
    if (box.matches(":popover-open")) box.hidePopover();
    box.showPopover();
    for (const item of box.children) {
      if (item.dataset.seen) continue;
      item.dataset.seen = "1";
      setTimeout(expire, 4000 + 60 * item.textContent.length, item);
    }
  }

  // Long texts stay for longer, and all of them while the pointer rests on one.
  function expire(item) {
    const box = toasts();
    if (box.matches(":hover")) {
      setTimeout(expire, 1000, item);
      return;
    }
    item.remove();
    if (!box.children.length) box.hidePopover();
  }

  // A key as lists show it, without its middle.
  const ELIDED_KEY = /cfx_[^\s"'_]*(…|\.\.\.)/;

  async function copy(button) {
    const isElided = ELIDED_KEY.test(button.dataset.copy);
    // One line is its key: copied, it would only be refused.
    if (isElided && !button.dataset.copy.includes("\n")) {
      toast(say("sayElided"), true);
      return;
    }
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      toast(say("sayNotCopied"), true);
      return;
    }
    button.classList.add("copied");
    if (isElided) toast(say("sayPutKey"));
    else toast(say("sayCopied"));
    setTimeout(() => button.classList.remove("copied"), 1600);
  }

  async function copyFrom(button) {
    try {
      const response = await fetch(button.dataset.copyFrom);
      if (!response.ok) throw new Error(response.status);
      await navigator.clipboard.writeText(await response.text());
      toast(say("sayCopied"));
    } catch {
      toast(say("sayNotCopied"), true);
    }
  }

  function toggleTheme() {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const theme = isDark ? "light" : "dark";
    root.dataset.theme = theme;
    document.querySelector('meta[name="color-scheme"]').content = theme;
    document.cookie = `theme=${theme};path=/;max-age=31536000;samesite=lax`;
    document.dispatchEvent(new Event("themechange"));
  }

  // A dialog can be opened from the drawer: each returns the focus to the element that opened it.
  const openers = new WeakMap();

  function open(dialog) {
    if (dialog.open) return;
    openers.set(dialog, document.activeElement);
    dialog.showModal();
    selectSuggestion();
  }

  // What is suggested gives way to the first key that is typed.
  function selectSuggestion() {
    if (document.activeElement.matches("[data-selected]")) document.activeElement.select();
  }

  // A preset sets the fields that it names and clears the others of its form; the text that was typed as the name stays.
  function applyPreset(button) {
    const values = JSON.parse(button.dataset.preset);
    const group = button.parentElement;
    const name = button.form.elements.name;
    const suggested = [name.defaultValue, ...[...group.children].map((each) => JSON.parse(each.dataset.preset).name)];
    for (const each of group.children) each.setAttribute("aria-pressed", String(each === button));
    for (const field of button.form.elements) {
      if (!field.name || field.type === "hidden" || field.type === "submit") continue;
      const value = values[field.name] ?? "";
      if (field.type === "checkbox") field.checked = value.includes(field.value);
      else if (field !== name || suggested.includes(name.value)) field.value = value;
    }
    for (const part of button.form.querySelectorAll("details")) part.open = true;
  }

  function close(dialog) {
    dialog.close();
  }

  // Loads the script of what a button opens, the first time.
  function load(button) {
    const { script: src } = button.dataset;
    delete button.dataset.script;
    if (src) document.head.append(Object.assign(document.createElement("script"), { src }));
  }

  // Opens a dialog with the content of a <template>.
  function show(dialog, template) {
    dialog.firstElementChild.replaceChildren(template.content.cloneNode(true));
    open(dialog);
  }

  const isSticky = (dialog) => dialog.querySelector("[data-sticky]") !== null;

  function setParameter(name, value) {
    const url = new URL(location.href);
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
    history.replaceState(history.state, "", url);
  }

  // History of the drawer. Opening a request is a step that Back undoes; going on to its neighbours replaces that step.
  const requestOf = (url) => new URL(url, location.href).searchParams.get("request");

  // The page below the drawer, which two addresses share that differ in the open request only.
  function pageOf(url) {
    const { pathname, searchParams } = new URL(url, location.href);
    for (const name of ["request", "live"]) searchParams.delete(name);
    return `${pathname}?${searchParams}`;
  }

  let page = pageOf(location.href);
  for (const name of ["push", "replace"]) document.addEventListener(`htmx:after:history:${name}`, () => { page = pageOf(location.href); });

  function enterRequest(shown) {
    const { request } = shown.dataset;
    // As the page's own row loads it: operators have another address for the same request.
    const path = document.querySelector(`a[hx-get*="${CSS.escape(request)}"]`)?.getAttribute("hx-get") ?? shown.dataset.path;
    const current = requestOf(location.href);
    if (current === request) return;
    const url = new URL(location.href);
    url.searchParams.set("request", request);
    if (current) history.replaceState({ ...history.state, ...(history.state?.drawer && { drawer: path }) }, "", url);
    else history.pushState({ htmx: true, drawer: path }, "", url);
  }

  function leaveRequest() {
    if (!requestOf(location.href)) return; // Back has closed it
    if (history.state?.drawer) history.back();
    else setParameter("request", ""); // the address was opened with the request
  }

  document.addEventListener("htmx:before:history:restore", (event) => {
    const drawer = document.getElementById("drawer");
    if (!drawer || pageOf(location.href) !== page) {
      page = pageOf(location.href);
      return;
    }
    event.preventDefault();
    const wanted = requestOf(location.href);
    if (!wanted) {
      if (drawer.open) close(drawer);
    } else if (drawer.querySelector("[data-request]")?.dataset.request !== wanted) {
      if (history.state.drawer) window.htmx.ajax("GET", history.state.drawer, { target: "#drawer-body" });
      else location.reload();
    }
  });
  // The browser would move the focus to the top of the page.
  window.navigation?.addEventListener("navigate", (event) => {
    if (event.navigationType === "traverse" && event.canIntercept && pageOf(event.destination.url) === page)
      event.intercept({ focusReset: "manual", scroll: "manual" });
  });

  document.addEventListener("click", (event) => {
    const target = event.target;
    const button = target.closest("[data-copy], [data-copy-from], [data-theme-toggle], [data-close], [data-tab], [data-reload], [data-reveal], [data-preset], [data-opens]");
    if (button) {
      if (button.matches("[data-copy]")) copy(button);
      else if (button.matches("[data-copy-from]")) copyFrom(button);
      else if (button.matches("[data-reveal]")) reveal(button);
      else if (button.matches("[data-preset]")) applyPreset(button);
      else if (button.matches("[data-opens]")) {
        show(document.getElementById("dialog"), document.getElementById(button.dataset.opens));
        load(button);
      }
      else if (button.matches("[data-theme-toggle]")) {
        event.preventDefault();
        toggleTheme();
      } else if (button.matches("[data-tab]")) showTab(button);
      else if (button.matches("[data-reload]")) location.reload();
      else if (button.closest("dialog")) {
        event.preventDefault();
        close(button.closest("dialog"));
      }
      return;
    }
    // A row of the log opens its request wherever it is clicked, unless its text is being selected.
    const row = target.closest("tr[data-id]");
    if (row && !target.closest("a, button, input, summary") && getSelection().isCollapsed) row.querySelector("a[hx-get]")?.click();
    // A click on the backdrop closes dialogs that are safe to close.
    if (target.matches("dialog") && !isSticky(target)) {
      const box = target.getBoundingClientRect();
      const isInside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
      if (!isInside) close(target);
    }
    for (const menu of document.querySelectorAll("details.drop[open]")) if (!menu.contains(target)) menu.open = false;
  });

  document.addEventListener("cancel", (event) => {
    if (event.target.matches("dialog") && isSticky(event.target)) event.preventDefault();
  }, true);

  document.addEventListener("close", (event) => {
    const dialog = event.target;
    if (!dialog.matches("dialog")) return;
    // Remove the secret from the page.
    const body = dialog.firstElementChild;
    const mustReload = body.querySelector("[data-reload-after]") !== null;
    body.replaceChildren();
    if (dialog.id === "drawer") leaveRequest();
    if (mustReload) location.reload();
    else if (openers.get(dialog)?.isConnected) openers.get(dialog).focus();
    openers.delete(dialog);
  }, true);

  // Of a whole key that is pasted into a search only the public part is left: addresses are written into logs.
  document.addEventListener("input", (event) => {
    const { picks } = event.target.dataset;
    if (picks) event.target.form.querySelector(picks).checked = true;
    if (event.target.type === "search") event.target.value = event.target.value.replace(/(cfx_[^_\s]+)_\S*/g, "$1");
  });

  // What is chosen by its label from a long list is sent by its value. Before the form is sent, hence in the capture phase.
  document.addEventListener("change", ({ target: field }) => {
    if (!field.matches("[data-chooses]")) return;
    const wanted = field.value.trim().toLowerCase();
    const alike = [...field.list.options].filter((each) => wanted && each.value.toLowerCase().includes(wanted));
    const found = alike.length === 1 ? alike[0] : alike.find((each) => each.value.toLowerCase() === wanted);
    field.value = found ? found.value : "";
    field.form.elements[field.dataset.chooses].value = found ? found.dataset.value : "";
  }, true);

  // "I have stored this key" unlocks Done.
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("[data-unlocks]")) document.getElementById(box.dataset.unlocks).disabled = !box.checked;
    if (box.matches("[data-submits]")) box.form.requestSubmit();
  });

  // Passwords can be looked at; without scripts the switch stays hidden.
  function prepare(root) {
    for (const each of root.querySelectorAll("[data-reveal][hidden], [data-presets][hidden]")) each.hidden = false;
    for (const button of root.querySelectorAll("[data-wait]")) waitFor(button);
    for (const row of root.querySelectorAll("[data-roving]")) {
      const links = [...row.querySelectorAll("a")];
      if (!links.some((link) => link.tabIndex === -1)) rove(links, links.at(-1));
    }
  }

  function reveal(button) {
    const field = document.getElementById(button.dataset.reveal);
    const isShown = field.type === "password";
    field.type = isShown ? "text" : "password";
    button.setAttribute("aria-pressed", String(isShown));
  }

  // A button that would be refused right now counts down instead.
  function waitFor(button) {
    let left = Number(button.dataset.wait);
    delete button.dataset.wait;
    const text = button.textContent.trim();
    const show = () => {
      button.toggleAttribute("disabled", left > 0);
      button.textContent = left > 0 ? `${text} (${left})` : text;
    };
    show();
    const timer = setInterval(() => {
      left -= 1;
      show();
      if (left <= 0) clearInterval(timer);
    }, 1000);
  }

  // A row of many links is one stop of the Tab key: arrow keys, Home and End move within it.
  function rove(links, chosen) {
    for (const link of links) link.tabIndex = link === chosen ? 0 : -1;
  }

  document.addEventListener("keydown", (event) => {
    const row = event.target.closest("[data-roving]");
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!row || !step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const links = [...row.querySelectorAll("a")];
    const next = links[Math.max(0, Math.min(links.length - 1, links.indexOf(event.target) + step))];
    rove(links, next);
    next.focus();
  });

  prepare(document);
  document.addEventListener("htmx:after:swap", () => prepare(document));

  function showTab(tab) {
    const list = tab.closest("[role=tablist]");
    for (const each of list.querySelectorAll("[role=tab]")) {
      const isChosen = each === tab;
      each.setAttribute("aria-selected", String(isChosen));
      each.tabIndex = isChosen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !isChosen;
    }
    tab.focus();
  }

  // The next or the previous row of the log; with an open drawer it shows that request.
  function stepRow(step) {
    const rows = [...document.querySelectorAll("tr[data-id]")];
    const drawer = document.getElementById("drawer");
    const shown = drawer?.open ? drawer.querySelector("[data-request]")?.dataset.request : document.activeElement.closest("tr[data-id]")?.dataset.id;
    const at = rows.findIndex((row) => row.dataset.id === shown);
    const link = rows[at < 0 ? (step > 0 ? 0 : -1) : at + step]?.querySelector("a[hx-get]");
    if (!link) return;
    if (drawer?.open) {
      openers.set(drawer, link);
      link.click();
    } else link.focus();
  }

  // Keyboard: "/" searches, "g" and a letter navigates, arrow keys switch tabs, "j" and "k" go through the log.
  let went = -Infinity;
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("[role=tab]") && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const tabs = [...event.target.closest("[role=tablist]").querySelectorAll("[role=tab]")];
      const step = event.key === "ArrowRight" ? 1 : tabs.length - 1;
      showTab(tabs[(tabs.indexOf(event.target) + step) % tabs.length]);
      return;
    }
    const palette = document.querySelector("[data-opens=palette]");
    if (palette && event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) {
      if (document.getElementById("dialog").open) return;
      event.preventDefault();
      palette.click();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    const isRow = event.target.matches("tr[data-id] a");
    const isGoing = event.timeStamp - went < 1500; // "g k" leads to the keys
    if (!isGoing && !document.getElementById("dialog")?.open && (event.key === "j" || event.key === "k" || (isRow && /^Arrow(Down|Up)$/.test(event.key)))) {
      if (document.querySelector("tr[data-id]")) event.preventDefault();
      stepRow(event.key === "j" || event.key === "ArrowDown" ? 1 : -1);
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    } else if (event.key === "?") {
      const list = document.getElementById("shortcuts");
      if (list) show(document.getElementById("dialog"), list);
    } else if (event.key === "g") went = event.timeStamp;
    else if (event.timeStamp - went < 1500) {
      const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      went = -Infinity;
      if (link) link.click();
    }
  });

  // One request at a time per form: its button is disabled meanwhile, which a quick second click precedes.
  const sent = new WeakSet();
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (event.target.method !== "post" || !button) return;
    if (sent.has(button)) {
      event.preventDefault();
      return event.stopImmediatePropagation();
    }
    sent.add(button);
    // After the form's data is collected: a disabled button is not part of it.
    setTimeout(() => { button.disabled = true; }, 0);
    setTimeout(() => {
      sent.delete(button);
      button.disabled = false;
    }, 8000);
  }, true);

  let running = 0;
  const count = (step) => {
    running = Math.max(0, running + step);
    document.documentElement.classList.toggle("is-loading", running > 0);
  };
  // A drawer that takes longer than a moment opens with its outline.
  let outline = 0;
  document.addEventListener("htmx:before:request", (event) => {
    count(1);
    const drawer = document.getElementById("drawer");
    if (!drawer || drawer.open || event.detail.ctx.target !== drawer.firstElementChild) return;
    outline = setTimeout(() => show(drawer, document.getElementById("outline")), 150);
  });
  document.addEventListener("htmx:finally:request", () => {
    count(-1);
    clearTimeout(outline);
    const drawer = document.getElementById("drawer");
    if (drawer?.querySelector("[data-outline]")) close(drawer);
  });
  // Polling continues after an error; only errors of user actions are shown. An error page never replaces a part of a page.
  function sayFailed(event) {
    if (!event.detail.ctx?.sourceElement?.matches("[hx-trigger^=every]")) toast(say(navigator.onLine ? "sayFailed" : "sayOffline"), true);
  }
  document.addEventListener("htmx:error", sayFailed);
  document.addEventListener("htmx:response:error", (event) => {
    if (event.detail.ctx.response.status >= 500) sayFailed(event);
  });
  document.addEventListener("htmx:after:swap", () => {
    // A field's error is shown beside it: the field itself stays, with the user's input.
    for (const problem of document.querySelectorAll("[role=alert][id$=_error]"))
      document.querySelector(`[aria-describedby~="${problem.id}"]`)?.setAttribute("aria-invalid", String(!problem.hidden));
    for (const id of ["dialog", "drawer"]) {
      const dialog = document.getElementById(id);
      if (!dialog || !dialog.firstElementChild.children.length) continue;
      open(dialog);
      const shown = dialog.querySelector("[data-request]");
      if (shown) enterRequest(shown);
    }
    refreshTimes();
  });

  function refreshTimes() {
    const now = Date.now();
    for (const element of document.querySelectorAll("time[data-ago]")) {
      const seconds = Math.max(0, Math.floor((now - Date.parse(element.dateTime)) / 1000));
      if (seconds >= 86400) continue;
      const [name, amount] = seconds < 60 ? ["saySec", seconds] : seconds < 3600 ? ["sayMin", Math.floor(seconds / 60)] : ["sayHr", Math.floor(seconds / 3600)];
      element.textContent = say(name).replace("{n}", String(amount));
    }
  }

  // On a phone a row of links can be wider than the screen: scroll to the current one.
  for (const chosen of document.querySelectorAll("nav.overflow-x-auto [aria-current], .seg [aria-current]")) {
    const row = chosen.parentElement;
    row.scrollLeft = chosen.offsetLeft - row.offsetLeft - (row.clientWidth - chosen.clientWidth) / 2;
  }

  for (const zone of document.querySelectorAll("input[name=timezone][type=hidden]"))
    zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  const drawer = document.querySelector("dialog[data-open]");
  if (drawer) open(drawer);
  else selectSuggestion();
  showToasts();
  setInterval(refreshTimes, 15000);
})();
