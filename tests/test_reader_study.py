"""Agreement and comparisons of readers, against published examples and closed forms."""

import json
import subprocess
import sys
from math import comb
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_agreement import alpha_by_hand, nominal, ordinal
from report_run import CONFIG, change_table, make_results

from radquant.errors import UserError
from radquant.files import read_table, write_json
from radquant.reporting import readers_agreement as agreeing
from radquant.reporting import readers_comparison as comparing
from radquant.reporting.readers import readers_record
from radquant.reporting.readers_files import ERRORS, HARM, REFERENCE, read_readings
from radquant.reporting.readers_section import readers_page, readers_section
from radquant.reporting.readers_study import read_record, read_study

ROOT = Path(__file__).parents[1]
SETTINGS = comparing.Settings(200, 0.95, 7)
SECRET = "Mrs Example, seen before"
SYSTEMS = ["original", "w4a16", "w4a8"]

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C: 4 observers, 12 units.
RELIABILITY = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def rated(text):
    rows = [line.split() for line in text.strip().splitlines()]
    return np.array([[-1 if cell == "." else int(cell) - 1 for cell in row] for row in rows])


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_krippendorffs_own_data(level, published):
    table = agreeing.coincidences(rated(RELIABILITY), 5).sum(axis=0)
    assert round(float(agreeing.alpha(table, level)), 3) == published
    assert table.sum() == 40  # his n: values that can be paired


def test_alpha_of_two_observers_with_two_categories():
    """Krippendorff (2011), section A: 10 units, alpha 0.095."""
    one, other = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    table = agreeing.coincidences(np.array([one, other]), 2).sum(axis=0)
    assert round(float(agreeing.alpha(table, "nominal")), 3) == 0.095
    assert np.isclose(agreeing.alpha(table, "ordinal"), agreeing.alpha(table, "nominal"))


# Counts of two raters; disagreement; the published kappa.
COHEN = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]  # Cohen (1968), table 1, N = 200
SEXUAL_FUN = [[7, 7, 2, 3], [2, 8, 3, 7], [1, 5, 4, 9], [2, 8, 9, 14]]  # Agresti (1990), R's vcd
PUBLISHED = [
    (COHEN, [[0, 1, 3], [1, 0, 6], [3, 6, 0]], 0.348),
    (COHEN, 1 - np.eye(3), 0.492),
    (SEXUAL_FUN, agreeing.disagreement("linear", 4), 0.2374),
    (SEXUAL_FUN, 1 - np.eye(4), 0.1293),
]


@pytest.mark.parametrize(("counts", "weights", "published"), PUBLISHED)
def test_weighted_kappa_of_published_tables(counts, weights, published):
    kappa = float(agreeing.weighted_kappa(np.array(counts, float), np.array(weights, float)))
    assert kappa == pytest.approx(published, abs=10 ** -len(str(published).split(".")[1]) / 2)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
def test_quadratic_kappa_is_lins_concordance(pairs):
    """2 s_xy / (s_x² + s_y² + (mean_x - mean_y)²), with moments over n."""
    one, other = np.array(pairs).T
    table = agreeing.crossed(one, other, 5).sum(axis=0)
    kappa = agreeing.weighted_kappa(table, agreeing.disagreement("quadratic", 5))
    scale = one.var() + other.var() + (one.mean() - other.mean()) ** 2
    if scale == 0:
        assert np.isnan(kappa)
    else:
        covariance = ((one - one.mean()) * (other - other.mean())).mean()
        assert kappa == pytest.approx(2 * covariance / scale, abs=1e-9)


def test_resamples_share_their_patients_and_keep_their_number():
    def total(sums):
        return sums.reshape(len(sums), -1).sum(axis=1)

    places = np.arange(5.0).reshape(5, 1)
    measures = {"count": (np.ones((5, 2, 2)), total), "sum": (places, total)}
    drawn = agreeing.resampled(measures | {"again": (places, total)}, 300, 7)
    assert (drawn["count"] == 20).all()
    assert (drawn["sum"] == drawn["again"]).all()
    assert abs(drawn["sum"].mean() - 10) < 0.5
    assert drawn["sum"].std() > 1


