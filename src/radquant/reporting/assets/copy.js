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

  // Return what a reading needs of the payload. `choices` are those of the study, for all readers.
  function reduced(data, choices) {
    const { systems, run, order, scales, target, inputs, images, side } = data;
    const reports = data.reports.map((report) => ({
      ...report,
      outputs: report.outputs.map(({ text }) => ({ text })),
    }));
    const texts = data.texts.map(({ text }) => ({ text }));
    return { systems, run, order, scales, target, inputs, images, side, reports, texts, choices };
  }

  // Return the copy as HTML. Its style and script are the same, and so are their hashes.
  function readersCopy(data, choices) {
    const copy = document.documentElement.cloneNode(true);
    const place = (id) => copy.querySelector(`#${id}`);
    for (const id of ["report", "explorer", "views"]) place(id).replaceChildren();
    for (const id of ["report", "explorer"]) place(id).hidden = true;
    place("reading").replaceWith(blank.cloneNode(true));
    const payload = node("script", "", encoded(reduced(data, choices)));
    payload.type = "text/plain";
    payload.id = "payload";
    place("payload").replaceWith(payload);
    for (const away of copy.querySelectorAll("#study, #back")) away.remove();
    return `<!doctype html>\n${copy.outerHTML}\n`;
  }

  radquant.readersCopy = readersCopy;
})();
