// The readers' copy: this page without the report, the explorer and whatever they need. What is left
// of the payload is base64, so that who opens the file in an editor reads no name of a system.
(() => {
  const { find, node } = radquant;
  const CHUNK = 0x8000; // bytes that one call turns into characters
  const blank = find("reading").cloneNode(true); // before anything is built or entered in it

  function encoded(value) {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    const parts = [];
    for (let start = 0; start < bytes.length; start += CHUNK)
      parts.push(String.fromCharCode(...bytes.subarray(start, start + CHUNK)));
    return btoa(parts.join(""));
  }

  // Return what a reading with these choices needs of the payload: the reports to be read, what the
  // models were given, the outputs, and the radiologist's text if readers see it.
  function reduced(data, choices) {
    const { systems, run, scales, target, inputs, side } = data;
    const places = data.order.slice(0, choices.count).sort((a, b) => a - b);
    const order = data.order.slice(0, choices.count).map((place) => places.indexOf(place));
    const numbers = new Map();
    const texts = [];
    const text = (old) => {
      if (!numbers.has(old)) numbers.set(old, texts.push({ text: data.texts[old].text }) - 1);
      return numbers.get(old);
    };
    const reports = places.map((place) => {
      const { id, cut, images, ...report } = data.reports[place];
      return {
        ...{ id, cut, images, inputs: report.inputs.map(text) },
        reference: choices.reference === "hidden" ? null : text(report.reference),
        outputs: report.outputs.map((output) => ({ text: text(output.text) })),
      };
    });
    const images = new Set(reports.flatMap((report) => report.images)).size;
    return { systems, run, order, scales, target, inputs, images, side, reports, texts, choices };
  }

  // Return the copy as HTML. Its style and script are the same, and so are their hashes.
  function readersCopy(data, choices) {
    const copy = document.documentElement.cloneNode(true);
    const place = (id) => copy.querySelector(`#${id}`);
    for (const id of ["report", "explorer", "views"]) place(id).replaceChildren();
    for (const id of ["report", "explorer"]) place(id).hidden = true;
    place("reading").replaceWith(blank.cloneNode(true));
    const kept = reduced(data, choices);
    const images = new Set(kept.reports.flatMap((report) => report.images.map((image) => `image-${image}`)));
    for (const image of copy.querySelectorAll("script[id^=image-]")) if (!images.has(image.id)) image.remove();
    const payload = node("script", "", encoded(kept));
    payload.type = "text/plain";
    payload.id = "payload";
    place("payload").replaceWith(payload);
    for (const away of copy.querySelectorAll("#study, #back")) away.remove();
    return `<!doctype html>\n${copy.outerHTML}\n`;
  }

  radquant.readersCopy = readersCopy;
})();