def test_mcnemar_of_a_published_table():
    """Fagerland et al. (2013), doi:10.1186/1471-2288-13-91, table 1: 1 and 7 of 21 pairs."""
    pairs = [(True, True)] + [(True, False)] + 7 * [(False, True)] + 12 * [(False, False)]
    found = comparing.mcnemar(pairs)
    assert round(found["p"], 4) == 0.0703
    assert (found["n"], found["original_only"], found["system_only"]) == (21, 1, 7)


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_is_a_sum_of_binomials(first, second):
    n, least = first + second, min(first, second)
    closed = min(1, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n)
    pairs = first * [(True, False)] + second * [(False, True)] + [(True, True)]
    assert comparing.mcnemar(pairs)["p"] == pytest.approx(closed)


# ----------------------------------------------------------------------------------- whole studies


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A finished run of two reports a patient; w4a16 wrote the original's text of half of them."""
    folder = make_results(tmp_path_factory.mktemp("study") / "results")
    ids = read_table(folder / "data/eval.csv")["id"].tolist()
    groups = [f"p{number // 2}" for number in range(len(ids))]
    change_table(folder / "data/eval.csv", lambda table: table.assign(group=groups))
    same = set(ids[::2])
    for name in ("original", "w4a16"):
        for path in (folder / f"generations/{name}").glob("*.parquet"):
            change_table(path, lambda table: table.assign(output=said(table, same)))
    return folder


def said(table, same):
    return [
        f"The same of {name}." if name in same else text
        for name, text in zip(table["id"], table["output"], strict=True)
    ]


@pytest.fixture(scope="module")
def study(results):
    return read_study(results, CONFIG)


def reading(study, reader, answer, systems=SYSTEMS, reports=None):
    """A file as the page exports it: texts that are equal are rated once, and told of each."""
    ratings = []
    for report in reports or list(study.patients):
        seen = {}
        for system in systems:
            text = study.texts[report][system]
            if text not in seen:
                acceptability, harm, errors = answer(report, system)
                seen[text] = {"acceptability": acceptability, "harm": harm, "errors": errors}
            entry = {"report": report, "system": system, "comment": SECRET, "seconds": 12.5}
            ratings.append(entry | seen[text])
    return {
        **{"format": 1, "run": study.run, "reader": reader, "seed": 3, "finished": None},
        "created": "2026-01-31T09:12:05.120Z",
        "count": len(reports or study.patients),
        "reference": "blinded" if REFERENCE in systems else "hidden",
        **{"systems": list(systems), "ratings": ratings},
    }


def answers(seed, worse=()):
    """A reader: draws by a seed, and finds what the systems of `worse` wrote unacceptable."""
    rng = np.random.default_rng(seed)

    def answer(report, system):
        low = 1 if system in worse else 4
        errors = [kind for kind in ERRORS if rng.random() < 0.2]
        return int(rng.integers(low, low + 2)), HARM[rng.integers(4)], errors

    return answer


