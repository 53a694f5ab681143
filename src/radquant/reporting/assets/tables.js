// The report's tables: heads that say what they mean and sort their column, and a shadow on the side
// on which a table goes on. Without this script they are plain tables.
(() => {
  const { find, node } = radquant;
  const report = find("report");
  const tip = find("tip");
  const GAP = 8; // pixels between the explanation and the window's edge
  const BYTES = { kB: 1e3, MB: 1e6, GB: 1e9 };
  let told = null; // the head whose meaning is shown

  // What a cell is sorted by: the share where it holds one, else its first number. Null sorts last.
  function value(cell) {
    const text = cell.textContent.trim().replaceAll("\u2212", "-").replaceAll(",", "");
    const share = text.match(/: (\d+(?:\.\d+)?) %/);
    if (share) return Number(share[1]);
    const found = text.match(/^[<+]?(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: (kB|MB|GB))?/);
    return found && Number(found[1]) * (BYTES[found[2]] ?? 1);
  }

  function compare(one, other, isNumber) {
    if (!isNumber) return one.textContent.localeCompare(other.textContent, "en", { numeric: true });
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return null;
    return a - b;
  }

  // A column goes up, then down, then back to the order of the report.
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  function sort(head) {
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((one, other) => one.dataset.place - other.dataset.place);
    const state = NEXT[head.getAttribute("aria-sort") ?? "none"];
    for (const each of head.parentElement.cells) each.removeAttribute("aria-sort");
    if (state !== "none") {
      const [at, way] = [head.cellIndex, state === "ascending" ? 1 : -1];
      const isNumber = head.classList.contains("number");
      const known = (row) => !isNumber || value(row.cells[at]) !== null;
      // A row about the whole table, whose head is emphasised, stays below it.
      const last = (row) => (row.cells[0].querySelector("em") ? 2 : known(row) ? 0 : 1);
      rows.sort((one, other) => last(one) - last(other) || way * compare(one.cells[at], other.cells[at], isNumber));
      head.setAttribute("aria-sort", state);
    }
    body.append(...rows);
  }

  // Put the explanation below its head, inside of the window.
  function place() {
    const { left, top, bottom } = told.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - GAP;
    tip.style.left = `${Math.max(GAP, Math.min(left, room))}px`;
    const below = bottom + tip.offsetHeight < innerHeight;
    tip.style.top = `${below ? bottom : top - tip.offsetHeight}px`;
  }

  function show(button) {
    const about = find(button.getAttribute("aria-describedby") ?? "");
    if (!about) return;
    told = button;
    tip.textContent = about.textContent;
    tip.hidden = false;
    place();
  }

  function hide() {
    told = null;
    tip.hidden = true;
  }

  const headOf = (target) => (target instanceof Element ? target.closest("thead button") : null);

  function dress(table) {
    if (!table.tBodies[0]) return;
    [...table.tBodies[0].rows].forEach((row, number) => (row.dataset.place = number));
    for (const head of table.tHead.rows[0].cells) {
      const button = node("button", "", ...head.childNodes);
      button.type = "button";
      if (head.dataset.about) button.setAttribute("aria-describedby", head.dataset.about);
      head.append(button);
    }
  }

  // Say on which sides of a box there is more to see.
  function mark(box) {
    box.classList.toggle("more-before", box.scrollLeft > 1);
    box.classList.toggle("more-after", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  }

  const sized = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
  for (const box of report.querySelectorAll(".scroll")) {
    dress(box.querySelector("table"));
    box.addEventListener("scroll", () => mark(box), { passive: true });
    sized.observe(box);
  }
  report.addEventListener("click", (event) => {
    const button = headOf(event.target);
    if (button) sort(button.parentElement);
  });
  report.addEventListener("focusin", (event) => {
    if (headOf(event.target)) show(event.target);
    else hide();
  });
  report.addEventListener("focusout", hide);
  document.addEventListener("pointerover", (event) => {
    const button = headOf(event.target);
    if (button) show(button);
    else if (told && event.target !== tip && told !== document.activeElement) hide();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && told) hide();
  });
  addEventListener("scroll", () => told && place(), { capture: true, passive: true });
})();
