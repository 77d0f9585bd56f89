// The playground: sends the conversation to the gateway's session endpoint and shows the stream as it arrives.
// The page has no key: the session's cookie authenticates. The conversation exists in this page only.
"use strict";
(() => {
  const form = document.getElementById("play");
  const talk = document.getElementById("play-talk");
  const prompt = document.getElementById("play-prompt");
  const sendButton = document.getElementById("play-send");
  const stopButton = document.getElementById("play-stop");
  const say = form.dataset;
  const language = document.documentElement.lang;
  const number = new Intl.NumberFormat(language);
  const money = new Intl.NumberFormat(language, { minimumFractionDigits: 6, maximumFractionDigits: 6 });
  const LOOKS = 30; // at the log, for what an answer cost
  let messages = [];
  let running = null;

  const value = (name) => form.elements[name].value.trim();

  function showModel() {
    document.getElementById("play-model").hidden = value("stage") !== say.direct;
  }

  function request() {
    const stage = value("stage");
    const isDirect = stage === say.direct;
    const body = { model: isDirect ? value("model") : `cfx-${stage}`, messages: [], stream: true };
    if (value("system")) body.messages.push({ role: "system", content: value("system") });
    body.messages.push(...messages);
    if (value("temperature")) body.temperature = Number(value("temperature"));
    if (value("max_tokens")) body.max_tokens = Number(value("max_tokens"));
    const headers = { "content-type": "application/json" };
    if (isDirect) headers["x-cfx-stage"] = stage;
    return { body: JSON.stringify(body), headers };
  }

  // One turn of the conversation: role, text, and facts about it below.
  function turn(who, text) {
    const box = document.createElement("article");
    box.className = `turn turn-${who}`;
    const name = document.createElement("h2");
    name.className = "text-xs font-medium text-muted";
    name.textContent = who === "user" ? say.sayYou : say.sayModel;
    const content = document.createElement("div");
    content.className = "turn-text";
    content.textContent = text;
    const facts = document.createElement("p");
    facts.className = "tnum flex flex-wrap items-center gap-x-3 gap-y-1 text-xs text-muted";
    box.append(name, content, facts);
    document.getElementById("play-empty")?.remove();
    talk.append(box);
    box.scrollIntoView({ block: "nearest" });
    return { box, content, facts };
  }

  function fact(answer, text, className = "") {
    const item = document.createElement("span");
    item.className = className;
    item.textContent = text;
    answer.facts.append(item);
    return item;
  }

  function fail(answer, text) {
    const line = document.createElement("p");
    line.className = "alert-line tone-error mt-1";
    line.setAttribute("role", "alert");
    line.textContent = text;
    answer.facts.before(line);
  }

  async function send() {
    const text = prompt.value.trim();
    if (!text || running || !form.reportValidity()) return;
    prompt.value = "";
    const conversation = messages; // another one when begun anew meanwhile
    conversation.push({ role: "user", content: text });
    turn("user", text);
    const answer = turn("model", "");
    answer.content.textContent = say.sayWaiting;
    answer.content.classList.add("text-muted");
    answer.box.setAttribute("aria-busy", "true");
    running = new AbortController();
    toggle();
    const state = { text: "", isDone: false, id: "" };
    try {
      await receive(answer, state);
    } catch (error) {
      if (running.signal.aborted) fact(answer, say.sayStopped, "pill tone-warning");
      else fail(answer, say.sayLost);
    }
    if (!state.text) {
      answer.content.textContent = state.isDone ? say.sayEmpty : "";
      // Without a response the prompt is not part of the conversation and can be sent again.
      if (!state.isDone) {
        conversation.pop();
        if (conversation === messages && !prompt.value) prompt.value = text;
      }
    } else conversation.push({ role: "assistant", content: state.text });
    answer.box.removeAttribute("aria-busy");
    running = null;
    toggle();
    prompt.focus();
    if (state.id) tell(answer, state.id);
  }

  async function receive(answer, state) {
    const started = performance.now();
    const response = await fetch(say.chat, { method: "POST", ...request(), signal: running.signal });
    state.id = response.headers.get("x-cfx-stage") ? response.headers.get("x-cfx-request-id") : "";
    if (!response.ok) {
      const told = await response.json().catch(() => null);
      if (response.status === 401) fail(answer, say.sayOver);
      else fail(answer, told?.error ? `${told.error.message} (${told.error.code})` : say.sayLost);
      return;
    }
    fact(answer, `${response.headers.get("x-cfx-stage")} · ${response.headers.get("x-cfx-model")}`, "mono");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value: piece, done } = await reader.read();
      if (done) break;
      const lines = (rest + piece).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") {
          state.isDone = true;
          continue;
        }
        const event = JSON.parse(data);
        if (event.error) fail(answer, `${event.error.message} (${event.error.code})`);
        const more = event.choices?.[0]?.delta?.content;
        if (!more) continue;
        if (!state.text) {
          answer.content.textContent = "";
          answer.content.classList.remove("text-muted");
          fact(answer, say.sayFirst.replace("{ms}", number.format(Math.round(performance.now() - started))), "").dataset.first = "";
        }
        state.text += more;
        answer.content.append(more);
      }
    }
    if (!state.isDone && !answer.box.querySelector("[role=alert]")) fail(answer, say.sayBroken);
  }

  // Tokens and cost come from the request log, whose row exists a moment after the response.
  async function tell(answer, id) {
    const link = document.createElement("a");
    link.className = "link-plain";
    link.href = `${say.log}?request=${id}`;
    link.textContent = say.sayRequest;
    answer.facts.append(link);
    const follows = fact(answer, say.sayCounting);
    for (let look = 0; look < LOOKS; look += 1) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(250 * (look + 1), 2000)));
      const response = await fetch(`${say.api}${id}?organization=${encodeURIComponent(say.organization)}`).catch(() => null);
      if (!response || response.status !== 200) continue;
      const row = await response.json();
      const first = answer.facts.querySelector("[data-first]");
      if (first && row.ttft_ms !== null) first.textContent = say.sayFirst.replace("{ms}", number.format(row.ttft_ms));
      const estimated = row.tokens.is_estimated ? ` (${say.sayEstimated})` : "";
      follows.textContent = say.sayTokens.replace("{in}", number.format(row.tokens.prompt)).replace("{out}", number.format(row.tokens.completion)) + estimated;
      fact(answer, `$${money.format(row.cost.nanos / 1e9)}`, "font-medium text-base-content").dataset.cost = String(row.cost.nanos);
      return;
    }
    follows.remove();
  }

  function toggle() {
    sendButton.hidden = running !== null;
    stopButton.hidden = running === null;
  }

  sendButton.addEventListener("click", send);
  stopButton.addEventListener("click", () => running?.abort());
  document.getElementById("play-clear").addEventListener("click", () => {
    running?.abort();
    messages = [];
    talk.replaceChildren();
    prompt.focus();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  form.addEventListener("change", showModel);
  showModel();
})();
