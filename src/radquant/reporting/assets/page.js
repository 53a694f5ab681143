// What the parts of report.html's script share. They read the JSON in #payload (see explorer.py) and
// build every node with createElement and text: nothing that a report says is ever parsed as HTML.
"use strict";
const radquant = (() => {
  const find = (id) => document.getElementById(id);
  const isCopy = find("payload").type === "text/plain"; // a readers' copy, see copy.js
  let data = null;

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

  // The payload, read when a view first needs it. That of a readers' copy is base64.
  function load() {
    if (data) return data;
    const text = find("payload").textContent;
    const decoded = () => new TextDecoder().decode(Uint8Array.from(atob(text), (one) => one.charCodeAt(0)));
    data = JSON.parse(isCopy ? decoded() : text);
    return data;
  }

  // Let the browser save `text` as a file.
  function save(name, text, type) {
    const link = node("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  return { find, node, isolated, number, plural, load, save, isCopy };
})();
