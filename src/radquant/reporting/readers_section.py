"""What readers said, as Markdown: readers.md and a section of report.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.reporting.formatting import (
    DASH,
    bullets,
    change,
    escape,
    number,
    probability,
    prose,
    share,
    table,
    wide_table,
)
from radquant.reporting.readers_files import REFERENCE

Record = Mapping[str, Any]
# Below it not even tentative conclusions (Krippendorff 2004, Content Analysis, p. 241).
LEAST_ALPHA = 0.667
NAMES = {REFERENCE: "the radiologist's text"}


def readers_page(record: Record) -> str:
    """Return readers.md."""
    return f"# What readers said\n\n{_body(record)}\n"


def readers_section(record: Record | None) -> str:
    """Return the report's section; nothing where no reader has read."""
    return f"## What readers said\n\n{_body(record)}" if record else ""


def _body(record: Record) -> str:
    parts = [
        prose(*_lead(record)),
        bullets(*_answers(record)),
        *(f"**{prose(warning)}**" for warning in _warnings(record)),
        _ratings(record),
        *_comparisons(record),
        *_agreement(record),
        _readers(record),
        bullets(*_notes(record)),
    ]
    return "\n\n".join(part for part in parts if part)


def _lead(record: Record) -> Iterator[str]:
    readers = record["readers"]
    people = "One reader" if len(readers) == 1 else f"{len(readers)} readers"
    yield f"{people} rated outputs of {record['reports']} of {record['of_reports']} reports."
    yield "The page for reading did not name the precision that wrote a text."
    if record["unit"] == "patient":
        yield f"The reports are of {record['patients']} patients."


def _answers(record: Record) -> Iterator[str]:
    for name, found in record["comparisons"].items():
        for system, row in found["systems"].items():
            if system != REFERENCE:
                says = _answer(record, found["good"], row["together"])
                yield f"{escape(system)}, {name} ({found['question']}): {says}"


def _answer(record: Record, good: bool, row: Record) -> str:
    if row["difference"] is None:
        return "not compared, as no reader rated both it and the original."
    if row["p"] is None:
        return "not compared, as readers rated both of one report alone."
    numbers = f"{_points(row)}, {_coverage(record)} {_ends(row)}"
    if not row["changed"]:
        return (
            "as often as the original in every report, on average over the readers "
            f"({numbers}); the table below has each reader."
        )
    numbers += f", p {probability(row['p_holm'])}"
    if row["p_holm"] < 1 - record["settings"]["confidence"]:
        word = "more" if row["difference"] > 0 else "less"
        verdict = "better" if (row["difference"] > 0) == good else "worse"
        return f"{verdict}, {word} often than the original ({numbers})."
    return f"not settled whether it differs from the original ({numbers})."


def _points(row: Record) -> str:
    return f"{change(100 * row['difference'], 0)} percentage points"


def _ends(row: Record) -> str:
    low, high = (change(100 * row["interval"][end], 0) for end in ("low", "high"))
    return f"{low} to {high}"


def _percent(value: float | None) -> str:
    return DASH if value is None else share(value)


def _warnings(record: Record) -> Iterator[str]:
    for scale, found in record["agreement"]["alpha"].items():
        value = found["value"]  # None where all ratings are equal, which is no disagreement
        if scale in ("acceptability", "harm") and value is not None and value < LEAST_ALPHA:
            yield (
                f"Readers agree too little on {scale} (alpha {number(value)}, at least "
                f"{LEAST_ALPHA} is asked for): differences between precisions can be those between "
                "readers."
            )
    if len({row["reference"] for row in record["readers"].values()}) > 1:
        yield (
            "Not all readers saw the radiologist's text in the same way: their ratings are not of "
            "one study."
        )
    if missing := sum(row["missing"] for row in record["readers"].values()):
        yield f"{missing} ratings are missing; comparisons are of the pairs that are there."


def _ratings(record: Record) -> str:
    header = ["text of", "ratings", "mean", "acceptable", "harmful", *"12345"]
    harms = next(iter(record["ratings"].values()))["harm"] if record["ratings"] else {}
    rows, errors = [], []
    for system, row in record["ratings"].items():
        name = NAMES.get(system, escape(system))
        counts = [str(count) for count in row["acceptability"].values()]
        mean = number(row["mean_acceptability"], 2)
        shares = [_percent(row[key]) for key in ("acceptable", "harmful")]
        rows.append([name, str(row["ratings"]), mean, *shares, *counts])
        rows[-1] += map(str, row["harm"].values())
        errors.append([name, _percent(row["any_error"]), *map(str, row["errors"].values())])
    header += harms
    kinds = next(iter(record["ratings"].values()))["errors"] if record["ratings"] else {}
    return "\n\n".join(
        [
            "### Ratings",
            "Ratings by acceptability (1 to 5, 5 is best) and by harm, over all readers:",
            wide_table(header, rows, shown=5),
            "Ratings that name an error of each kind:",
            wide_table(["text of", "any", *kinds], errors),
        ]
    )


