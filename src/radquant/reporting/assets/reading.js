// The blinded reading of report.html: who reads, and the desk with one text and its rating.
// No node says which system wrote a text: the names stay in `tasks`.
(() => {
  const { find, node, number, plural, plain, readings } = radquant;
  const COUNT = 50; // reports to read, unless the reader wants another number
  const DEFAULTS = { acceptability: null, harm: null, errors: [], comment: "", seconds: null };
  const PAUSE = 400; // milliseconds without a key before a comment is stored

  let data = null;
  let reading = null; // of the reader at the desk
  let tasks = []; // [report: [text: {report, systems, text}…]…], in the reader's order
  let flat = []; // the same without the reports: [[report's place, text's place, task]…]
  let at = 0; // place in `flat` of the text that is shown
  let seen = 0; // seconds for which the text was in view since its rating was last changed
  let since = null; // up to when they are counted; null while the page is not in view
  let stored = true; // whether the browser keeps what is entered
  let waiting = null; // a file's reading that differs from the browser's, until the reader decides
  let timer = 0;

  const shown = (id, visible) => (find(id).hidden = !visible);
  const say = (sentence) => (find("reading-message").textContent = sentence);
  const task = () => flat[at][2];
  const rated = (one) => readings.complete(readings.ratingOf(reading, one));
  const letter = (place) => String.fromCodePoint(65 + place);

  // ---- The start ---------------------------------------------------------------------------

  function listKept() {
    let names = [];
    try {
      names = readings.readers(data);
    } catch {
      warn("This browser stores nothing for a page that is opened from a file: export before you close it.");
    }
    find("kept").replaceChildren(...(names.length ? names.map(keptItem) : [node("li", "same", "No reading yet.")]));
  }

  function keptItem(name) {
    const go = node("button", "", "Go on");
    const remove = node("button", "", "Delete");
    go.type = remove.type = "button";
    go.setAttribute("aria-label", `Go on with the reading of ${name}`);
    remove.setAttribute("aria-label", `Delete the reading of ${name}`);
    go.addEventListener("click", () => attempt(() => sit(readings.kept(data, name))));
    remove.addEventListener("click", () => {
      if (remove.textContent === "Delete") {
        remove.textContent = "Really delete?";
        remove.setAttribute("aria-label", `Really delete the reading of ${name}? What is not exported is lost`);
        return;
      }
      readings.forget(data, name);
      listKept();
    });
    return node("li", "", radquant.isolated(name), go, remove);
  }

  // Do what may fail with a sentence for the reader.
  async function attempt(action) {
    say("");
    try {
      await action();
    } catch (error) {
      say(error.message);
    }
  }

  function choices() {
    const count = find("reading-count");
    if (!count.reportValidity()) throw new Error(`Choose from 1 to ${number(data.reports.length)} reports.`);
    return { count: Number(count.value), reference: find("reading-reference").value };
  }

  function beginNew() {
    // Spaces of all kinds, and what is not seen, are one space: names are compared and printed.
    const name = find("reader").value.replace(/[\p{C}\p{Z}]+/gu, " ").trim();
    if (!name) throw new Error("Enter your name first.");
    const { count, reference } = choices();
    const asked = readings.begin(data, name, count, reference);
    const here = keptOf(name);
    if (here === null) return sit(asked);
    readings.merge(data, here, asked, "");
    sit(here);
  }

  // The reading that the browser has of a reader; null where it has, or keeps, none.
  function keptOf(name) {
    try {
      localStorage.length; // throws where there is no storage
    } catch {
      return null;
    }
    return readings.kept(data, name);
  }

  async function takeFile(file) {
    const other = await readings.readFile(data, file);
    const here = keptOf(other.reader);
    const differ = here ? readings.merge(data, here, other, "") : 0;
    if (!differ) return sit(here ?? other);
    waiting = { here, other };
    shown("conflict", true);
    say(
      `${number(differ)} of the file's ratings differ from those of ${other.reader} in this browser. ` +
        "Nothing was changed; whose are right? Ratings that only one of the two has are kept either way.",
    );
    find("take-kept").focus();
  }

  function settle(prefer) {
    const { here, other } = waiting;
    readings.merge(data, here, other, prefer);
    sit(here);
  }

  // ---- The desk ----------------------------------------------------------------------------

  function sit(taken) {
    reading = taken;
    waiting = null;
    tasks = readings.tasks(data, reading);
    flat = tasks.flatMap((texts, report) => texts.map((one, text) => [report, text, one]));
    shown("conflict", false);
    shown("reading-start", false);
    shown("desk", true);
    say("");
    const unrated = flat.findIndex(([, , one]) => !rated(one));
    save();
    showText(unrated < 0 ? 0 : unrated);
  }

  function showText(place) {
    store();
    at = Math.min(Math.max(place, 0), flat.length - 1);
    const [report, text, one] = flat[at];
    find("reading-place").textContent =
      `Report ${number(report + 1)} of ${number(tasks.length)}, text ${letter(text)} of ${number(tasks[report].length)}`;
    const parts = radquant.given(data, one.report);
    if (reading.reference === "shown")
      parts.push(node("h3", "", "The radiologist's text"), plain(data.texts[one.report.reference].text));
    find("reading-given").replaceChildren(
      node("header", "", node("h3", "", "Input"), node("span", "", radquant.isolated(one.report.id))),
      ...parts,
    );
    find("reading-text").replaceChildren(node("h3", "", `Text ${letter(text)}: ${data.target}`), plain(one.text));
    showRating();
    [seen, since] = [0, document.visibilityState === "visible" ? performance.now() : null];
    scrollTo(0, 0);
    find("reading-place").focus({ preventScroll: true });
  }

  function showRating() {
    const rating = readings.ratingOf(reading, task()) ?? DEFAULTS;
    for (const box of find("rating").querySelectorAll(".chips input")) {
      if (box.name === "errors") box.checked = rating.errors.includes(box.value);
      else box.checked = String(rating[box.name]) === box.value;
    }
    find("comment").value = rating.comment;
    showProgress();
  }

  function showProgress() {
    const done = flat.filter(([, , one]) => rated(one)).length;
    const all = done === flat.length;
    find("reading-progress").textContent = all
      ? `All ${plural(done, "text")} rated: export the file and hand it in`
      : `${number(done)} of ${plural(flat.length, "text")} rated`;
    find("reading-before").disabled = at === 0;
    find("reading-after").disabled = at === flat.length - 1;
    find("unrated").disabled = all;
    if (all) reading.finished ??= new Date().toISOString();
    else reading.finished = null;
  }

  // Take what the form says as the rating of the text that is shown.
  function enter() {
    const form = new FormData(find("rating"));
    const before = readings.ratingOf(reading, task()) ?? DEFAULTS;
    const acceptability = form.get("acceptability");
    look();
    readings.rate(reading, task(), {
      acceptability: acceptability === null ? null : Number(acceptability),
      harm: form.get("harm"),
      errors: form.getAll("errors"),
      comment: find("comment").value,
      seconds: Math.round(10 * ((before.seconds ?? 0) + seen)) / 10,
    });
    seen = 0;
    showProgress();
  }

  // Add up for how long the text has been in view.
  function look() {
    const now = performance.now();
    if (since === null) return;
    seen += (now - since) / 1000;
    since = now;
  }

  function go(by) {
    if (at + by < 0 || at + by >= flat.length) say(by > 0 ? "This is the last text." : "");
    else showText(at + by);
  }

  // ---- Keeping and exporting -----------------------------------------------------------------

  function warn(sentence) {
    stored = false;
    find("reading-warning").textContent = sentence;
    shown("reading-warning", true);
  }

  function save() {
    clearTimeout(timer);
    timer = 0;
    if (!stored) return;
    try {
      readings.keep(data, reading);
    } catch {
      warn("This browser stores nothing more for this page: export before you close it.");
    }
  }

  const store = () => timer && save();

  function download() {
    save();
    const written = JSON.stringify(readings.write(data, reading, true), null, 1);
    const name = `reading-${reading.reader.replace(/[^\p{L}\p{N}]+/gu, "-")}-${data.run.slice(0, 8)}.json`;
    radquant.save(name, written, "application/json");
  }

  // ---- Everything together -----------------------------------------------------------------

  function chips(name, type, values) {
    find(name).append(
      ...values.map(([value, text]) => {
        const box = node("input");
        Object.assign(box, { type, name, value });
        return node("label", "chip", box, node("span", "", text));
      }),
    );
  }

  function press(event) {
    if (find("reading").hidden || find("desk").hidden) return;
    if (event.ctrlKey || event.metaKey || event.altKey || !find("rating-keys").checked) return;
    const { target, key } = event;
    if (target.matches("textarea")) return;
    const choices = [...find("rating").querySelectorAll("input[type=radio]")]; // acceptability, then harm
    const steps = target.matches("input[type=radio]") ? {} : { ArrowRight: 1, ArrowLeft: -1 };
    if (/^[1-9]$/.test(key)) choices[Number(key) - 1]?.click();
    else if (key in steps) go(steps[key]);
    else if (key === "Enter" && !target.matches("button, a, input, summary")) go(1);
    else return;
    event.preventDefault();
  }

  function listen() {
    find("begin").addEventListener("submit", (event) => {
      event.preventDefault();
      attempt(beginNew);
    });
    find("reading-file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      shown("conflict", false);
      if (file) attempt(() => takeFile(file));
      event.target.value = ""; // so that the same file can be chosen again
    });
    find("take-kept").addEventListener("click", () => attempt(() => settle("kept")));
    find("take-file").addEventListener("click", () => attempt(() => settle("file")));
    find("rating").addEventListener("submit", (event) => {
      event.preventDefault();
      go(1);
    });
    find("rating").addEventListener("input", ({ target }) => {
      if (target.id === "rating-keys") return;
      enter();
      if (target.id === "comment") {
        clearTimeout(timer);
        timer = setTimeout(save, PAUSE);
      } else save();
    });
    find("reading-before").addEventListener("click", () => go(-1));
    find("reading-after").addEventListener("click", () => go(1));
    find("unrated").addEventListener("click", () => showText(flat.findIndex(([, , one]) => !rated(one))));
    find("reading-export").addEventListener("click", download);
    find("reading-leave").addEventListener("click", pause);
    find("save-copy")?.addEventListener("click", () =>
      attempt(() => {
        const copy = radquant.readersCopy(data, choices());
        radquant.save(`reading-${data.run.slice(0, 8)}.html`, copy, "text/html");
      }),
    );
    document.addEventListener("keydown", press);
    document.addEventListener("visibilitychange", () => {
      if (!reading) return;
      look();
      store();
      since = document.visibilityState === "visible" ? performance.now() : null;
    });
    addEventListener("pagehide", store);
    addEventListener("beforeunload", (event) => {
      if (reading && !stored) event.preventDefault(); // the browser asks
    });
    // Another window with the same reading would be overwritten by the next rating.
    addEventListener("storage", (event) => {
      if (reading && event.key === readings.place(data, reading.reader))
        warn("This reading was changed in another window: export here, close one of the two, and reload.");
    });
  }

  function pause() {
    store();
    reading = null;
    shown("desk", false);
    shown("reading-start", true);
    listKept();
    find("reading-title").focus();
  }

  function open() {
    data = radquant.load();
    const { acceptability, harm, errors } = data.scales;
    chips("acceptability", "radio", acceptability.map((meaning, place) => [place + 1, `${place + 1} ${meaning}`]));
    chips("harm", "radio", harm.map(([name]) => [name, name]));
    chips("errors", "checkbox", errors.map(([name]) => [name, name]));
    for (const [name, meaning] of [...harm, ...errors])
      find("meanings").append(node("dt", "", name), node("dd", "", meaning));
    find("reading-count").max = data.reports.length;
    find("reading-count").value = data.choices?.count ?? Math.min(COUNT, data.reports.length);
    find("reading-reference").value = data.choices?.reference ?? "hidden";
    for (const id of ["reading-count", "reading-reference"]) find(id).disabled = Boolean(data.choices);
    find("reading-images").textContent = radquant.aboutImages(data);
    radquant.warnOfImages("desk-images", "copy-images");
    find("reading-app").hidden = false;
    listen();
  }

  Object.assign(radquant, {
    showReading() {
      if (data === null) open();
      if (!reading) listKept();
    },
    // Whoever goes elsewhere in the page sees the names; what was entered is kept.
    closeReading() {
      if (reading) pause();
    },
  });
})();
