// The playground: sends the conversation to the gateway's session endpoint and shows the stream as it arrives.
// The page has no key: the session's cookie authenticates. The conversation is kept in this tab, presets in this browser.
"use strict";
(() => {
  const form = document.getElementById("play");
  const talk = document.getElementById("play-talk");
  const empty = document.getElementById("play-empty");
  const prompt = document.getElementById("play-prompt");
  const sendButton = document.getElementById("play-send");
  const stopButton = document.getElementById("play-stop");
  const said = document.getElementById("play-said");
  const presets = document.getElementById("play-preset");
  const presetName = document.getElementById("play-preset-name");
  const advice = JSON.parse(document.getElementById("play-advice").textContent);
  const logged = JSON.parse(document.getElementById("play-logged").textContent);
  const say = form.dataset;
  const language = document.documentElement.lang;
  const number = new Intl.NumberFormat(language);
  const money = new Intl.NumberFormat(language, { minimumFractionDigits: 6, maximumFractionDigits: 6 });
  // What is less than the last decimal is not nothing.
  const usd = (nanos) => (nanos > 0 && nanos <= 500 ? `<$${money.format(1e-6)}` : `$${money.format(nanos / 1e9)}`);
  const exact = new Intl.NumberFormat(language, { minimumFractionDigits: 2, maximumFractionDigits: 9 });
  const LOOKS = 30; // at the log, for what an answer cost
  const SAID = 1000; // characters of an answer that screen readers announce
  const FIELDS = ["stage", "model", "second", "system", "temperature", "max_tokens", "max_cost"];
  const TALK_KEY = `playground:${say.user}:${say.organization}`;
  const PRESETS_KEY = `playground-presets:${say.user}`;
  // Turns of the user ({ role, content }) and of the models ({ role, answers }): one answer, or one of each model compared.
  let turns = [];
  let running = []; // an AbortController for each answer under way

  const value = (name) => form.elements[name]?.value.trim() || "";

  function read(storage, key, otherwise) {
    try {
      return JSON.parse(storage.getItem(key)) ?? otherwise;
    } catch {
      return otherwise;
    }
  }

  // Storage can be full or forbidden: the page works without.
  function write(storage, key, kept) {
    try {
      storage.setItem(key, JSON.stringify(kept));
    } catch {
      storage.removeItem(key);
    }
  }

  function save() {
    write(sessionStorage, TALK_KEY, { turns, fields: Object.fromEntries(FIELDS.map((name) => [name, value(name)])), prompt: prompt.value });
  }

  function setFields(fields) {
    for (const name of FIELDS) {
      const field = form.elements[name];
      if (!field || fields[name] === undefined) continue;
      // A model that is no longer offered stays as it is.
      if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === fields[name])) field.value = fields[name];
    }
    showModel();
  }

  function showModel() {
    document.getElementById("play-model").hidden = value("stage") !== say.direct;
  }

  const textOf = (turn, lane) => turn.answers[lane]?.text || turn.answers.find((answer) => answer.text)?.text || "";

  // What was said before the turn `until`, as one model sees it: a question without an answer is left out, and of several
  // answers to one question the last counts.
  function messagesOf(until, lane) {
    const messages = [];
    turns.slice(0, until).forEach((turn, i) => {
      if (turn.role !== "user") return;
      const next = turns.findIndex((each, n) => n > i && n < until && each.role === "user");
      const answers = turns.slice(i + 1, next < 0 ? until : next).map((each) => textOf(each, lane)).filter(Boolean);
      if (answers.length) messages.push({ role: "user", content: turn.content }, { role: "assistant", content: answers.at(-1) });
    });
    return messages;
  }

  // `plan`: what the planner is to do, as x-decompose and x-plan say it. The second lane is the model to compare with.
  function request(question, lane, plan = {}) {
    const isDirect = lane === 1 || value("stage") === say.direct;
    const model = lane === 1 ? value("second") : isDirect ? value("model") : `cfx-${value("stage")}`;
    const body = { model, messages: [], stream: plan["x-decompose"] !== "dry-run" };
    if (value("system")) body.messages.push({ role: "system", content: value("system") });
    body.messages.push(...messagesOf(question, lane), { role: "user", content: turns[question].content });
    if (value("temperature")) body.temperature = Number(value("temperature"));
    if (value("max_tokens")) body.max_tokens = Number(value("max_tokens"));
    const headers = { "content-type": "application/json", ...plan };
    if (value("max_cost")) headers["x-max-cost"] = value("max_cost");
    if (isDirect) headers["x-cfx-stage"] = say.direct;
    return { body: JSON.stringify(body), headers };
  }

  function element(name, className, ...children) {
    const made = document.createElement(name);
    made.className = className;
    made.append(...children);
    return made;
  }

  function button(label, act, className = "btn btn-line btn-sm") {
    const made = element("button", className, label);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  }

  function put(box) {
    empty.remove();
    talk.append(box);
    window.scrollTo({ top: document.documentElement.scrollHeight });
  }

  // A question, with a button that puts it into a field to be sent again from there.
  function showQuestion(turn) {
    const content = element("div", "turn-text", turn.content);
    const edit = button(say.sayEdit, () => startEdit(turn, box, content, edit), "link-plain min-h-6 self-start text-xs");
    const box = element("article", "turn turn-user", element("h2", "text-xs font-medium text-muted", say.sayYou), content, edit);
    edit.dataset.idle = "";
    put(box);
  }

  function startEdit(turn, box, content, edit) {
    if (running.length) return;
    const field = element("textarea", "textarea w-full");
    field.value = turn.content;
    field.rows = Math.min(12, turn.content.split("\n").length + 1);
    field.maxLength = prompt.maxLength;
    field.setAttribute("aria-label", say.sayEdit);
    const end = () => {
      tools.remove();
      field.replaceWith(content);
      edit.hidden = false;
      edit.focus();
    };
    const again = () => {
      const text = field.value.trim();
      if (!text || running.length || !form.reportValidity()) return;
      cutFrom(turns.indexOf(turn));
      ask(text);
    };
    const tools = element("div", "flex gap-2", button(say.sayAgain, again, "btn btn-primary btn-sm"), button(say.sayCancel, end));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        again();
      }
    });
    content.replaceWith(field);
    field.after(tools);
    edit.hidden = true;
    field.focus();
  }

  // Takes the turns from `index` on out of the conversation and off the page.
  function cutFrom(index) {
    turns = turns.slice(0, index);
    drawAll();
    save();
  }

  // Answers to one question, side by side if there are two.
  function showAnswers(turn) {
    const lanes = turn.answers.map((answer) => {
      const content = element("div", "turn-text md");
      const facts = element("p", "tnum flex flex-wrap items-center gap-x-3 gap-y-1 text-xs text-muted");
      const box = element("article", "turn turn-model min-w-0", element("h2", "text-xs font-medium text-muted", say.sayModel), content, facts);
      const view = { answer, box, content, facts, markdown: window.cfxMarkdown.view(content), turn };
      if (answer.text) view.markdown.show(answer.text);
      else if (answer.isDone) content.textContent = say.sayEmpty;
      if (answer.model) showModelOf(view);
      if (answer.error) showError(view);
      if (answer.isStopped) fact(view, say.sayStopped, "pill tone-warning");
      if (answer.firstMs !== undefined) showFirst(view);
      showRecord(view);
      return view;
    });
    const box = element("div", lanes.length > 1 ? "grid grid-cols-1 gap-4 md:grid-cols-2" : "", ...lanes.map((each) => each.box));
    put(box);
    return lanes;
  }

  // Buttons below the last answers; those of earlier ones go.
  function showTools() {
    for (const old of talk.querySelectorAll("[data-tools]")) old.remove();
    const last = turns.at(-1);
    if (last?.role !== "model" || running.length) return;
    const tools = element("div", "flex flex-wrap gap-2", button(say.sayRetry, retry));
    if (last.answers.length > 1) {
      last.answers.forEach((answer, lane) => {
        if (answer.text) tools.append(button(say.sayKeep.replace("{model}", answer.model.split(" · ").at(-1)), () => keep(lane)));
      });
    }
    tools.dataset.tools = "";
    talk.append(tools);
  }

  // Asks the last question again; its answers are replaced.
  function retry() {
    if (running.length || !form.reportValidity()) return;
    const question = turns.findLastIndex((turn) => turn.role === "user");
    const text = turns[question].content;
    if (prompt.value.trim() === text) prompt.value = "";
    cutFrom(question);
    ask(text);
  }

  // Goes on with one of two answers, and with its model.
  function keep(lane) {
    if (running.length) return;
    turns = turns.map((each) => (each.role === "model" ? { ...each, answers: [each.answers[lane] || each.answers[0]] } : each));
    if (lane === 1) setFields({ stage: say.direct, model: value("second") });
    setFields({ second: "" });
    drawAll();
    save();
    prompt.focus();
  }

  function drawAll() {
    talk.replaceChildren();
    for (const turn of turns) {
      if (turn.role === "user") showQuestion(turn);
      else for (const view of showAnswers(turn)) if (view.answer.id && view.answer.nanos === undefined) tell(view);
    }
    if (!turns.length) talk.append(empty);
    showTools();
  }

  // Changes the page, and follows its end if that was in sight: whoever reads further up is left in peace.
  function following(change) {
    const page = document.documentElement;
    const isAtEnd = window.innerHeight + window.scrollY >= page.scrollHeight - 120;
    change();
    if (isAtEnd) window.scrollTo({ top: page.scrollHeight });
  }

  function fact(view, text, className = "") {
    const item = element("span", className, text);
    view.facts.append(item);
    return item;
  }

  const showModelOf = (view) => fact(view, view.answer.model, "mono");

  function showFirst(view) {
    const known = view.facts.querySelector("[data-first]") || fact(view, "");
    known.dataset.first = "";
    known.textContent = say.sayFirst.replace("{ms}", number.format(view.answer.firstMs));
  }

  // What went wrong, its code, and the way out; a call that was refused before a model is listed on a page of its own.
  function showError(view, isNew = false) {
    const { message, code } = view.answer.error;
    const [title, toDo, page] = advice[code] || [];
    const line = element("div", "alert-line tone-error mt-1 grid gap-1", element("p", "", code ? `${message} (${code})` : message));
    if (isNew) line.setAttribute("role", "alert");
    if (title) {
      const way = element(page ? "a" : "p", page ? "link-plain underline" : "", toDo);
      if (page) way.href = page;
      line.prepend(element("strong", "", title));
      line.append(way);
    }
    if (code && !view.answer.id) {
      const record = element("a", "link-plain underline", say.sayRefused);
      record.href = `${say.refused}?range=24h&code=${encodeURIComponent(code)}`;
      line.append(record);
    }
    view.facts.before(line);
  }

  function fail(view, message, code = "") {
    view.answer.error = { message, code };
    showError(view, true);
  }

  function showRecord(view) {
    const { id, nanos, totalMs, tokens } = view.answer;
    if (!id) return;
    const link = element("a", "link-plain", say.sayRequest);
    link.href = `${say.log}?request=${id}`;
    view.facts.append(link);
    if (nanos === undefined) return;
    if (totalMs !== undefined) fact(view, say.sayTotal.replace("{ms}", number.format(totalMs))).dataset.total = totalMs;
    fact(view, tokens);
    fact(view, usd(nanos), "font-medium text-base-content").dataset.cost = String(nanos);
  }

  function send() {
    const text = prompt.value.trim();
    if (!text || running.length || !form.reportValidity()) return;
    prompt.value = "";
    ask(text);
  }

  function ask(text) {
    turns.push({ role: "user", content: text });
    showQuestion(turns.at(-1));
    answerTo(turns.length - 1);
  }

  // Asks for answers to the question of turn `question`; `plan` as in `request`.
  async function answerTo(question, plan = {}) {
    const conversation = turns; // another one when begun anew meanwhile
    const text = turns[question].content;
    const isCompared = value("second") && !Object.keys(plan).length;
    const turn = { role: "model", answers: Array.from({ length: isCompared ? 2 : 1 }, () => ({ text: "" })) };
    const sent = turn.answers.map((_, lane) => request(question, lane, plan));
    turns.push(turn);
    running = turn.answers.map(() => new AbortController());
    const controllers = running;
    const views = showAnswers(turn);
    toggle();
    save();
    const first = follow(views[0], sent[0], controllers[0]);
    const second = views[1] && follow(views[1], sent[1], controllers[1], first);
    await Promise.all([first, second]);
    if (running === controllers) running = [];
    toggle();
    if (conversation !== turns) return;
    // Without any answer the prompt is not part of the conversation and can be sent again.
    if (!turn.answers.some((each) => each.text || each.isDone) && !prompt.value) prompt.value = text;
    said.textContent = turn.answers.filter((each) => each.text).map((each) => `${say.sayModel}: ${each.text.slice(0, SAID)}`).join(" ");
    prompt.focus();
    save();
    showTools();
    for (const view of views) {
      if (view.answer.planned?.missing.length) offerMore(view, view.answer.planned, question);
      if (view.answer.id) tell(view);
    }
  }

  // One answer, from its request to its last word. A plan of one stream at a time answers after the other model.
  async function follow(view, sent, controller, other = null) {
    const { answer, content, box } = view;
    content.textContent = say.sayWaiting;
    content.classList.add("text-muted");
    box.setAttribute("aria-busy", "true");
    try {
      let response = await post(sent, controller);
      if (other && response.status === 429) {
        const told = await response.clone().json().catch(() => null);
        if (told?.error?.code === "concurrency_limit_exceeded") {
          await other;
          response = await post(sent, controller);
        }
      }
      await receive(view, response);
    } catch {
      if (controller.signal.aborted) {
        answer.isStopped = true;
        fact(view, say.sayStopped, "pill tone-warning");
      } else fail(view, say.sayLost);
    }
    if (!answer.text) content.textContent = answer.isDone ? say.sayEmpty : "";
    content.classList.remove("text-muted");
    box.removeAttribute("aria-busy");
    if (answer.id) showRecord(view);
  }

  const post = (sent, controller) => fetch(say.chat, { method: "POST", ...sent, signal: controller.signal });

  async function receive(view, response) {
    const { answer, content } = view;
    const started = performance.now();
    answer.id = response.headers.get("x-cfx-request-id") || "";
    if (!response.ok) {
      const told = await response.json().catch(() => null);
      // A call that no model was asked for has no row in the log.
      if (!logged.includes(told?.error?.code)) answer.id = "";
      if (response.status === 401) fail(view, say.sayOver);
      else fail(view, told?.error?.message || say.sayLost, told?.error?.code);
      return;
    }
    answer.model = `${response.headers.get("x-cfx-stage")} · ${response.headers.get("x-cfx-model")}`;
    showModelOf(view);
    let isWaiting = false;
    const draw = () => {
      isWaiting = false;
      following(() => view.markdown.show(answer.text));
    };
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { value: piece, done } = await reader.read();
        if (done) break;
        const lines = (rest + piece).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (!line.startsWith("data:")) continue;
          const data = line.slice(5).trim();
          if (data === "[DONE]") {
            answer.isDone = true;
            continue;
          }
          const event = JSON.parse(data);
          if (event.error) fail(view, event.error.message, event.error.code);
          if (event.cfx_planner) answer.planned = event.cfx_planner;
          const more = event.choices?.[0]?.delta?.content?.replaceAll("\r", "");
          if (!more) continue;
          if (!answer.text) {
            content.textContent = "";
            content.classList.remove("text-muted");
            answer.firstMs = Math.round(performance.now() - started);
            showFirst(view);
          }
          answer.text += more;
          // At most once a frame; a hidden tab has none.
          if (document.hidden) continue;
          if (!isWaiting) requestAnimationFrame(draw);
          isWaiting = true;
        }
      }
    } finally {
      if (answer.text) draw();
    }
    if (!answer.isDone && !answer.error) fail(view, say.sayBroken);
  }

  // Tokens and cost come from the request log, whose row exists a moment after the response.
  async function tell(view) {
    const { answer } = view;
    const follows = fact(view, say.sayCounting);
    for (let look = 0; look < LOOKS && view.box.isConnected; look += 1) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(250 * (look + 1), 2000)));
      const response = await fetch(`${say.api}${answer.id}?organization=${encodeURIComponent(say.organization)}`).catch(() => null);
      if (!response || response.status !== 200) continue;
      const row = await response.json();
      if (row.ttft_ms !== null && view.facts.querySelector("[data-first]")) {
        answer.firstMs = row.ttft_ms;
        showFirst(view);
      }
      const estimated = row.tokens.is_estimated ? ` (${say.sayEstimated})` : "";
      answer.tokens = say.sayTokens.replace("{in}", number.format(row.tokens.prompt)).replace("{out}", number.format(row.tokens.completion)) + estimated;
      answer.totalMs = row.latency_ms;
      answer.nanos = row.cost.nanos;
      view.facts.querySelector(`a[href$="${answer.id}"]`)?.remove();
      following(() => showRecord(view));
      save();
      break;
    }
    follows.remove();
  }

  // A quote for the message in the box: the parts that the planner would write, their price, and that of one call.
  async function quote() {
    const text = prompt.value.trim();
    if (!text || running.length || !form.reportValidity()) return;
    prompt.value = "";
    turns.push({ role: "user", content: text });
    const question = turns.length - 1;
    const conversation = turns;
    showQuestion(turns[question]);
    const [view] = showAnswers({ role: "model", answers: [{ text: "" }] });
    view.content.textContent = say.sayPlanning;
    view.box.setAttribute("aria-busy", "true");
    running = [new AbortController()];
    const [controller] = running;
    toggle();
    const told = await post(request(question, 0, { "x-decompose": "dry-run" }), controller)
      .then((response) => response.json())
      .catch(() => null);
    running = [];
    toggle();
    view.box.removeAttribute("aria-busy");
    if (conversation !== turns) return;
    if (told?.object === "cfx.plan") showQuote(view, told, question);
    else {
      view.content.textContent = "";
      fail(view, told?.error?.message || say.sayLost, told?.error?.code);
      if (!prompt.value) prompt.value = text;
    }
    save();
  }

  function showQuote(view, told, question) {
    view.content.textContent = "";
    const list = element("ol", "");
    for (const part of told.chunks) {
      list.append(element("li", "", `${part.title} · ${part.model} · ${say.sayTokensOf.replace("{n}", number.format(part.tokens))} · $${exact.format(part.expected_usd)}`));
    }
    view.content.append(list);
    if (told.id) {
      fact(view, say.sayInParts.replace("{expected}", exact.format(told.expected_usd)).replace("{upper}", exact.format(told.upper_usd))).dataset.quote = told.upper_usd;
      choose(view, say.sayWrite, question, { "x-plan": told.id });
    } else fact(view, say.sayNoPlan.replace("{reason}", told.reason));
    fact(view, say.sayOnePass.replace("{n}", number.format(told.one_pass.tokens)).replace("{expected}", exact.format(told.one_pass.expected_usd)));
    choose(view, say.sayOnce, question, { "x-decompose": "0" });
  }

  // What a stopped plan lacks, and a button to go on with it: finished parts are not paid again.
  function offerMore(view, planned, question) {
    fact(view, say.sayMissing.replace("{parts}", planned.missing.map((each) => each.title).join(", ")), "pill tone-warning");
    if (planned.plan_id) choose(view, say.sayGoOn, question, { "x-plan": planned.plan_id });
  }

  // A button below an answer, for as long as its conversation is where it was.
  function choose(view, label, question, plan) {
    const { length } = turns;
    const conversation = turns;
    const made = button(label, () => {
      if (running.length || conversation !== turns || turns.length !== length) return;
      for (const each of view.box.querySelectorAll(".btn")) each.remove();
      answerTo(question, plan);
    });
    view.facts.append(made);
  }

  function toggle() {
    sendButton.hidden = running.length > 0;
    stopButton.hidden = !running.length;
    if (running.length) showTools();
  }

  // Presets of this browser: the parameters, by name.
  function showPresets(chosen = "") {
    const names = Object.keys(read(localStorage, PRESETS_KEY, {})).sort((a, b) => a.localeCompare(b, language));
    presets.replaceChildren(new Option(say.sayNoPreset, ""), ...names.map((name) => new Option(name, name)));
    presets.value = chosen;
    document.getElementById("play-preset-delete").hidden = !chosen;
  }

  function savePreset() {
    const name = presetName.value.trim();
    if (!name) {
      presetName.focus();
      return;
    }
    const known = read(localStorage, PRESETS_KEY, {});
    write(localStorage, PRESETS_KEY, { ...known, [name]: Object.fromEntries(FIELDS.map((each) => [each, value(each)])) });
    presetName.value = "";
    showPresets(name);
    said.textContent = say.saySaved.replace("{name}", name);
  }

  function deletePreset() {
    const known = read(localStorage, PRESETS_KEY, {});
    delete known[presets.value];
    write(localStorage, PRESETS_KEY, known);
    showPresets();
    presets.focus();
  }

  sendButton.addEventListener("click", send);
  document.getElementById("play-quote").addEventListener("click", quote);
  stopButton.addEventListener("click", () => running.forEach((each) => each.abort()));
  document.getElementById("play-clear").addEventListener("click", () => {
    running.forEach((each) => each.abort());
    turns = [];
    drawAll();
    sessionStorage.removeItem(TALK_KEY);
    prompt.focus();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  // The code is that of this conversation: the question in the box is its last one, or else the last that was asked.
  document.getElementById("play-code").addEventListener("click", () => {
    const last = turns.findLastIndex((turn) => turn.role === "user");
    const asked = prompt.value.trim() || last < 0 ? messagesOf(turns.length, 0) : [...messagesOf(last, 0), { role: "user", content: turns[last].content }];
    form.elements.messages.value = JSON.stringify(asked);
  }, true);
  document.getElementById("play-preset-save").addEventListener("click", savePreset);
  document.getElementById("play-preset-delete").addEventListener("click", deletePreset);
  presetName.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    savePreset();
  });
  presets.addEventListener("change", () => {
    const chosen = read(localStorage, PRESETS_KEY, {})[presets.value];
    document.getElementById("play-preset-delete").hidden = !chosen;
    if (chosen) setFields(chosen);
    save();
  });
  form.addEventListener("change", () => {
    showModel();
    save();
  });
  window.addEventListener("pagehide", save);

  function restore(kept) {
    turns = kept.turns;
    // What was under way when the page was left has stopped.
    for (const each of turns.flatMap((turn) => turn.answers || [])) each.isStopped ||= !each.isDone && !each.error;
    if (kept.fields) setFields(kept.fields);
    prompt.value = kept.prompt || "";
    showModel();
    drawAll();
  }

  // A request of the log. Its last question, if it has no answer, waits in the box.
  function conversationOf({ id, fields, parameters, turns: said }) {
    const isOpen = said.at(-1)?.[0] === "user";
    const asked = said.slice(0, isOpen ? -1 : undefined).map(([role, text]) =>
      role === "user" ? { role, content: text } : { role: "model", answers: [{ text, isDone: true }] });
    if (asked.length && !isOpen) asked.at(-1).answers[0].id = id;
    const blank = Object.fromEntries(FIELDS.map((name) => [name, ["stage", "model"].includes(name) ? undefined : ""]));
    return { turns: asked, fields: { ...blank, ...fields, ...parameters }, prompt: isOpen ? said.at(-1)[1] : "" };
  }

  const kept = read(sessionStorage, TALK_KEY, { turns: [] });
  const opened = document.getElementById("play-opened-facts");
  if (opened) {
    // Loaded again, the page goes on from here.
    history.replaceState(history.state, "", location.pathname);
    restore(conversationOf(JSON.parse(opened.textContent)));
    const back = document.getElementById("play-before");
    back.hidden = !kept.turns.length && !kept.prompt;
    back.addEventListener("click", () => {
      running.forEach((each) => each.abort());
      restore(kept);
      save();
      document.getElementById("play-opened").remove();
      prompt.focus();
    });
    save();
  } else restore(kept);
  showPresets();
})();