def write(folder, *records):
    paths = [folder / f"{number}.json" for number in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        path.write_text(json.dumps(record))
    return paths


def test_a_study_has_the_agreement_of_the_definition(study, tmp_path):
    reports = list(study.patients)
    files = write(
        tmp_path,
        reading(study, "A", answers(1, ["w4a8"])),
        reading(study, "B", answers(2, ["w4a8"]), reports=reports[:15]),
        reading(study, "C", answers(3)),
    )
    record = readers_record(study, files, SETTINGS)
    units = {}
    for path in files:
        for each in json.loads(path.read_text())["ratings"]:
            text = study.texts[each["report"]][each["system"]]
            reader = units.setdefault((each["report"], text), {})
            reader[path] = each
    given = [list(unit.values()) for unit in units.values()]
    assert record["agreement"]["units"] == len(units) < 3 * len(reports)
    found = record["agreement"]["alpha"]
    scale = [[each["acceptability"] for each in unit] for unit in given]
    assert found["acceptability"]["value"] == pytest.approx(alpha_by_hand(scale, ordinal))
    scale = [[HARM.index(each["harm"]) for each in unit] for unit in given]
    assert found["harm"]["value"] == pytest.approx(alpha_by_hand(scale, ordinal))
    for kind in ERRORS:
        scale = [[int(kind in each["errors"]) for each in unit] for unit in given]
        assert found[kind]["value"] == pytest.approx(alpha_by_hand(scale, nominal))
        assert found[kind]["low"] <= found[kind]["value"] <= found[kind]["high"]
    pair = record["agreement"]["pairs"][0]
    assert pair["readers"] == ["A", "B"]
    both = [unit for unit in units.values() if files[0] in unit and files[1] in unit]
    one, other = (np.array([unit[f]["acceptability"] for unit in both]) for f in files[:2])
    n, spread = len(both), ((one[:, None] - other[None, :]) ** 2).mean()
    assert pair["acceptability"]["quadratic"]["n"] == n
    expected = 1 - ((one - other) ** 2).mean() / spread
    assert pair["acceptability"]["quadratic"]["value"] == pytest.approx(expected)


def test_a_precision_that_readers_reject_is_worse_and_an_equal_one_is_not(study, tmp_path):
    files = write(
        tmp_path,
        *(reading(study, f"R{seed}", answers(seed, ["w4a8"])) for seed in range(3)),
    )
    record = readers_record(study, files, SETTINGS)
    found = record["comparisons"]["acceptable"]["systems"]
    worse, same = found["w4a8"]["together"], found["w4a16"]["together"]
    assert (worse["difference"], worse["patients"], worse["reports"]) == (-1, 12, 24)
    assert worse["p_holm"] < 0.05
    assert worse["p"] > 2 * 0.5**24  # by patient, not by report
    assert found["w4a8"]["majority"]["original_only"] == 24
    assert (same["changed"], same["difference"], same["p"]) == (0, 0, 1)
    # Of 12 patients none differs: by Clopper and Pearson up to 26 % may.
    assert same["interval"]["high"] >= 1 - 0.025 ** (1 / 12)
    assert same["interval"]["low"] == -same["interval"]["high"]
    page = readers_page(record)
    assert "w4a8, acceptable (acceptability of 4 or 5): worse, less often" in page
    assert (
        "as often as the original in every report, on average over the readers (0 percentage"
        in " ".join(page.split())
    )
    assert "Readers agree too little on harm" in page
    # Holm over two precisions: the smallest p counts twice.
    for reader in ("R0", "R1", "R2"):
        row = found["w4a8"]["readers"][reader]
        assert row["p_holm"] == pytest.approx(min(1, 2 * row["p"]))


def test_readers_who_say_the_same_of_all_are_not_told_to_disagree(study, tmp_path):
    files = write(tmp_path, *(reading(study, each, lambda *_: (5, "none", [])) for each in "AB"))
    record = readers_record(study, files, SETTINGS)
    assert record["agreement"]["alpha"]["harm"]["value"] is None
    assert record["agreement"]["pairs"][0]["harm"]["quadratic"]["value"] is None
    page = readers_page(record)
    assert "agree too little" not in page
    assert "w4a8, harmful (harm moderate or severe): as often as the original" in page


def test_one_reader_alone_and_ratings_that_are_missing(study, tmp_path):
    record = reading(study, "A", answers(1), [*SYSTEMS, REFERENCE])
    record["ratings"] = record["ratings"][5:]
    found = readers_record(study, write(tmp_path, record), SETTINGS)
    assert found["agreement"] == {"units": found["agreement"]["units"], "alpha": {}, "pairs": []}
    assert found["readers"]["A"]["missing"] == 5
    assert found["comparisons"]["acceptable"]["systems"]["w4a16"]["majority"] is None
    assert (
        found["comparisons"]["acceptable"]["systems"][REFERENCE]["together"].get("p_holm") is None
    )
    page = readers_page(found)
    assert "One reader rated outputs of 23 of 24 reports" in page
    assert "5 ratings are missing" in page
    assert "how far readers agree is not known" in page
    record["ratings"] = []
    empty = readers_record(study, write(tmp_path, record, record | {"reader": "B"}), SETTINGS)
    assert "not compared" in readers_page(empty)


def entry(record, **values):
    record["ratings"][2] |= values


SPOILED = {
    "another run": (lambda r: r.update(run="0" * 16), "is of another run than these results"),
    "format": (lambda r: r.update(format=2), "is not of format 1"),
    "no reader": (lambda r: r.update(reader=" "), "names no reader"),
    "two lines": (lambda r: r.update(reader="a\nb"), "names no reader on one line"),
    "system": (lambda r: r.update(systems=["original", "w3"]), "systems names one that the run"),
    "twice": (lambda r: r.update(systems=["original", "original"]), "names one twice"),
    "count": (lambda r: r.update(count=25), "no number from 1 to 24"),
    "few": (lambda r: r.update(count=3), "more than its count of 3"),
    "time": (lambda r: r.update(created="today"), "no time under created"),
    "shown": (lambda r: r.update(reference="yes"), "none of hidden, shown, blinded"),
    "no ratings": (lambda r: r.pop("ratings"), "lacks ratings"),
    "no list": (lambda r: r.update(ratings={}), "no list of ratings"),
    "no object": (lambda r: r["ratings"].insert(2, SECRET), "entry 3 of ratings that is no object"),
    "double": (
        lambda r: r["ratings"].append(r["ratings"][2]),
        "entry 73 of ratings and in entry 3",
    ),
    "report": (lambda r: entry(r, report=SECRET), "names a report in entry 3 of ratings"),
    "unread": (lambda r: entry(r, system="w4a4"), "a system in entry 3 of ratings that is none of"),
    "scale": (lambda r: entry(r, acceptability=6), "an acceptability in entry 3 of ratings"),
    "truth": (lambda r: entry(r, acceptability=True), "an acceptability in entry 3 of ratings"),
    "harm": (lambda r: entry(r, harm=SECRET), "a harm in entry 3 of ratings that is none of none"),
    "error": (lambda r: entry(r, errors=[SECRET]), "an error in entry 3 of ratings"),
    "errors": (lambda r: entry(r, errors=[ERRORS[0]] * 2), "an error twice in entry 3 of ratings"),
    "comment": (lambda r: entry(r, comment=[SECRET]), "a comment in entry 3 of ratings"),
    "seconds": (lambda r: entry(r, seconds=-1), "seconds in entry 3 of ratings"),
    "key": (lambda r: r["ratings"][2].pop("harm"), "lacks harm in entry 3 of ratings"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_what_is_no_reading_of_this_run_gets_one_sentence(study, tmp_path, spoil):
    change, says = SPOILED[spoil]
    record = reading(study, "A", answers(1))
    change(record)
    with pytest.raises(UserError) as caught:
        readers_record(study, write(tmp_path, record), SETTINGS)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "0.json"))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_no_reading_file(study, tmp_path):
    record = reading(study, "A", answers(1))
    for content in ("", "[]", '{"a"', json.dumps(record)[:-1], "[" * 100_000, "\ud800"):
        (tmp_path / "0.json").write_bytes(content.encode(errors="surrogatepass"))
        with pytest.raises(UserError, match=r"0\.json.* (is no JSON in UTF-8|holds no object);"):
            read_readings([tmp_path / "0.json"], study.run, list(study.patients), SYSTEMS)
    with pytest.raises(UserError, match=r"1\.json is of the same reader as .*0\.json"):
        readers_record(study, write(tmp_path, record, record | {"reader": "a "}), SETTINGS)
    with pytest.raises(UserError, match=r"gone\.json does not exist"):
        readers_record(study, [tmp_path / "gone.json"], SETTINGS)


def test_the_script_writes_both_files_without_comments(results, study, tmp_path):
    files = write(tmp_path, *(reading(study, each, answers(int(each))) for each in ("1", "2")))
    command = [sys.executable, str(ROOT / "scripts/readers.py"), "--results", str(results)]
    command += ["--readings", *map(str, files), "--output", str(tmp_path / "readers.json")]
    command += ["--markdown", str(tmp_path / "readers.md")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'readers.md'}: 2 readers\n"
    text = (tmp_path / "readers.json").read_text() + (tmp_path / "readers.md").read_text()
    assert SECRET not in text
    assert not any(report in text for report in study.patients)
    record = read_record(tmp_path / "readers.json", as_run(study))
    assert record["readers"].keys() == {"1", "2"}
    assert readers_section(record).startswith("## What readers said")
    assert readers_section(None) == ""


def as_run(study, **texts):
    """The part of a run that its id depends on."""
    columns = {
        name: [each[name] for each in study.texts.values()]
        for name in [*study.precisions, REFERENCE]
    } | texts
    tables = {name: pd.DataFrame({"output": columns[name]}) for name in study.precisions}
    reports = pd.DataFrame({"id": list(study.patients), "reference": columns[REFERENCE]})
    return SimpleNamespace(reports=reports, generations=tables, precisions=study.precisions)


def test_a_record_of_other_texts_is_refused(study, tmp_path):
    path = tmp_path / "readers.json"
    write_json(
        path, readers_record(study, write(tmp_path, reading(study, "A", answers(1))), SETTINGS)
    )
    assert read_record(path, as_run(study))["run"] == study.run
    assert read_record(None, as_run(study)) is None
    other = as_run(study, w4a4=["Another text."] * len(study.patients))
    with pytest.raises(UserError, match=r"readers\.json is of another run's texts"):
        read_record(path, other)
    write_json(path, {"format": 0})
    with pytest.raises(UserError, match="comes from another version"):
        read_record(path, other)
