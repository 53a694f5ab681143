// What the parts of report.html's script share. They read the JSON in #payload (see explorer.py) and
// build every node with createElement and text: nothing that a report says is ever parsed as HTML.
"use strict";
const radquant = (() => {
  const find = (id) => document.getElementById(id);
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

  // The payload, read when a view first needs it.
  function load() {
    data ??= JSON.parse(find("payload").textContent);
    return data;
  }

  return { find, node, isolated, number, plural, load };
})();
