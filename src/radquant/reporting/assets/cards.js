// One report as cards: what the models were given, the reference, and each output.
(() => {
  const { find, node, isolated, number, plural, hits, highlighted } = radquant;

  // Return a paragraph with the text's entities, the hits of a search and, given a text before it,
  // what differs.
  function marked(entry, before, wanted) {
    const { text, spans } = entry;
    const { added, removed } = before === null ? { added: [], removed: [] } : radquant.difference(before, text);
    const cuts = new Set([0, text.length]);
    const found = hits(text, wanted);
    for (const [start, end] of [...spans, ...added, ...found]) cuts.add(start).add(end);
    for (const [place] of removed) cuts.add(place);
    const places = [...cuts].sort((a, b) => a - b);
    const paragraph = node("p", text.trim() ? "text" : "text blank");
    paragraph.dir = "auto";
    let [span, add, out, hit] = [0, 0, 0, 0];
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
      while (hit < found.length && found[hit][1] <= start) hit++;
      let piece = text.slice(start, end);
      if (hit < found.length && found[hit][0] <= start) piece = node("mark", "", piece);
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

  function changeItem(kinds, change) {
    const made = node("li", "", node("span", "kind", change.kind));
    made.firstChild.title = kinds.get(change.kind) || "";
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

  function outputCard(data, report, at, wanted) {
    const output = report.outputs[at];
    const original = report.outputs[0];
    const entry = data.texts[output.text];
    const kinds = new Map(data.kinds);
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
        node("ul", "changes", ...output.changes.map((change) => changeItem(kinds, change))),
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
      marked(entry, before, wanted),
      ...parts,
    );
  }

  // ---- What the models were given ------------------------------------------------------------

  // Return a text of the input, or of a reader's desk, without any mark but those of a search.
  function plain(text, wanted = "") {
    const paragraph = node("p", text.trim() ? "text" : "text blank", ...highlighted(text, wanted));
    paragraph.dir = "auto";
    return paragraph;
  }

  const FACTOR = 1.5; // of one key's zoom
  const LARGEST = 8; // times the window's height
  const SCROLL = 80; // pixels of one arrow key

  // Let a click, Enter or the space bar enlarge an image, + and - zoom it, and arrow keys move it.
  function zoomable(button, shown) {
    let scale = 1;
    const sized = (to) => {
      scale = Math.min(Math.max(to, 1), LARGEST);
      shown.style.height = scale > 1 ? `${100 * scale}vh` : "";
    };
    const enlarge = (large) => {
      button.classList.toggle("enlarged", large);
      button.setAttribute("aria-pressed", String(large));
      sized(1);
    };
    button.addEventListener("click", () => enlarge(!button.classList.contains("enlarged")));
    button.addEventListener("keydown", (event) => {
      if (!button.classList.contains("enlarged") || event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === "Escape") enlarge(false);
      else if (event.key === "+" || event.key === "=") sized(scale * FACTOR);
      else if (event.key === "-") sized(scale / FACTOR);
      else if (event.key in moves) button.scrollBy(...moves[event.key].map((way) => way * SCROLL));
      else return;
      event.preventDefault();
      event.stopPropagation(); // the same keys go to another report
    });
    button.addEventListener("blur", () => enlarge(false)); // what has the focus is to be seen
  }

  // Return the images of a report. Some may not be in the file, or all of them.
  function pictures(report) {
    const many = report.images.length;
    const parts = [];
    report.images.forEach((image, at) => {
      const held = find(`image-${image}`);
      if (!held) return;
      const name = many > 1 ? `image ${at + 1} of ${many}` : "the image";
      const shown = node("img");
      shown.src = held.textContent;
      shown.alt = `X-ray, ${name} of this report`;
      const button = node("button", "xray", shown);
      button.type = "button";
      button.title = `Enlarge ${name}, or make it small again`;
      button.setAttribute("aria-pressed", "false");
      zoomable(button, shown);
      parts.push(button);
    });
    const missing = many - parts.length;
    const why = heldImages() ? "which would be too large" : ASKED_FOR;
    if (missing) parts.push(node("p", "same", `${plural(missing, "image")} of this report not in this file, ${why}.`));
    return parts;
  }

  // Return the parts of a card with all that the models were given of a report.
  function given(data, report, wanted = "") {
    const parts = pictures(report);
    report.inputs.forEach((text, at) =>
      parts.push(node("h4", "", data.inputs[at]), plain(data.texts[text].text, wanted)),
    );
    if (report.cut)
      parts.push(node("p", "same", "Too long for the model: it was not shown the beginning of its prompt."));
    return parts;
  }

  const unfolded = new Set(); // what a reader has opened stays open from report to report

  function foldable(name, title, ...parts) {
    const made = node("details", "", node("summary", "", title), ...parts);
    made.open = unfolded.has(name);
    made.addEventListener("toggle", () => (made.open ? unfolded.add(name) : unfolded.delete(name)));
    return made;
  }

  // Return the parts of a card with the rest of the prompt, folded: the instruction, and the solved
  // examples that stood before the report.
  function prompted(data, report) {
    const parts = [];
    if (data.prompt) parts.push(foldable("prompt", "The instruction", plain(data.prompt)));
    const many = report.examples.length;
    if (!many) return parts;
    const cut = report.cut ? " The beginning of this prompt was cut off, so the models saw not all of this." : "";
    const shots = report.examples.map((number, at) => example(data, data.examples[number], at, many));
    parts.push(
      foldable(
        "examples",
        `${plural(many, "solved example")} before this report`,
        node("p", "same", `Training reports with the radiologist's own ${data.target}, not this report.${cut}`),
        ...shots,
      ),
    );
    return parts;
  }

  function example(data, { id, inputs, answer }, at, many) {
    const text = (number) => plain(data.texts[number].text);
    const title = node("h4", "", `Example ${at + 1} of ${many}, training report `, isolated(id));
    const said = inputs.flatMap((number, column) => [node("h5", "", data.inputs[column]), text(number)]);
    return node("div", "shot", title, ...said, node("h5", "", `${data.target}, the answer`), text(answer));
  }

  const ASKED_FOR = "as the configuration did not ask for it (report: {images: true})";
  const heldImages = () => document.querySelectorAll("script[id^=image-]").length;

  // Show a warning of what may be written in the images, where this file has some.
  function warnOfImages(...places) {
    for (const place of places.map(find)) {
      if (!place || !heldImages()) continue;
      place.textContent =
        "This file has copies of X-rays. Names, dates and numbers that are written into a picture itself are still " +
        "in it: look at every image before you pass the file on.";
      place.hidden = false;
    }
  }

  // What is to be said of the images of this file; empty where models are shown none.
  function aboutImages(data) {
    if (!data.images) return "";
    const held = heldImages();
    const many = plural(data.images, "image");
    if (!held) return `The models were shown ${many}; none is in this file, ${ASKED_FOR}.`;
    return (
      `${held === data.images ? "All" : `${number(held)} of`} ${many} in this file, as the model was shown ` +
      `them, but as JPEG and with at most ${number(data.side)} pixels a side.`
    );
  }

  Object.assign(radquant, { marked, card, outputCard, plain, given, prompted, aboutImages, warnOfImages });
})();
