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
      setTimeout(() => {
        item.remove();
        if (!box.children.length) box.hidePopover();
      }, 4000);
    }
  }

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      toast(say("sayNotCopied"), true);
      return;
    }
    button.classList.add("copied");
    toast(say("sayCopied"));
    setTimeout(() => button.classList.remove("copied"), 1600);
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
  }

  function close(dialog) {
    dialog.close();
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

  document.addEventListener("click", (event) => {
    const target = event.target;
    const button = target.closest("[data-copy], [data-theme-toggle], [data-close], [data-tab], [data-reload]");
    if (button) {
      if (button.matches("[data-copy]")) copy(button);
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
    if (dialog.id === "drawer") setParameter("request", "");
    if (mustReload) location.reload();
    else if (openers.get(dialog)?.isConnected) openers.get(dialog).focus();
    openers.delete(dialog);
  }, true);

  // "I have stored this key" unlocks Done.
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("[data-unlocks]")) document.getElementById(box.dataset.unlocks).disabled = !box.checked;
    if (box.matches("[data-submits]")) box.form.requestSubmit();
  });

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

  // Keyboard: "/" searches, "g" and a letter navigates, arrow keys switch tabs.
  let went = 0;
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("[role=tab]") && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const tabs = [...event.target.closest("[role=tablist]").querySelectorAll("[role=tab]")];
      const step = event.key === "ArrowRight" ? 1 : tabs.length - 1;
      showTab(tabs[(tabs.indexOf(event.target) + step) % tabs.length]);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || document.querySelector("dialog[open]")) return;
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
      went = 0;
      if (link) link.click();
    }
  });

  // One request at a time per form: its button is disabled meanwhile.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    const button = event.submitter;
    if (!button) return;
    // After the form's data is collected: a disabled button is not part of it.
    setTimeout(() => { button.disabled = true; }, 0);
    setTimeout(() => { if (button.isConnected) button.disabled = false; }, 8000);
  });

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
    if (!event.detail.ctx?.sourceElement?.matches("[hx-trigger^=every]")) toast(say("sayFailed"), true);
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
      if (shown) setParameter("request", shown.dataset.request);
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
  showToasts();
  setInterval(refreshTimes, 15000);
})();