def _comparisons(record: Record) -> Iterator[str]:
    for name, found in record["comparisons"].items():
        if not found["systems"]:
            continue
        yield f"### Compared with the original: {name}"
        yield prose(
            f"A rating is {name} with {found['question']}. Difference of the shares, by "
            f"{record['unit']}:"
        )
        header = ["text of", "reports", "pairs", "difference", _coverage(record), "p", "p (Holm)"]
        header += [f"{record['unit']}s", "reports that differ"]
        rows = []
        for system, row in found["systems"].items():
            both = row["together"]
            counts = [both["reports"], both["pairs"]]
            ends = DASH if both["interval"] is None else _interval(both["interval"])
            last = [change(both["difference"]), ends, probability(both["p"])]
            last.append(probability(both.get("p_holm")))
            last += map(str, (both["patients"], both["changed"]))
            rows.append([NAMES.get(system, escape(system)), *map(str, counts), *last])
        yield wide_table(header, rows)
        yield "McNemar's exact test, which takes reports as independent:"
        yield wide_table(*_mcnemar(found["systems"]), left=2, keys=2)


def _interval(record: Record) -> str:
    text = f"{change(record['low'])} to {change(record['high'])}"
    return text if record["method"] == "BCa" else f"{text} ({record['method']})"


def _coverage(record: Record) -> str:
    return f"{100 * record['settings']['confidence']:g} % interval"


def _mcnemar(systems: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["text of", "reader", "original", "this text", "p", "p (Holm)", "pairs"]
    header += ["original only", "this text only"]
    rows = []
    for system, row in systems.items():
        tests = {escape(reader): test for reader, test in row["readers"].items()}
        if row["majority"] is not None:
            tests["most readers"] = row["majority"]
        for reader, test in tests.items():
            cells = [_percent(test["original"]), _percent(test["system"])]
            cells += [probability(test["p"]), probability(test.get("p_holm"))]
            cells += [str(test[key]) for key in ("n", "original_only", "system_only")]
            rows.append([NAMES.get(system, escape(system)), reader, *cells])
    return header, rows


def _agreement(record: Record) -> Iterator[str]:
    found = record["agreement"]
    yield "### Agreement between readers"
    if not found["alpha"]:
        yield "One reader alone: how far readers agree is not known."
        return
    header = ["Krippendorff's alpha", "texts", "alpha", _coverage(record)]
    yield table(
        header, [[what, str(row["n"]), *_value(row)] for what, row in found["alpha"].items()]
    )
    header = ["readers", "rated", "texts", "kappa, quadratic", _coverage(record)]
    header += ["kappa, linear", _coverage(record)]
    rows = []
    for pair in found["pairs"]:
        names = " and ".join(map(escape, pair["readers"]))
        for scale in ("acceptability", "harm"):
            row = pair[scale]
            cells = [*_value(row["quadratic"]), *_value(row["linear"])]
            rows.append([names, scale, str(row["quadratic"]["n"]), *cells])
    yield "Cohen's weighted kappa of each pair of readers:"
    yield table(header, rows, left=2)


def _value(row: Record) -> list[str]:
    ends = DASH if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
    return [number(row["value"]), ends]


def _readers(record: Record) -> str:
    rows = [
        [
            escape(name),
            str(row["reports"]),
            f"{row['ratings']} of {row['wanted']}",
            "yes" if row["finished"] else "no",
            row["reference"],
            number(row["median_seconds"], 0),
        ]
        for name, row in record["readers"].items()
    ]
    header = ["reader", "reports", "ratings", "finished", "radiologist's text", "median s a text"]
    return "\n\n".join(["### Readers", table(header, rows)])


def _notes(record: Record) -> Iterator[str]:
    settings = record["settings"]
    yield (
        "The difference is the mean over reports of the mean over their readers: the share of the "
        f"text minus that of the original. Interval and p are by {record['unit']}, from at least "
        f"{settings['resamples']:,} resamples; Gaffke's interval stands where few differ. The "
        "readers are taken as they are: what is found holds for these readers."
    )
    yield (
        "p (Holm) is corrected for the number of precisions, within one judgement. Most readers: "
        "more than half of those who rated both texts; ties are left out."
    )
    if record["agreement"]["alpha"]:
        yield (
            "Alpha is ordinal for acceptability and harm, nominal for each kind of error; missing "
            "ratings are allowed (Krippendorff 2011). Kappa is Cohen's (1968), with squared or "
            "plain distances as weights. Intervals are percentiles of a bootstrap by "
            f"{record['unit']}."
        )
        yield (
            "Where precisions wrote the same text for a report it was rated once, and counts once "
            "for agreement. A dash stands where all ratings are equal, or where resampling never "
            "changes the value."
        )
