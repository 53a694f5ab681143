// The explorer of report.html: its address, the list, and one report.
// What is shown follows from the address alone:
// #explorer?report=…&precision=…&kind=…&flag=…&finding=…&status=…&q=…&sort=…
(() => {
  const { find, node, isolated, number, plural, card, outputCard, marked, folded, isolatedHits } = radquant;
  const PAGE = 50; // reports in the list at a time
  const PAUSE = 120; // milliseconds without a key before a search starts
  const LONGEST_ID = 200; // characters of an id that no report has

  let data = null; // the payload, read when the explorer is first opened
  let index = null; // what is looked up in it for each choice
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

  // ---- The list ----------------------------------------------------------------------------

  const considered = () => radquant.considered(data, state);
  const wanted = () => folded(state.q);
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
    // A line ends between two kinds, never inside of one.
    if (words.length) return words.map((each) => each.replaceAll(" ", "\u00a0")).join("\u00a0· ");
    const same = systems.every((at) => report.outputs[at].text === report.outputs[0].text);
    return same ? "same text" : "other words only";
  }

  function item(place) {
    const report = data.reports[place];
    const harm = Math.max(...considered().map((at) => report.outputs[at].harm));
    const link = node(
      "a",
      "",
      isolatedHits(report.id, wanted()),
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

  // The systems whose outputs stand beside the reference: the original, and what is looked at.
  const besides = () => [0, ...considered().filter((at) => at > 0)];

  function showReport(place, position) {
    if (place === null) showNone();
    else showOne(data.reports[place], position);
    find("given").hidden = place === null || !find("given-parts").children.length;
    find("before").disabled = position <= 0;
    find("after").disabled = position + 1 >= shown.length;
  }

  function showOne(report, position) {
    find("detail-title").replaceChildren("Report ", isolatedHits(report.id, wanted()));
    find("place").textContent =
      position < 0 ? "not among the reports shown" : `${number(position + 1)} of ${number(shown.length)}`;
    find("detail-note").textContent = "";
    find("given-parts").replaceChildren(
      ...radquant.given(data, report, wanted()),
      ...radquant.prompted(data, report),
    );
    find("cards").replaceChildren(
      card("reference", "reference", [], [], marked(data.texts[report.reference], null, wanted())),
      ...besides().map((at) => outputCard(data, report, at, wanted())),
    );
  }

  // Say why there is no report to be seen.
  function showNone() {
    const unknown = state.report !== null;
    const title = find("detail-title");
    if (unknown) title.replaceChildren("No report ", isolated(state.report.slice(0, LONGEST_ID)));
    else title.textContent = "No report passes these filters";
    find("place").textContent = "";
    find("detail-note").textContent = unknown
      ? `This file has no report of this id among its ${number(data.reports.length)}. The link may be of another ` +
        "run, or the id mistyped: search for a part of it, or choose a report from the list."
      : "Take a filter back, search for less, or clear the filters.";
    find("given-parts").replaceChildren();
    find("cards").replaceChildren();
  }

  // ---- Everything together -----------------------------------------------------------------

  // Where the report of the address stands: its number, or null if there is none of this id, and its
  // place in the list or -1. Without an id it is the first of the list.
  function current() {
    if (state.report === null) return shown.length ? [shown[0], 0] : [null, -1];
    const named = data.reports.findIndex((report) => report.id === state.report);
    return named < 0 ? [null, -1] : [named, shown.indexOf(named)];
  }

  function show(wanted) {
    state = wanted;
    const filters = address({ ...state, report: null });
    if (filters !== listed) {
      const selected = radquant.select(data, index, state);
      shown = selected.shown;
      radquant.filters.show(data, index, state, selected.counts);
      listed = filters;
      first = -1;
      const all = shown.length === data.reports.length;
      find("count").textContent = all
        ? plural(shown.length, "report")
        : `${number(shown.length)} of ${plural(data.reports.length, "report")}`;
      find("export").disabled = !shown.length;
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
      if (target.name === "finding") filter({ finding: target.checked ? target.value : "" });
      else if (target.type === "checkbox") filter({ [target.name]: checked(target.name) });
      else if (target.id === "status") filter({ status: target.value });
    });
    find("finding").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      const finding = radquant.filters.typed();
      if (finding === null) return;
      find("finding").value = "";
      filter({ finding });
    });
    find("export").addEventListener("click", () => {
      const file = radquant.exported(data, shown, besides());
      radquant.save(`reports-${data.run}.csv`, file, "text/csv");
      find("announcement").textContent = `${plural(shown.length, "report")} exported`;
    });
    find("sort").addEventListener("change", (event) => go({ sort: event.target.value, report: null }));
    find("reset").addEventListener("click", () => {
      clearTimeout(timer);
      search.value = find("finding").value = "";
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

  function weight(name, meaning) {
    return node("div", "", node("dt", "", `${name} `, node("b", "", data.weights[name])), node("dd", "", meaning));
  }

  function open() {
    data = radquant.load();
    index = radquant.prepare(data);
    radquant.filters.build(data);
    find("weights").append(
      ...data.kinds.map(([kind, meaning]) => weight(kind, meaning)),
      ...data.flags.map((flag) => weight(flag, "an output at fault by itself")),
    );
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
