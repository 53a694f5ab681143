// The reports that are shown as CSV, one row a report, made in the browser.
(() => {
  // A spreadsheet takes a cell that begins so for a formula, and runs it. Where a comma does not
  // separate its cells, a cell may also begin behind a semicolon, a tab or a line's end.
  const FORMULA = /(^|[;\t\r\n])((?:[^\S\t\r\n]|[\u200b"])*[=+\-@\uff0b\uff0d\uff1d\uff20])/g;

  const harmless = (text) => text.replace(FORMULA, "$1'$2").replace(/^(?=[\t\r\n])/, "'");
  const cell = (value) => {
    const text = typeof value === "number" ? String(value) : harmless(value);
    return `"${text.replaceAll('"', '""')}"`;
  };

  // What changed, and how: 'side of pleural effusion: left → right'.
  const told = ({ kind, finding, before, after }) =>
    `${finding ? `${kind}, ${finding}` : kind}: ${before || "nothing"} → ${after || "nothing"}`;

  // Return the columns as [heading, value of a report].
  function columns(data, systems) {
    const text = (number) => data.texts[number].text;
    return [
      ["report", (report) => report.id],
      ...data.inputs.map((name, at) => [`input: ${name}`, (report) => text(report.inputs[at])]),
      ["reference", (report) => text(report.reference)],
      ...systems.flatMap((at) => [
        [data.systems[at], (report) => text(report.outputs[at].text)],
        [`${data.systems[at]}: F1`, (report) => report.outputs[at].f1],
        ...(at === 0
          ? []
          : [
              [`${data.systems[at]}: harm`, (report) => report.outputs[at].harm],
              [`${data.systems[at]}: changes`, (report) => report.outputs[at].changes.map(told).join("\n")],
            ]),
        [`${data.systems[at]}: faults`, (report) => report.outputs[at].flags.join(", ")],
      ]),
    ];
  }

  // Return the table, with the mark by which a spreadsheet knows UTF-8.
  function table(data, places, systems) {
    const made = columns(data, systems);
    const rows = [made.map(([heading]) => cell(heading))];
    for (const place of places) rows.push(made.map(([, value]) => cell(value(data.reports[place]))));
    return `\ufeff${rows.map((row) => row.join(",")).join("\r\n")}\r\n`;
  }

  radquant.exported = table;
})();
