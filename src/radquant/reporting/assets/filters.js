// The filters above the list: what can be chosen, what is, and how many reports each choice gives.
(() => {
  const { find, node, isolated, number, plural, folded } = radquant;
  const FEW = 10; // findings that are offered before one asks for more

  let all = false; // whether all findings are offered
  let last = null; // what was shown last: [data, index, state, counts]

  function chip(name, value, note = "") {
    const box = node("input");
    box.type = "checkbox";
    box.name = name;
    box.value = value;
    const label = node("label", "chip", box, node("span", "", isolated(value), node("b")));
    label.title = note;
    return label;
  }

  function label(made, many, chosen) {
    const box = made.firstChild;
    made.querySelector("b").textContent = number(many);
    made.classList.toggle("none", many === 0);
    box.setAttribute("aria-label", `${box.value}, ${plural(many, "report")}`);
    box.checked = chosen;
  }

  function build(data) {
    const points = (name) => `${data.weights[name]} of harm`;
    find("precisions").append(...data.systems.map((name) => chip("precision", name, data.ruined[name] ?? "")));
    find("kinds").append(...data.kinds.map(([kind, meaning]) => chip("kind", kind, `${meaning}; ${points(kind)}`)));
    find("flags").append(...data.flags.map((flag) => chip("flag", flag, points(flag))));
    find("status").append(
      ...radquant.STATUSES.map((name) => {
        const option = node("option", "", name || "stated by the reference or an output");
        option.value = name;
        return option;
      }),
    );
    find("ruined").append(
      ...Object.entries(data.ruined).map(([name, why]) =>
        node("li", "", isolated(name), ` is ruined, and shown only if chosen: ${why}`),
      ),
    );
    find("finding").addEventListener("input", offer);
    find("all-findings").addEventListener("click", () => {
      all = !all;
      offer();
    });
  }

  // Offer the findings whose name holds what is typed, those first that most reports have.
  function offer() {
    const [, index, state, counts] = last;
    const wanted = folded(find("finding").value.trim());
    const { names, numbers } = index.findings;
    const many = (name) => (numbers.has(name) ? counts.finding[numbers.get(name)] : 0);
    const fit = names
      .filter((name) => name !== state.finding && (wanted ? folded(name).includes(wanted) : many(name)))
      .sort((a, b) => many(b) - many(a) || (a < b ? -1 : 1));
    const offered = all ? fit : fit.slice(0, FEW);
    const chosen = state.finding ? [state.finding] : [];
    const focused = document.activeElement?.closest("#finding-names .chip") ? document.activeElement.value : null;
    const chips = [...chosen, ...offered].map((name) => {
      const made = chip("finding", name);
      label(made, many(name), name === state.finding);
      return made;
    });
    find("finding-names").replaceChildren(...chips);
    const kept = chips.find((made) => made.firstChild.value === focused);
    if (focused !== null) (kept?.firstChild ?? find("finding")).focus({ preventScroll: true });
    find("all-findings").hidden = fit.length <= FEW;
    find("all-findings").setAttribute("aria-expanded", String(all));
    find("all-findings").textContent = all ? "Fewer findings" : `All ${number(fit.length)} findings`;
    find("finding-note").textContent = noteOn(wanted, fit, state, numbers);
    return fit;
  }

  function noteOn(wanted, fit, state, numbers) {
    if (state.finding && !numbers.has(state.finding))
      return "The annotator found no finding of this name in any text of this file.";
    if (wanted && !fit.length && !state.finding.includes(wanted))
      return "The annotator found no finding with this in its name.";
    return "";
  }

  // Return the finding that is typed: by its whole name, or as the only one that it can be.
  function typed() {
    const wanted = folded(find("finding").value.trim());
    if (!wanted) return null;
    const fit = offer();
    return last[1].findings.names.find((name) => folded(name) === wanted) ?? (fit.length === 1 ? fit[0] : null);
  }

  function show(data, index, state, counts) {
    last = [data, index, state, counts];
    const of = {
      precision: (value) => counts.system[data.systems.indexOf(value)],
      kind: (value) => counts.name[index.names.indexOf(value)],
      flag: (value) => counts.name[index.names.indexOf(value)],
    };
    for (const made of document.querySelectorAll("#precisions .chip, #kinds .chip, #flags .chip")) {
      const { name, value } = made.firstChild;
      label(made, of[name](value), state[name].includes(value));
    }
    offer();
    if (find("search").value !== state.q) find("search").value = state.q;
    find("sort").value = state.sort;
    find("status").value = state.status;
    const chosen = [...state.precision, ...state.kind, ...state.flag];
    if (state.finding) chosen.push([state.finding, state.status].filter(Boolean).join(" "));
    find("chosen").textContent = chosen.length ? `(chosen: ${chosen.join(", ")})` : "";
    find("reset").disabled = !chosen.length && !state.q;
  }

  radquant.filters = { build, show, typed };
})();
