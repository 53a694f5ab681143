// The explorer's filter by finding.
(() => {
  const { find, node, plural } = radquant;

  // How a finding may stand, given its status in an output, in the original's output and in the
  // reference; undefined where it is not mentioned.
  const TESTS = new Map([
    ["", (output, original, reference) => output !== undefined || reference !== undefined],
    ...["present", "uncertain", "absent"].flatMap((status) => [
      [`${status} in the reference`, (output, original, reference) => reference === status],
      [`${status} in an output`, (output) => output === status],
    ]),
    ["changed against the original's output", (output, original) => output !== original],
    ["other than in the reference", (output, original, reference) => output !== reference],
  ]);
  const STATUSES = [...TESTS.keys()];

  // Say whether a finding stands in an output of a report as `status` asks.
  function stands(data, report, output, finding, status) {
    const found = [output.text, report.outputs[0].text, report.reference].map((text) => {
      const { findings } = data.texts[text];
      return Object.hasOwn(findings, finding) ? findings[finding] : undefined;
    });
    return TESTS.get(status)(...found);
  }

  // Offer the findings of all texts, those first that most reports have.
  function offerFindings(data) {
    const counts = new Map();
    for (const report of data.reports) {
      const texts = new Set([report.reference, ...report.outputs.map((output) => output.text)]);
      const here = new Set([...texts].flatMap((text) => Object.keys(data.texts[text].findings)));
      for (const name of here) counts.set(name, (counts.get(name) || 0) + 1);
    }
    const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
    find("findings").append(
      ...names.map((name) => {
        const option = node("option");
        option.value = name;
        option.label = plural(counts.get(name), "report");
        return option;
      }),
    );
    find("status").append(
      ...STATUSES.map((name) => {
        const option = node("option", "", name || "stated by the reference or an output");
        option.value = name;
        return option;
      }),
    );
  }

  Object.assign(radquant, { STATUSES, stands, offerFindings });
})();
