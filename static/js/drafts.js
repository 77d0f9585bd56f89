// Text of a form that was sent after the session had ended. It stays in this tab and is offered again to the same user
// after signing in. Never passwords, codes, files or keys.
"use strict";
(() => {
  const KEY = "draft";
  const KEPT_MS = 3600_000;
  const SECRET = /\b(cfx|sk|whsec)[_-]/;
  const LOST_TO = ["/accounts/login/", "/accounts/reauthenticate/"]; // where a form ends up that was not taken
  const { user = "" } = document.body.dataset;
  const here = location.pathname + location.search;

  function read() {
    try {
      return JSON.parse(sessionStorage.getItem(KEY));
    } catch {
      return null;
    }
  }

  // Storage can be full or forbidden: forms work without.
  function write(draft) {
    try {
      if (draft) sessionStorage.setItem(KEY, JSON.stringify(draft));
      else sessionStorage.removeItem(KEY);
    } catch {
      sessionStorage.removeItem(KEY);
    }
  }

  const isTyped = (field) =>
    field.name && !field.matches("[type=hidden], [type=password], [type=file], [type=submit], button, [autocomplete=one-time-code]");
  const isBox = (field) => field.type === "checkbox" || field.type === "radio";
  const pathOf = (form) => new URL(form.getAttribute("action") || here, location.href).pathname;

  function fieldsOf(form) {
    const fields = [...form.elements].filter(isTyped).filter((field) => !SECRET.test(field.value));
    if (!fields.some((field) => field.matches("textarea, input:not([type=checkbox], [type=radio])") && field.value)) return [];
    return fields.map((field) => [field.name, field.value, isBox(field) ? field.checked : null]);
  }

  document.addEventListener("submit", ({ target: form }) => {
    const action = pathOf(form);
    if (!user || form.method !== "post" || form.closest("[data-no-draft]") || action.startsWith("/accounts/")) return;
    const fields = fieldsOf(form);
    if (fields.length) write({ user, fields, action, page: here, isDialog: form.closest("#dialog") !== null, at: Date.now() });
  });
  // The form was taken, or came back with its errors and its text.
  document.addEventListener("htmx:after:swap", () => {
    if (!read()?.isLost) write(null);
  });

  function fill(draft, root) {
    const form = [...root.querySelectorAll("form")].find((each) => each.method === "post" && pathOf(each) === draft.action);
    if (!form) return false;
    for (const [name, value, isChecked] of draft.fields) {
      const field = [...form.elements].find((each) => each.name === name && (isChecked === null || each.value === value));
      if (!field) continue;
      if (isChecked !== null) field.checked = isChecked;
      else field.value = value;
      const part = field.closest("details");
      if (part && (isChecked || (isChecked === null && value))) part.open = true;
    }
    [...form.elements].find(isTyped)?.focus();
    return true;
  }

  async function restore(draft) {
    if (draft.page !== here) {
      write({ ...draft, isWanted: true });
      location.assign(draft.page);
      return;
    }
    write(null);
    if (draft.isDialog) await window.htmx.ajax("GET", draft.action, { target: "#dialog-body" });
    fill(draft, draft.isDialog ? document.getElementById("dialog") : document);
  }

  function offer(draft) {
    const box = document.getElementById("draft-offer").content.firstElementChild.cloneNode(true);
    const [again, forget] = box.querySelectorAll("button");
    again.addEventListener("click", () => {
      box.remove();
      restore(draft);
    });
    forget.addEventListener("click", () => {
      box.remove();
      write(null);
      document.getElementById("main").focus();
    });
    document.getElementById("main").prepend(box);
  }

  const draft = read();
  if (!draft) return;
  if (draft.at < Date.now() - KEPT_MS || (user && user !== draft.user)) write(null);
  else if (LOST_TO.includes(location.pathname)) write({ ...draft, isLost: true });
  else if (!draft.isLost) write(null); // it was taken
  else if (user && draft.isWanted) restore(draft);
  else if (user && document.getElementById("draft-offer")) offer(draft);
})();
