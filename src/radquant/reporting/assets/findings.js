// The findings that the annotator found, and how they stand in an output.
(() => {
  const CODES = ["", "present", "uncertain", "absent"]; // 0: not mentioned

  // How a finding may stand, given the code of its status in an output, in the original's output
  // and in the reference.
  const TESTS = new Map([
    ["", (output, original, reference) => output + reference > 0],
    ...CODES.slice(1).flatMap((status, at) => [
      [`${status} in the reference`, (output, original, reference) => reference === at + 1],
      [`${status} in an output`, (output) => output === at + 1],
    ]),
    ["changed against the original's output", (output, original) => output !== original],
    ["other than in the reference", (output, original, reference) => output !== reference],
  ]);
  const STATUSES = [...TESTS.keys()];
  const NONE = [];

  // Return the findings' names, the number of each, and of each text [number, code, number, code…].
  function numbered(data) {
    const numbers = new Map();
    const stated = data.texts.map(({ findings }) => {
      const own = [];
      for (const name of Object.keys(findings)) {
        if (!numbers.has(name)) numbers.set(name, numbers.size);
        own.push(numbers.get(name), CODES.indexOf(findings[name]));
      }
      return own.length ? own : NONE;
    });
    return { names: [...numbers.keys()], numbers, stated };
  }

  function codeOf(stated, finding) {
    for (let at = 0; at < stated.length; at += 2) if (stated[at] === finding) return stated[at + 1];
    return 0;
  }

  // Say whether the finding with this number stands in an output of a report as `status` asks.
  function stands(findings, report, output, finding, status) {
    const texts = [output.text, report.outputs[0].text, report.reference];
    return TESTS.get(status)(...texts.map((text) => codeOf(findings.stated[text], finding)));
  }

  // Return what counts, of each finding, the reports with an output in which it stands so.
  function tally(findings, status) {
    const test = TESTS.get(status);
    const counts = new Uint32Array(findings.names.length);
    const last = new Int32Array(findings.names.length).fill(-1); // the report that counted last
    const codes = [0, 1, 2].map(() => new Uint8Array(findings.names.length));
    const add = (place, report, output) => {
      const lists = [output.text, report.outputs[0].text, report.reference].map((text) => findings.stated[text]);
      lists.forEach((list, which) => {
        for (let at = 0; at < list.length; at += 2) codes[which][list[at]] = list[at + 1];
      });
      for (const list of lists)
        for (let at = 0; at < list.length; at += 2) {
          const finding = list[at];
          if (last[finding] === place || !test(codes[0][finding], codes[1][finding], codes[2][finding])) continue;
          last[finding] = place;
          counts[finding]++;
        }
      lists.forEach((list, which) => {
        for (let at = 0; at < list.length; at += 2) codes[which][list[at]] = 0;
      });
    };
    return { counts, add };
  }

  Object.assign(radquant, { STATUSES, numbered, stands, tally });
})();
