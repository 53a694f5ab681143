// The explorer of report.html: filters, list and one report.
// What is shown follows from the address alone:
// #explorer?report=…&precision=…&kind=…&flag=…&finding=…&status=…&q=…&sort=…
(() => {
  const { find, node, isolated, number, plural, card, outputCard, marked } = radquant;
  const PAGE = 50; // reports in the list at a time
  const PAUSE = 120; // milliseconds without a key before a search starts

  let data = null; // the payload, read when the explorer is first opened
  let lowered = null; // its texts in lower case, made by the first search
  let state = null; // what the address says: the report and the filters
  let shown = []; // the numbers of the reports that pass the filters, in the order of the list
  let listed = ""; // the filters that `shown` and the list were made with

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
      finding: parameters.get("finding") || "",
      status: known("status", radquant.STATUSES)[0] || "",
      q: parameters.get("q") || "",
      sort: parameters.get("sort") === "order" ? "order" : "harm",
    };
  }

  function address(wanted) {
    const parameters = new URLSearchParams();
    if (wanted.report !== null) parameters.set("report", wanted.report);
    for (const name of ["precision", "kind", "flag"])
      for (const value of wanted[name]) parameters.append(name, value);
    for (const name of ["finding", "status", "q"])
      if (wanted[name]) parameters.set(name, wanted[name]);
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

  function passes(report, output) {
    if (state.finding && !radquant.stands(data, report, output, state.finding, state.status)) return false;
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
      if (!systems.some((at) => passes(report, report.outputs[at]))) return;
      if (
        hits &&
        !hits[report.reference] &&
        !report.inputs.some((text) => hits[text]) &&
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
    find("finding").value = state.finding;
    find("status").value = state.status;
    find("status").disabled = !state.finding;
    const chosen = [...state.precision, ...state.kind, ...state.flag];
    if (state.finding) chosen.push([state.finding, state.status].filter(Boolean).join(" "));
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

  function showReport(place, position) {
    const title = find("detail-title");
    if (place === null) {
      title.textContent = "No report passes these filters";
      find("place").textContent = "";
      find("given-parts").replaceChildren();
      find("cards").replaceChildren();
    } else {
      const report = data.reports[place];
      title.replaceChildren("Report ", isolated(report.id));
      const where = position < 0 ? "not in the list" : `${number(position + 1)} of ${number(shown.length)}`;
      find("place").textContent = where;
      const systems = state.precision.length ? considered().filter((at) => at > 0) : data.systems.map((_, at) => at).slice(1);
      find("given-parts").replaceChildren(...radquant.given(data, report));
      find("cards").replaceChildren(
        card("reference", "reference", [], [], marked(data.texts[report.reference], null)),
        ...[0, ...systems].map((at) => outputCard(data, report, at)),
      );
    }
    find("given").hidden = !find("given-parts").children.length;
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
      if (!find("explorer").hidden && search.value !== state.q) filter({ q: search.value });
    };
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(searchNow, PAUSE);
    });
    find("filters").addEventListener("submit", (event) => {
      event.preventDefault();
      searchNow();
    });
    search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") searchNow(); // a form with a second text submits nothing by itself
    });
    find("choices").addEventListener("change", ({ target }) => {
      if (target.type === "checkbox") filter({ [target.name]: checked(target.name) });
      else if (target.id === "status") filter({ status: target.value });
      else filter({ finding: target.value.trim().toLowerCase() });
    });
    find("sort").addEventListener("change", (event) => go({ sort: event.target.value, report: null }));
    find("reset").addEventListener("click", () => {
      clearTimeout(timer);
      search.value = "";
      filter({ precision: [], kind: [], flag: [], finding: "", status: "", q: "" });
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
    if (!find("use-keys").checked || event.target.matches("select, #finding")) return;
    const inList = find("list").contains(event.target);
    const steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };
    if (inList) Object.assign(steps, { ArrowDown: 1, ArrowUp: -1 });
    if (event.key in steps) {
      step(steps[event.key]);
      if (inList) find("list").querySelector("[aria-current]")?.focus({ preventScroll: true });
    } else if (event.key === "x") {
      const image = find("given-parts").querySelector(".xray");
      image?.focus();
      image?.click();
    } else if (event.key === "/") {
      search.focus();
      search.select();
    } else return;
    event.preventDefault();
  }

  function open() {
    data = radquant.load();
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
    radquant.offerFindings(data);
    find("about-images").textContent = radquant.aboutImages(data);
    radquant.warnOfImages("explorer-images");
    if (matchMedia("(max-width: 60rem)").matches) find("choices").open = false;
    find("explorer-app").hidden = false;
    listen();
  }

  radquant.showExplorer = () => {
    if (data === null) open();
    show(readAddress());
  };
})();
