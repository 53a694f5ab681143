// Which reports pass the filters, in which order, and how many would pass with another choice.
(() => {
  const { folded } = radquant;

  // Return what is looked up for each choice, made once.
  function prepare(data) {
    const width = data.systems.length;
    const names = [...data.kinds.map(([kind]) => kind), ...data.flags];
    const bitOf = new Map(names.map((name, at) => [name, 1 << at]));
    const bits = new Int32Array(data.reports.length * width); // of each output, its kinds and flags
    data.reports.forEach(({ outputs }, place) =>
      outputs.forEach(({ changes, flags }, at) => {
        for (const { kind } of changes) bits[place * width + at] |= bitOf.get(kind);
        for (const flag of flags) bits[place * width + at] |= bitOf.get(flag);
      }),
    );
    return { names, bitOf, bits, findings: radquant.numbered(data), folded: null };
  }

  // Return the systems that filters and harm look at: those that are chosen; else all but the
  // original, with which they are compared, and without those that are ruined, if others are left.
  function considered(data, state) {
    const all = data.systems.map((_, at) => at);
    const chosen = all.filter((at) => state.precision.includes(data.systems[at]));
    if (chosen.length) return chosen;
    const quantized = all.slice(1);
    const sound = quantized.filter((at) => !Object.hasOwn(data.ruined, data.systems[at]));
    return [sound, quantized, all].find((systems) => systems.length);
  }

  // Say of each text whether the search finds it; null when nothing is searched for.
  function search(data, index, wanted) {
    if (!wanted) return null;
    index.folded ??= data.texts.map((entry) => folded(entry.text));
    return index.folded.map((text) => text.includes(wanted));
  }

  // Return the numbers of the reports that pass, and of each value how many pass if it alone is
  // chosen in its row and all other rows stay: {shown, counts: {system, name, finding}}.
  function select(data, index, state) {
    const systems = considered(data, state);
    const chosen = data.systems.map((_, at) => systems.includes(at));
    const mask = (names) => names.reduce((bits, name) => bits | index.bitOf.get(name), 0);
    const [kinds, flags] = [mask(state.kind), mask(state.flag)];
    const [allKinds, allFlags] = [mask(data.kinds.map(([kind]) => kind)), mask(data.flags)];
    const finding = index.findings.numbers.get(state.finding); // undefined of a name that none has
    const wanted = folded(state.q);
    const hits = search(data, index, wanted);
    const ofSystems = new Uint32Array(data.systems.length);
    const ofNames = new Uint32Array(index.names.length);
    const ofFindings = radquant.tally(index.findings, state.status);
    const shown = [];
    data.reports.forEach((report, place) => {
      const { outputs } = report;
      const everywhere =
        !hits ||
        hits[report.reference] ||
        hits[outputs[0].text] ||
        report.inputs.some((text) => hits[text]) ||
        folded(report.id).includes(wanted);
      const found = everywhere || systems.some((at) => hits[outputs[at].text]);
      let seen = 0;
      let passes = false;
      outputs.forEach((output, at) => {
        const own = index.bits[place * outputs.length + at];
        const kind = !kinds || (own & kinds) !== 0;
        const flag = !flags || (own & flags) !== 0;
        const stands =
          !state.finding ||
          (finding !== undefined && radquant.stands(index.findings, report, output, finding, state.status));
        if (kind && flag && stands && (everywhere || hits[output.text])) ofSystems[at]++;
        if (!found || !chosen[at]) return;
        if (flag && stands) seen |= own & allKinds;
        if (kind && stands) seen |= own & allFlags;
        if (kind && flag) ofFindings.add(place, report, output);
        if (kind && flag && stands) passes = true;
      });
      for (let at = 0; seen; at++, seen >>= 1) ofNames[at] += seen & 1;
      if (passes) shown.push(place);
    });
    if (state.sort === "harm") sortByHarm(data, systems, shown);
    return { shown, counts: { system: ofSystems, name: ofNames, finding: ofFindings.counts } };
  }

  // By the worst output, then by all together; equals stay in the order of the corpus.
  function sortByHarm(data, systems, shown) {
    const worst = new Map();
    const sum = new Map();
    for (const place of shown) {
      const harms = systems.map((at) => data.reports[place].outputs[at].harm);
      worst.set(place, Math.max(...harms));
      sum.set(place, harms.reduce((total, harm) => total + harm, 0));
    }
    shown.sort((a, b) => worst.get(b) - worst.get(a) || sum.get(b) - sum.get(a) || a - b);
  }

  Object.assign(radquant, { prepare, considered, select });
})();
