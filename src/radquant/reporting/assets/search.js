// Where the search finds its words. No mark is made by parsing: each is an element around text.
(() => {
  const { node } = radquant;

  // Lower case of the same length, so that a place in it is a place in the text. Of all characters
  // only the capital I with a dot would become two.
  const folded = (text) => text.replaceAll("\u0130", "i").toLowerCase();

  // Return where `wanted`, which is folded, stands in `text`: [[start, end]…], apart from each other.
  function hits(text, wanted) {
    const found = [];
    if (!wanted) return found;
    const whole = folded(text);
    for (let at = whole.indexOf(wanted); at >= 0; at = whole.indexOf(wanted, at + wanted.length))
      found.push([at, at + wanted.length]);
    return found;
  }

  // Return `text` in pieces: strings, and a mark for each hit.
  function highlighted(text, wanted) {
    const pieces = [];
    let last = 0;
    for (const [start, end] of hits(text, wanted)) {
      if (start > last) pieces.push(text.slice(last, start));
      pieces.push(node("mark", "", text.slice(start, end)));
      last = end;
    }
    if (last < text.length) pieces.push(text.slice(last));
    return pieces;
  }

  // A text that holds each word of a report's own, as a table's cell: see radquant.isolated.
  function isolatedHits(text, wanted) {
    const made = node("bdi", "", ...highlighted(text, wanted));
    made.dir = "auto";
    return made;
  }

  Object.assign(radquant, { folded, hits, highlighted, isolatedHits });
})();
