// The ratings of a blinded reading: in which order, where they are kept, how they leave and come back.
// Nothing here touches the document. docs/reading.md describes the exported file.
(() => {
  const { plural } = radquant;
  const PREFIX = "radquant reading";
  const REFERENCE = "reference";
  const MODES = ["hidden", "shown", "blinded"];
  const LONGEST_NAME = 100;
  const LONGEST_COMMENT = 5000;
  const MOST_BYTES = 50_000_000; // of an imported file

  const fail = (sentence) => {
    throw new Error(sentence);
  };

  // ---- Order -------------------------------------------------------------------------------

  // Return 32 bits of the parts: FNV-1a of their characters, then MurmurHash3's last mixing.
  function hash(...parts) {
    let value = 0x811c9dc5;
    for (const character of parts.join("\0"))
      value = Math.imul(value ^ character.codePointAt(0), 0x01000193);
    value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
    value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
    return (value ^ (value >>> 16)) >>> 0;
  }

  // Return `items` in an order that the parts which `name` gives of each decide.
  function shuffled(items, seed, name) {
    const places = new Map(items.map((item) => [item, hash(seed, ...name(item))]));
    return [...items].sort((a, b) => places.get(a) - places.get(b));
  }

  const systemsOf = (data, mode) => (mode === "blinded" ? [...data.systems, REFERENCE] : [...data.systems]);

  // Return what is to be rated: [{report, systems, text}…], in the reader's order. Systems whose texts
  // of a report are the same have one place, and one letter there.
  function tasks(data, reading) {
    const systems = systemsOf(data, reading.reference);
    const drawn = data.order.slice(0, reading.count).map((place) => data.reports[place]);
    return shuffled(drawn, reading.seed, (report) => [report.id]).map((report) => {
      const groups = new Map();
      for (const system of systems) {
        const at = data.systems.indexOf(system);
        const text = data.texts[at < 0 ? report.reference : report.outputs[at].text].text;
        const same = text.trim();
        if (!groups.has(same)) groups.set(same, { report, systems: [], text });
        groups.get(same).systems.push(system);
      }
      return shuffled([...groups.values()], reading.seed, (task) => [report.id, task.text.trim()]);
    });
  }

  // ---- A reading ---------------------------------------------------------------------------

  function begin(data, reader, count, reference) {
    const seed = hash(data.run, reader);
    const created = new Date().toISOString();
    return { reader, seed, created, finished: null, count, reference, ratings: new Map() };
  }

  const keyOf = (report, system) => JSON.stringify([report, system]);
  const ratingOf = (reading, task) => reading.ratings.get(keyOf(task.report.id, task.systems[0]));
  const complete = (rating) => Boolean(rating?.acceptability && rating.harm);

  function rate(reading, task, rating) {
    for (const system of task.systems) reading.ratings.set(keyOf(task.report.id, system), rating);
  }

  // Return a reading as a file: `whole` leaves out what is not completely rated.
  function write(data, reading, whole) {
    const { ratings, ...head } = reading;
    const systems = systemsOf(data, reading.reference);
    const rows = [];
    for (const report of data.reports)
      for (const system of systems) {
        const rating = ratings.get(keyOf(report.id, system));
        if (rating && (complete(rating) || !whole)) rows.push({ report: report.id, system, ...rating });
      }
    return { format: data.scales.format, run: data.run, ...head, systems, ratings: rows };
  }

  // ---- Reading what was written --------------------------------------------------------------

  const isText = (value, longest) => typeof value === "string" && value.length <= longest;
  const isWhole = (value, low, high) => Number.isInteger(value) && value >= low && value <= high;
  const isTime = (value) => isText(value, 40) && !Number.isNaN(Date.parse(value));

  // Return the reading in `written`, or fail with a sentence that names `file` and what is wrong.
  function read(data, written, file, whole = true) {
    const wrong = (what) => fail(`${file} cannot be used: ${what}.`);
    const head = written !== null && typeof written === "object" ? written : {};
    if (head.format !== data.scales.format)
      wrong(`it is no reading of format ${data.scales.format}; choose a file that this page exported`);
    if (head.run !== data.run)
      wrong(`it is a reading of run ${String(head.run).slice(0, 16)}, and this page is of run ${data.run}; open the report.html of that run`);
    const { reader, seed, created, finished, count, reference } = head;
    if (!isText(reader, LONGEST_NAME) || reader !== reader.trim() || !reader)
      wrong(`"reader" is no name of 1 to ${LONGEST_NAME} characters`);
    if (!isWhole(seed, 0, 2 ** 32 - 1)) wrong('"seed" is no whole number from 0 to 4294967295');
    if (!isTime(created)) wrong('"created" is no time');
    if (finished !== null && !isTime(finished)) wrong('"finished" is neither a time nor null');
    if (!isWhole(count, 1, data.reports.length)) wrong(`"count" is no number from 1 to ${data.reports.length}`);
    if (!MODES.includes(reference)) wrong(`"reference" is none of ${MODES.join(", ")}`);
    const systems = systemsOf(data, reference);
    if (JSON.stringify(head.systems) !== JSON.stringify(systems)) wrong('"systems" are not those of the run');
    if (!Array.isArray(head.ratings)) wrong('"ratings" is no list');
    const reading = { reader, seed, created, finished, count, reference, ratings: new Map() };
    readRatings(data, reading, head.ratings, systems, whole, wrong);
    return reading;
  }

  function readRatings(data, reading, rows, systems, whole, wrong) {
    const known = new Set(data.order.slice(0, reading.count).map((place) => data.reports[place].id));
    rows.forEach((row, at) => {
      const bad = (what) => wrong(`in rating ${at + 1}, ${what}`);
      if (row === null || typeof row !== "object") bad("there are no values");
      if (!known.has(row.report)) bad("the report is none of those to be read");
      if (!systems.includes(row.system)) bad("the system is none of the run");
      const key = keyOf(row.report, row.system);
      if (reading.ratings.has(key)) bad("report and system are rated a second time");
      reading.ratings.set(key, readRating(data, row, whole, bad));
    });
    for (const task of tasks(data, reading).flat()) {
      const [first, ...others] = task.systems.map((system) => reading.ratings.get(keyOf(task.report.id, system)));
      if (others.some((rating) => !alike(rating, first)))
        wrong(`systems that wrote the same text for report ${task.report.id} are not rated alike`);
      if (first) rate(reading, task, first); // one object for all of them
    }
  }

  function readRating(data, row, whole, bad) {
    const { acceptability, harm, errors, comment, seconds } = row;
    const { scales } = data;
    const absent = (value) => value === null && !whole;
    if (!absent(acceptability) && !isWhole(acceptability, 1, scales.acceptability.length))
      bad(`"acceptability" is no whole number from 1 to ${scales.acceptability.length}`);
    const harms = scales.harm.map(([name]) => name);
    if (!absent(harm) && !harms.includes(harm)) bad(`"harm" is none of ${harms.join(", ")}`);
    const kinds = scales.errors.map(([name]) => name);
    if (!Array.isArray(errors) || new Set(errors).size < errors.length || !errors.every((name) => kinds.includes(name)))
      bad(`"errors" does not hold each at most once of ${kinds.join(", ")}`);
    if (!isText(comment, LONGEST_COMMENT)) bad(`"comment" is no text of at most ${LONGEST_COMMENT} characters`);
    if (seconds !== null && !(Number.isFinite(seconds) && seconds >= 0)) bad('"seconds" is neither a number nor null');
    return { acceptability, harm, errors: kinds.filter((name) => errors.includes(name)), comment, seconds };
  }

  const said = (rating) => JSON.stringify([rating.acceptability, rating.harm, rating.errors, rating.comment]);
  const alike = (one, other) => one === other || Boolean(one && other && said(one) === said(other));

  async function readFile(data, file) {
    if (file.size > MOST_BYTES) fail(`${file.name} has over ${plural(MOST_BYTES, "byte")}, which no reading has.`);
    return read(data, parse(await file.text(), file.name), file.name);
  }

  function parse(text, name) {
    try {
      return JSON.parse(text);
    } catch {
      return fail(`${name} cannot be used: it is not JSON; choose a file that this page exported.`);
    }
  }

  // Put the ratings of `other` into `reading`, both of one reader. Return how many were rated
  // differently in the two; `prefer` says whose are taken, and "" that nothing is changed if there are any.
  function merge(data, reading, other, prefer) {
    if (reading.reference !== other.reference)
      fail(
        `${reading.reader} has a reading here in which the radiologist's text is ${reading.reference}, and in the ` +
          `file it is ${other.reference}; delete the one here first, or read under another name.`,
      );
    if (reading.seed !== other.seed) fail(`${reading.reader} has a reading here with another seed; delete it first.`);
    const both = { ...reading, count: Math.max(reading.count, other.count) };
    let differ = 0;
    const taken = [];
    for (const task of tasks(data, both).flat()) {
      const [here, there] = [ratingOf(reading, task), ratingOf(other, task)];
      if (!there || (here && alike(here, there))) continue;
      if (here) differ++;
      if (!here || prefer === "file") taken.push([task, there]);
    }
    if (differ && !prefer) return differ;
    reading.count = both.count;
    for (const [task, rating] of taken) rate(reading, task, rating);
    return differ;
  }

  // ---- The browser's storage -------------------------------------------------------------------

  const place = (data, reader) => `${PREFIX} ${data.run} ${reader}`;

  function keep(data, reading) {
    localStorage.setItem(place(data, reading.reader), JSON.stringify(write(data, reading, false)));
  }

  function kept(data, reader) {
    const text = localStorage.getItem(place(data, reader));
    const name = `The reading of ${reader} in this browser`;
    return text === null ? null : read(data, parse(text, name), name, false);
  }

  // Return the names of the readers of this run whose readings the browser has.
  function readers(data) {
    const start = place(data, "");
    const names = Array.from({ length: localStorage.length }, (_, at) => localStorage.key(at));
    return names.filter((name) => name.startsWith(start)).map((name) => name.slice(start.length)).sort();
  }

  const forget = (data, reader) => localStorage.removeItem(place(data, reader));

  Object.assign(radquant, {
    readings: { begin, tasks, ratingOf, complete, rate, write, readFile, merge, keep, kept, readers, forget, place },
  });
})();
