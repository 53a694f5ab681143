// The explorer of report.html. It reads the JSON in #payload (see explorer.py) and builds every
// node with createElement and text: nothing that a report says is ever parsed as HTML.
// What is shown follows from the address alone: #explorer?report=…&precision=…&kind=…&flag=…&q=…
"use strict";
(() => {
  const PAGE = 50; // reports in the list at a time
  const CELLS = 250000; // largest table of word pairs for which differences are computed
  const PAUSE = 120; // milliseconds without a key before a search starts

  const find = (id) => document.getElementById(id);
  let data = null; // the payload, read when the explorer is first opened
  let lowered = null; // its texts in lower case, made by the first search
  let state = null; // what the address says: the report and the filters
  let shown = []; // the numbers of the reports that pass the filters, in the order of the list
  let listed = ""; // the filters that `shown` and the list were made with

  // ---- Nodes -------------------------------------------------------------------------------

  function node(tag, className, ...children) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children);
    return made;
  }

  // Text of a report inside a sentence of ours: its direction must not reorder what surrounds it.
  function isolated(text) {
    const made = node("bdi", "", text);
    made.dir = "auto";
    return made;
  }

  const number = (value) => value.toLocaleString("en");
  const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

  // ---- The address -------------------------------------------------------------------------

  function readAddress() {
    const parameters = new URLSearchParams(location.hash.split("?").slice(1).join("?"));
    const known = (name, values) => {
      const chosen = new Set(parameters.getAll(name));
      return values.filter((value) => chosen.has(value));
    };
    return {
      report: parameters.get("report"),
      precision: known("precision", data.systems),
      kind: known("kind", data.kinds.map(([kind]) => kind)),
      flag: known("flag", data.flags),
      q: parameters.get("q") || "",
      sort: parameters.get("sort") === "order" ? "order" : "harm",
    };
  }

  function address(wanted) {
    const parameters = new URLSearchParams();
    if (wanted.report !== null) parameters.set("report", wanted.report);
    for (const name of ["precision", "kind", "flag"])
      for (const value of wanted[name]) parameters.append(name, value);
    if (wanted.q) parameters.set("q", wanted.q);
    if (wanted.sort !== "harm") parameters.set("sort", wanted.sort);
    const text = parameters.toString();
    return `#explorer${text ? `?${text}` : ""}`;
  }

  // Filters and steps from report to report replace the address: going back leaves the explorer.
  function go(changed) {
    const wanted = { ...state, ...changed };
    try {
      history.replaceState(null, "", address(wanted));
    } catch {
      // Safari refuses the address, not the step, to whoever leafs through a hundred in half a minute.
    }
    show(wanted);
  }

  // ---- Which reports -----------------------------------------------------------------------

  // The outputs that filters and harm look at: those of the chosen precisions, or of all but the
  // original, with which they are compared.
  function considered() {
    const chosen = data.systems.map((name, at) => (state.precision.includes(name) ? at : -1));
    const systems = chosen.filter((at) => at >= 0);
    if (systems.length) return systems;
    return data.systems.length > 1 ? data.systems.slice(1).map((_, at) => at + 1) : [0];
  }

  function passes(output) {
    if (state.kind.length && !output.changes.some((change) => state.kind.includes(change.kind)))
      return false;
    return !state.flag.length || output.flags.some((flag) => state.flag.includes(flag));
  }

  // Say for each text whether the search finds it; null when nothing is searched for.
  function found() {
    if (!state.q) return null;
    lowered ??= data.texts.map((entry) => entry.text.toLowerCase());
    const wanted = state.q.toLowerCase();
    return lowered.map((text) => text.includes(wanted));
  }

  function select() {
    const systems = considered();
    const hits = found();
    const wanted = state.q.toLowerCase();
    const worst = data.reports.map(({ outputs }) => Math.max(...systems.map((at) => outputs[at].harm)));
    const sum = data.reports.map(({ outputs }) => systems.reduce((total, at) => total + outputs[at].harm, 0));
    const searched = [...new Set([0, ...systems])];
    shown = [];
    data.reports.forEach((report, place) => {
      if (!systems.some((at) => passes(report.outputs[at]))) return;
      if (
        hits &&
        !hits[report.reference] &&
        !searched.some((at) => hits[report.outputs[at].text]) &&
        !report.id.toLowerCase().includes(wanted)
      )
        return;
      shown.push(place);
    });
    if (state.sort === "harm")
      shown.sort((a, b) => worst[b] - worst[a] || sum[b] - sum[a] || a - b);
  }

  // ---- Filters -----------------------------------------------------------------------------

  function chips(place, name, values, describe) {
    find(place).append(
      ...values.map((value) => {
        const box = node("input");
        box.type = "checkbox";
        box.name = name;
        box.value = value;
        const label = node("label", "chip", box, node("span", "", value, node("b")));
        label.title = describe(value);
        return label;
      }),
    );
  }

  // Write beside each kind and flag how many reports have it in the outputs that are looked at.
  function count() {
    const systems = considered();
    const counts = new Map();
    for (const { outputs } of data.reports) {
      const here = new Set();
      for (const at of systems) {
        for (const change of outputs[at].changes) here.add(`kind ${change.kind}`);
        for (const flag of outputs[at].flags) here.add(`flag ${flag}`);
      }
      for (const name of here) counts.set(name, (counts.get(name) || 0) + 1);
    }
    for (const box of document.querySelectorAll("#kinds input, #flags input")) {
      const many = counts.get(`${box.name} ${box.value}`) || 0;
      box.parentNode.querySelector("b").textContent = number(many);
      box.parentNode.classList.toggle("none", many === 0);
      box.setAttribute("aria-label", `${box.value}, ${plural(many, "report")}`);
    }
  }

  function showFilters() {
    for (const box of document.querySelectorAll("#filters input[type=checkbox]"))
      box.checked = state[box.name].includes(box.value);
    if (find("search").value !== state.q) find("search").value = state.q;
    find("sort").value = state.sort;
    const chosen = [...state.precision, ...state.kind, ...state.flag];
    find("chosen").textContent = chosen.length ? `(chosen: ${chosen.join(", ")})` : "";
    find("reset").disabled = !chosen.length && !state.q;
  }

  // ---- The list ----------------------------------------------------------------------------

  const pages = () => Math.max(1, Math.ceil(shown.length / PAGE));
  let first = -1; // place in `shown` of the first report of the page in the list

  // What the worst output of a report did, in a few words.
  function summary(report) {
    const systems = considered();
    const counts = new Map();
    for (const at of systems) {
      for (const { kind } of report.outputs[at].changes) counts.set(kind, (counts.get(kind) || 0) + 1);
      for (const flag of report.outputs[at].flags) counts.set(flag, (counts.get(flag) || 0) + 1);
    }
    const order = [...data.kinds.map(([kind]) => kind), ...data.flags];
    const words = order.filter((name) => counts.has(name)).map((name) => `${name} ${counts.get(name)}`);
    if (words.length) return words.join(" · ");
    const same = systems.every((at) => report.outputs[at].text === report.outputs[0].text);
    return same ? "same text" : "other words only";
  }

  function item(place) {
    const report = data.reports[place];
    const harm = Math.max(...considered().map((at) => report.outputs[at].harm));
    const link = node(
      "a",
      "",
      isolated(report.id),
      node("span", "harm", `harm ${number(harm)}`),
      node("span", "what", summary(report)),
    );
    link.href = address({ ...state, report: report.id });
    link.dataset.place = place;
    return node("li", "", link);
  }

  function showList(start) {
    first = start;
    find("list").replaceChildren(...shown.slice(start, start + PAGE).map(item));
    find("list").start = start + 1; // rows are numbered for screen readers
    find("pager").hidden = pages() === 1;
    find("page").textContent = `${number(start / PAGE + 1)} of ${number(pages())}`;
    find("page-before").disabled = start === 0;
    find("page-after").disabled = start + PAGE >= shown.length;
  }

  // Mark the shown report in the list, and move the list, but not the page, to where it is seen.
  function markCurrent(place) {
    const list = find("list");
    list.querySelector("[aria-current]")?.removeAttribute("aria-current");
    const link = list.querySelector(`[data-place="${place}"]`);
    if (!link) return;
    link.setAttribute("aria-current", "true");
    const row = link.parentNode;
    const above = row.offsetTop - list.offsetTop;
    if (above < list.scrollTop) list.scrollTop = above;
    else if (above + row.offsetHeight > list.scrollTop + list.clientHeight)
      list.scrollTop = above + row.offsetHeight - list.clientHeight;
  }

  // ---- Differences -------------------------------------------------------------------------

  // Return where the words, numbers and marks of `text` stand, as [start, end].
  function words(text) {
    const word = /\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{N}\p{M}_]+|[^\s\p{L}\p{N}\p{M}_]/gu; // 2.5 is one
    return [...text.matchAll(word)].map((match) => [
      match.index,
      match.index + match[0].length,
    ]);
  }

  // Return {added: [[start, end]…] in `after`, removed: [[place in `after`, text]…]}, by the longest
  // common subsequence of words. Texts too long for that are compared at both ends only.
  function difference(before, after) {
    const a = words(before);
    const b = words(after);
    const left = a.map(([start, end]) => before.slice(start, end));
    const right = b.map(([start, end]) => after.slice(start, end));
    let head = 0;
    while (head < a.length && head < b.length && left[head] === right[head]) head++;
    let tail = 0;
    while (
      tail < a.length - head &&
      tail < b.length - head &&
      left[a.length - 1 - tail] === right[b.length - 1 - tail]
    )
      tail++;
    const kept = joined(left.slice(head, a.length - tail), right.slice(head, b.length - tail));
    const steps = [...kept.map(([i, j]) => [i + head, j + head]), [a.length - tail, b.length - tail]];
    const added = [];
    const removed = [];
    let [i, j] = [head, head];
    for (const [nextI, nextJ] of steps) {
      if (nextI > i) {
        const place = j > 0 ? b[j - 1][1] : 0;
        removed.push([place, before.slice(a[i][0], a[nextI - 1][1])]);
      }
      if (nextJ > j) added.push([b[j][0], b[nextJ - 1][1]]);
      [i, j] = [nextI + 1, nextJ + 1];
    }
    return { added, removed };
  }

  // Return the pairs of places of words that both lists have, in their order. A mark alone between
  // two changes is no pair: a comma kept would only cut a changed sentence in pieces.
  function joined(left, right) {
    const pairs = common(left, right);
    const beside = ([i, j], [nextI, nextJ]) => nextI === i + 1 && nextJ === j + 1;
    return pairs.filter(
      (pair, at) =>
        /[\p{L}\p{N}]/u.test(left[pair[0]]) ||
        beside(pairs[at - 1] || [-1, -1], pair) ||
        beside(pair, pairs[at + 1] || [left.length, right.length]),
    );
  }

  // Return the pairs of places of a longest common subsequence of two lists of words.
  function common(left, right) {
    const columns = right.length + 1;
    if (left.length * right.length === 0 || left.length * right.length > CELLS) return [];
    const longest = new Uint16Array((left.length + 1) * columns);
    for (let i = left.length - 1; i >= 0; i--)
      for (let j = right.length - 1; j >= 0; j--)
        longest[i * columns + j] =
          left[i] === right[j]
            ? longest[(i + 1) * columns + j + 1] + 1
            : Math.max(longest[(i + 1) * columns + j], longest[i * columns + j + 1]);
    const pairs = [];
    for (let i = 0, j = 0; i < left.length && j < right.length; ) {
      if (left[i] === right[j]) pairs.push([i++, j++]);
      else if (longest[(i + 1) * columns + j] >= longest[i * columns + j + 1]) i++;
      else j++;
    }
    return pairs;
  }

  // ---- One report --------------------------------------------------------------------------

  // Return a paragraph with the text's entities and, given a text before it, what differs.
  function marked(entry, before) {
    const { text, spans } = entry;
    const { added, removed } = before === null ? { added: [], removed: [] } : difference(before, text);
    const cuts = new Set([0, text.length]);
    for (const [start, end] of [...spans, ...added]) cuts.add(start).add(end);
    for (const [place] of removed) cuts.add(place);
    const places = [...cuts].sort((a, b) => a - b);
    const paragraph = node("p", text.trim() ? "text" : "text blank");
    paragraph.dir = "auto";
    let [span, add, out] = [0, 0, 0];
    places.forEach((start, at) => {
      while (out < removed.length && removed[out][0] === start) {
        const lost = node("del", "", removed[out++][1]);
        const gone = start > 0 ? node("span", "gone", " ", lost) : node("span", "gone", lost, " ");
        gone.dir = "auto"; // so that the paragraph's direction is that of its own words
        paragraph.append(gone);
      }
      const end = places[at + 1];
      if (end === undefined) return;
      while (span < spans.length && spans[span][1] <= start) span++;
      while (add < added.length && added[add][1] <= start) add++;
      let piece = text.slice(start, end);
      if (span < spans.length && spans[span][0] <= start) {
        const status = spans[span][2];
        piece = node("span", `entity ${status}`, piece);
        piece.title = status;
      }
      if (add < added.length && added[add][0] <= start) piece = node("ins", "", piece);
      paragraph.append(piece);
    });
    return paragraph;
  }

  function card(className, name, facts, flags, ...children) {
    const title = node("h3", "", isolated(name));
    const header = node("header", "", title, ...facts.map((fact) => node("span", "", fact)));
    header.append(...flags.map((flag) => node("span", "flag", flag)));
    const made = node("article", `card ${className}`, header, ...children);
    made.setAttribute("aria-label", name);
    return made;
  }

  function changeItem(change) {
    const made = node("li", "", node("span", "kind", change.kind));
    made.firstChild.title = new Map(data.kinds).get(change.kind) || "";
    if (change.finding) made.append(" ", isolated(change.finding));
    made.append(node("span", "words", side(change.before), " → ", side(change.after)));
    return made;
  }

  function side(text) {
    return text ? isolated(text) : node("i", "", "nothing");
  }

  function signed(value) {
    const text = Math.abs(value).toFixed(3);
    if (Number(text) === 0) return "±0.000";
    return (value < 0 ? "−" : "+") + text;
  }

  function outputCard(report, at) {
    const output = report.outputs[at];
    const original = report.outputs[0];
    const entry = data.texts[output.text];
    const facts = [`F1 ${output.f1.toFixed(3)}`];
    const parts = [];
    if (at > 0) {
      facts[0] += ` (${signed(output.f1 - original.f1)})`;
      facts.push(`harm ${number(output.harm)}`);
      if (output.text === original.text) parts.push(node("p", "same", "The same text as the original's."));
      else if (!output.changes.length)
        parts.push(node("p", "same", "Other words, but no change of a kind that is looked for."));
    }
    if (output.changes.length)
      parts.push(
        node("h4", "", "Original → this output"),
        node("ul", "changes", ...output.changes.map(changeItem)),
      );
    const told = new Set(output.changes.map((change) => change.after));
    const phrases = output.unsupported.filter((phrase) => !told.has(phrase));
    if (phrases.length)
      parts.push(
        node("h4", "", "Speaks of an earlier examination that the input does not speak of"),
        node("ul", "changes", ...phrases.map((phrase) => node("li", "words", isolated(phrase)))),
      );
    const before = at > 0 ? data.texts[original.text].text : null;
    return card(
      at === 0 ? "original" : "",
      data.systems[at],
      facts,
      output.flags,
      marked(entry, before),
      ...parts,
    );
  }

  function showReport(place, position) {
    const title = find("detail-title");
    if (place === null) {
      title.textContent = "No report passes these filters";
      find("place").textContent = "";
      find("cards").replaceChildren();
    } else {
      const report = data.reports[place];
      title.replaceChildren("Report ", isolated(report.id));
      const where = position < 0 ? "not in the list" : `${number(position + 1)} of ${number(shown.length)}`;
      find("place").textContent = where;
      const systems = state.precision.length ? considered().filter((at) => at > 0) : data.systems.map((_, at) => at).slice(1);
      find("cards").replaceChildren(
        card("reference", "reference", [], [], marked(data.texts[report.reference], null)),
        ...[0, ...systems].map((at) => outputCard(report, at)),
      );
    }
    find("before").disabled = position <= 0;
    find("after").disabled = position + 1 >= shown.length;
  }

  // ---- Everything together -----------------------------------------------------------------

  // Where the report of the address stands: its number, and its place in the list or -1.
  function current() {
    const named = data.reports.findIndex((report) => report.id === state.report);
    const position = shown.indexOf(named);
    if (named >= 0) return [named, position];
    return shown.length ? [shown[0], 0] : [null, -1];
  }

  function show(wanted) {
    state = wanted;
    const filters = address({ ...state, report: null });
    if (filters !== listed) {
      select();
      count();
      showFilters();
      listed = filters;
      first = -1;
      const all = shown.length === data.reports.length;
      find("count").textContent = all
        ? plural(shown.length, "report")
        : `${number(shown.length)} of ${plural(data.reports.length, "report")}`;
    }
    const [place, position] = current();
    const start = Math.floor(Math.max(position, 0) / PAGE) * PAGE;
    if (start !== first) showList(start);
    showReport(place, position);
    markCurrent(place);
    document.querySelector(".top [data-view=explorer]").href = address(state); // to come back to it
  }

  function step(by) {
    const [, position] = current();
    const next = position < 0 ? 0 : position + by;
    if (next < 0 || next >= shown.length) return;
    go({ report: data.reports[shown[next]].id });
    find("announcement").textContent = `Report ${state.report}, ${find("place").textContent}`;
  }

  // A filter keeps the report that is shown, if it passes; else the first of the list is shown.
  function filter(changed) {
    const kept = state.report;
    go({ ...changed, report: null });
    if (shown.some((place) => data.reports[place].id === kept)) go({ report: kept });
  }

  function checked(name) {
    return [...document.querySelectorAll(`#filters input[name=${name}]:checked`)].map((box) => box.value);
  }

  function listen() {
    let timer = 0;
    const search = find("search");
    const searchNow = () => {
      clearTimeout(timer);
      if (search.value !== state.q) filter({ q: search.value });
    };
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(searchNow, PAUSE);
    });
    find("filters").addEventListener("submit", (event) => {
      event.preventDefault();
      searchNow();
    });
    find("choices").addEventListener("change", (event) =>
      filter({ [event.target.name]: checked(event.target.name) }),
    );
    find("sort").addEventListener("change", (event) => go({ sort: event.target.value, report: null }));
    find("reset").addEventListener("click", () => {
      clearTimeout(timer);
      search.value = "";
      filter({ precision: [], kind: [], flag: [], q: "" });
      search.focus();
    });
    find("before").addEventListener("click", () => step(-1));
    find("after").addEventListener("click", () => step(1));
    find("page-before").addEventListener("click", () => turn(-PAGE));
    find("page-after").addEventListener("click", () => turn(PAGE));
    find("list").addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      go({ report: data.reports[Number(link.dataset.place)].id });
      if (matchMedia("(max-width: 60rem)").matches) find("detail-title").focus();
    });
    find("show-entities").addEventListener("change", (event) =>
      find("cards").classList.toggle("plain", !event.target.checked),
    );
    find("show-differences").addEventListener("change", (event) =>
      find("cards").classList.toggle("undiffed", !event.target.checked),
    );
    document.addEventListener("keydown", press);
  }

  function turn(by) {
    const start = first + by;
    if (start < 0 || start >= shown.length) return;
    go({ report: data.reports[shown[start]].id });
  }

  function press(event) {
    if (find("explorer").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = find("search");
    if (event.target === search) {
      if (event.key === "Escape") search.blur();
      return;
    }
    if (!find("use-keys").checked || event.target.matches("select")) return;
    const inList = find("list").contains(event.target);
    const steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };
    if (inList) Object.assign(steps, { ArrowDown: 1, ArrowUp: -1 });
    if (event.key in steps) {
      step(steps[event.key]);
      if (inList) find("list").querySelector("[aria-current]")?.focus({ preventScroll: true });
    } else if (event.key === "/") {
      search.focus();
      search.select();
    } else return;
    event.preventDefault();
  }

  function open() {
    data = JSON.parse(find("payload").textContent);
    const descriptions = new Map(data.kinds);
    chips("precisions", "precision", data.systems, () => "");
    chips("kinds", "kind", data.kinds.map(([kind]) => kind), (kind) => descriptions.get(kind));
    chips("flags", "flag", data.flags, () => "");
    const most = data.kinds.length;
    find("most").textContent = most;
    find("weights").append(
      ...data.kinds.map(([kind, description], at) =>
        node("div", "", node("dt", "", `${kind}, ${most - at}`), node("dd", "", description)),
      ),
    );
    if (matchMedia("(max-width: 60rem)").matches) find("choices").open = false;
    find("explorer-app").hidden = false;
    listen();
  }

  // #explorer… shows the explorer, every other address the report.
  function route() {
    const explorer = /^#explorer(\?|$)/.test(location.hash);
    find("report").hidden = explorer;
    find("explorer").hidden = !explorer;
    for (const link of document.querySelectorAll(".top nav a")) {
      if ((link.dataset.view === "explorer") === explorer) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (!explorer) {
      document.getElementById(location.hash.slice(1))?.scrollIntoView();
      return;
    }
    if (data === null) open();
    show(readAddress());
  }

  // What is folded away is printed too.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("#report details:not([open])")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
  // The link past the header must not change the address, which would leave the explorer.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    find(find("explorer").hidden ? "content" : "detail-title").focus();
  });
  addEventListener("hashchange", route);
  route();
})();
