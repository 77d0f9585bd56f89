// Markdown of answers as DOM nodes: paragraphs, headings, lists, quotes, tables, code and links. Text never becomes HTML, so
// an answer can neither run anything nor load anything. `view` draws a growing text and draws only its last block again.
"use strict";
window.cfxMarkdown = (() => {
  const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
  const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
  const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
  const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)(.*)$/;
  const QUOTE = /^ {0,3}> ?/;
  const DELIMITER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
  const INLINE = /\\([!-/:-@[-`{-~])|(`+)([\s\S]*?[^`])\2(?!`)|!?\[([^\]]*)\]\(\s*<?([^\s)>]+)>?(?:\s+"[^"]*")?\s*\)|(\*\*|__)(?=\S)([\s\S]*?\S)\6|~~(?=\S)([\s\S]*?\S)~~|\*(?=[^\s*])([^*]*[^\s*])\*|\b_(?=[^\s_])([^_]*[^\s_])_\b|(https?:\/\/[^\s<>"'`)\]]*[^\s<>"'`)\].,;:!?])/;
  const MOST_LEVELS = 8; // of lists and quotes inside each other
  const MOST_INLINE = 20000; // characters of one paragraph that are searched for emphasis and links

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };

  function link(address, nodes) {
    const holder = element("span", "", ...nodes);
    for (const inner of holder.querySelectorAll("a")) inner.replaceWith(...inner.childNodes);
    const children = [...holder.childNodes];
    let url;
    try {
      url = new URL(address);
    } catch {
      return children;
    }
    if (url.protocol !== "https:" && url.protocol !== "http:") return children;
    const made = element("a", "link-plain underline", ...children);
    made.href = url.href;
    made.rel = "noopener noreferrer nofollow";
    made.target = "_blank";
    return [made];
  }

  function inline(text, level = 0) {
    if (text.length > MOST_INLINE) return [text];
    const nodes = [];
    for (let rest = text; rest; ) {
      const found = level < MOST_LEVELS ? INLINE.exec(rest) : null;
      nodes.push(found ? rest.slice(0, found.index) : rest);
      if (!found) break;
      const [whole, escaped, , code, label, address, , strong, struck, em, em2, bare] = found;
      if (escaped) nodes.push(escaped);
      else if (code) nodes.push(element("code", "", code.replace(/^ (.*) $/s, "$1")));
      else if (address) nodes.push(...link(address, inline(label || address, level + 1)));
      else if (strong) nodes.push(element("strong", "", ...inline(strong, level + 1)));
      else if (struck) nodes.push(element("s", "", ...inline(struck, level + 1)));
      else if (em || em2) nodes.push(element("em", "", ...inline(em || em2, level + 1)));
      else nodes.push(...link(bare, [bare]));
      rest = rest.slice(found.index + whole.length);
    }
    return nodes;
  }

  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const isTable = (lines, at) => lines[at].includes("|") && at + 1 < lines.length && DELIMITER.test(lines[at + 1]) && lines[at + 1].includes("-");
  const begins = (lines, at) => FENCE.test(lines[at]) || HEADING.test(lines[at]) || RULE.test(lines[at]) || QUOTE.test(lines[at]) || ITEM.test(lines[at]);

  // End of the block that begins with line `at`: the first line after it.
  function endOf(lines, at) {
    const fence = FENCE.exec(lines[at]);
    let end = at + 1;
    if (fence) {
      const closing = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
      while (end < lines.length && !closing.test(lines[end])) end += 1;
      return Math.min(end + 1, lines.length);
    }
    if (HEADING.test(lines[at]) || RULE.test(lines[at])) return end;
    const item = ITEM.exec(lines[at]);
    if (item) {
      // Further items, indented lines, and blank lines that either follows.
      const goesOn = (line) => /^\s{2,}\S/.test(line) || (ITEM.test(line) && !RULE.test(line));
      for (; end < lines.length; end += 1) {
        if (lines[end].trim()) {
          if (!goesOn(lines[end]) && (!lines[end - 1].trim() || begins(lines, end))) break;
        } else if (end + 1 < lines.length && lines[end + 1].trim() && !goesOn(lines[end + 1])) break;
      }
      return end;
    }
    if (QUOTE.test(lines[at])) {
      while (end < lines.length && QUOTE.test(lines[end])) end += 1;
      return end;
    }
    if (isTable(lines, at)) {
      for (end += 1; end < lines.length && lines[end].includes("|"); ) end += 1;
      return end;
    }
    while (end < lines.length && lines[end].trim() && !begins(lines, end) && !isTable(lines, end)) end += 1;
    return end;
  }

  // Blocks of a text: where each begins, as a number of lines.
  function blocksOf(lines) {
    const found = [];
    for (let at = 0; at < lines.length; ) {
      if (!lines[at].trim()) at += 1;
      else {
        const end = endOf(lines, at);
        found.push({ at, lines: lines.slice(at, end) });
        at = end;
      }
    }
    return found;
  }

  function codeBlock(lines, fence) {
    const isClosed = lines.length > 1 && lines[lines.length - 1].trim().startsWith(fence[1]);
    const text = lines.slice(1, isClosed ? -1 : undefined).join("\n");
    const language = fence[2].trim().split(/\s/)[0];
    const box = element("figure", "codeblock");
    const head = element("header", "", element("figcaption", "mono", language));
    const copy = document.getElementById("copy-button");
    if (copy) {
      const button = copy.content.firstElementChild.cloneNode(true);
      button.dataset.copy = text;
      head.append(button);
    }
    const code = element("pre", "", element("code", "", text));
    code.tabIndex = 0;
    code.setAttribute("role", "group");
    code.setAttribute("aria-label", language || copy?.dataset.code || "");
    box.append(head, code);
    return box;
  }

  function list(lines, level) {
    const first = ITEM.exec(lines[0]);
    const base = first[1].length;
    const isOrdered = /\d/.test(first[2]);
    const made = element(isOrdered ? "ol" : "ul", "");
    if (isOrdered) made.start = parseInt(first[2], 10);
    let item = null;
    const put = () => {
      if (!item) return;
      const blocks = blocksOf(item);
      // A single paragraph of an item needs no paragraph's distance.
      const isTight = blocks.length && !item.some((line, i) => !line.trim() && i < item.length - 1);
      const children = blocks.map((block) => draw(block.lines, level + 1));
      made.append(element("li", "", ...children.flatMap((child) => (isTight && child.tagName === "P" ? [...child.childNodes] : [child]))));
    };
    let indent = 0;
    for (const line of lines) {
      const found = ITEM.exec(line);
      if (found && (!item || found[1].length < base + 2)) {
        put();
        indent = found[1].length + found[2].length + Math.min(found[3].length || 1, 4);
        item = [found[4]];
      } else item.push(line.slice(Math.min(indent, line.length - line.trimStart().length)));
    }
    put();
    return made;
  }

  function table(lines) {
    const sides = cells(lines[1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "text-center" : "text-right") : ""));
    const row = (line, name) => element("tr", "", ...cells(line).slice(0, sides.length).map((cell, i) => element(name, sides[i], ...inline(cell))));
    const made = element("table", "", element("thead", "", row(lines[0], "th")), element("tbody", "", ...lines.slice(2).map((line) => row(line, "td"))));
    const box = element("div", "thin-bar overflow-x-auto", made);
    box.tabIndex = 0;
    return box;
  }

  function draw(lines, level = 0) {
    const fence = FENCE.exec(lines[0]);
    if (fence) return codeBlock(lines, fence);
    const heading = HEADING.exec(lines[0]);
    // The page and the turn have the first two levels.
    if (heading) return element(`h${Math.min(heading[1].length + 2, 6)}`, "", ...inline(heading[2]));
    if (RULE.test(lines[0])) return element("hr", "");
    if (level < MOST_LEVELS && QUOTE.test(lines[0])) {
      const inner = blocksOf(lines.map((line) => line.replace(QUOTE, "")));
      return element("blockquote", "", ...inner.map((block) => draw(block.lines, level + 1)));
    }
    if (level < MOST_LEVELS && ITEM.test(lines[0])) return list(lines, level);
    if (isTable(lines, 0)) return table(lines);
    const paragraph = element("p", "");
    lines.forEach((line, i) => {
      if (i) paragraph.append(/(\\| {2,})$/.test(lines[i - 1]) ? element("br", "") : "\n");
      paragraph.append(...inline(line.replace(/\\$/, "").trim()));
    });
    return paragraph;
  }

  // Draws a text that only grows. Blocks before the last one are final: what follows a block never changes it.
  function view(box) {
    let tail = 0; // where the last block begins
    let last = null;
    return {
      show(text) {
        const lines = text.slice(tail).split("\n");
        const blocks = blocksOf(lines);
        last?.remove();
        last = null;
        for (const block of blocks) box.append((last = draw(block.lines)));
        if (blocks.length > 1) tail += lines.slice(0, blocks[blocks.length - 1].at).reduce((sum, line) => sum + line.length + 1, 0);
      },
    };
  }

  return { view };
})();
