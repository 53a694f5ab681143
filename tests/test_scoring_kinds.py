"""Annotators and metrics as kinds: one file and one line of the registry add one everywhere."""

import math
import re
import runpy
import shutil
import statistics
import sys
from pathlib import Path

import pytest
from explorer_reports import CONFIG, REPORTS, make_run, page_parts
from mypy import api as mypy
from reading import read_jsonl, report_tables

from radquant import registry
from radquant.errors import UserError
from radquant.files import read_table, write_json, write_table
from radquant.reporting import comparison
from radquant.reporting.collect import collect
from radquant.reporting.judgement import judge
from radquant.reporting.provenance import provenance
from radquant.reporting.recheck import recheck
from radquant.reporting.sides import read_side
from radquant.reporting.summary import summarize
from radquant.scoring.annotators.kind import Annotator
from radquant.scoring.measures.kind import Measure
from radquant.scoring.metrics import columns
from radquant.scoring.metrics.kind import Metric
from radquant.settings.run import BASELINES

ROOT = Path(__file__).parents[1]
ANNOTATOR = '''
"""Every long word is a finding that is there."""
from radquant.scoring.annotators.kind import Loaded

MEASURE = "toy F1"
CAVEAT = "The toy knows long words only."
ENVIRONMENT = "toy-environment"
QUICK = True
SETTINGS = ()

def check(settings):
    pass

def online(settings):
    return False

def load(settings, threads):
    return Loaded("toy 1", annotate)

def annotate(texts):
    for text in texts:
        words = text.split()
        places = [place for place, word in enumerate(words) if len(word) > 7]
        yield text, {"text": " ".join(words), "entities": {
            str(number): {"tokens": words[place], "label": "Observation::definitely present",
                          "start_ix": place, "end_ix": place, "relations": []}
            for number, place in enumerate(places, 1)}}
'''
METRIC = '''
"""Full stops, of which there should be few, and letters."""
import math
from radquant.scoring.metrics.kind import About, Column

ABOUT = About(
    columns=(
        Column("toy_stops", "full stops", range=(0, 50), better="less"),
        Column("toy_letters", "letters", kind=int, range=(0, math.inf), table=False, runs=False),
    ),
    citation="Toy et al. (2026)",
    note="Full stops are counted after {citation}.",
)

def measure(pair):
    return pair.output.count("."), len(pair.output)
'''
TOY = CONFIG | {"scoring": {"annotator": "toy"}}
STOPS = {
    name: [row[2 + place].count(".") for row in REPORTS.values()]
    for place, name in enumerate(CONFIG["precisions"])
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A toy annotator and a toy metric: a file each, and a line of the registry each."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "toy_annotator.py").write_text(ANNOTATOR)
    (folder / "toy_metric.py").write_text(METRIC)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setitem(registry.ANNOTATORS, "toy", "toy_annotator")
        patch.setitem(registry.METRICS, "toy", "toy_metric")
        yield folder


@pytest.fixture(scope="module")
def results(toys, tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("toy-run") / "results", config=TOY)
    write_json(folder / "venvs/toy-environment/ready.json", {"packages": {"toy": "1"}})
    return folder


@pytest.fixture(scope="module")
def run(results):
    return collect(results, TOY)


@pytest.fixture(scope="module")
def parts(run, tmp_path_factory):
    return page_parts(run, tmp_path_factory.mktemp("toy-figures"))


def test_the_script_annotates_by_the_toy(toys, results, tmp_path, monkeypatch):
    words = ["--annotator", "toy", "--texts", str(results / "data/eval.csv")]
    words += ["--column", "impression", "--output", str(tmp_path / "notes.jsonl")]
    monkeypatch.setattr(sys, "argv", ["annotate.py", *words])
    runpy.run_path(str(ROOT / "scripts/annotate.py"))["main"]()
    notes = read_jsonl(tmp_path / "notes.jsonl")
    assert notes == read_jsonl(results / "annotations/reference.jsonl")
    assert {note["annotator"] for note in notes} == {"toy 1"}
    assert [e["tokens"] for e in notes[0]["entities"].values()] == ["effusion.", "cardiomegaly."]


def test_scores_have_the_toys_columns(results):
    table = read_table(results / "scores/w4a8.parquet")
    assert list(table["toy_stops"]) == STOPS["w4a8"]
    assert table["toy_stops"].dtype == "float64"  # among the scores, before what is counted
    names = list(table)
    assert names.index("rouge_l_original") < names.index("toy_stops") < names.index("identical")
    assert names.index("output_words") < names.index("toy_letters") < names.index("statuses")


def test_the_report_shows_the_toys(parts):
    report = parts[0]
    assert "## Quality: toy F1" in report
    assert "lexicon" not in report.partition("## How to reproduce")[0].lower()
    text = " ".join(report.split())
    assert "Full stops are counted after Toy et al. (2026). Of full stops, less is better." in text
    assert "- The toy knows long words only." in text
    header, _, *rows = next(rows for rows in report_tables(report) if rows[0][0] == "system")
    place = header.index("full stops")
    assert header[place - 1] == "ROUGE-L"  # after the metrics that were there
    assert header[4] == "perplexity"
    cells = {row[0]: row[place] for row in rows}
    for name, counts in STOPS.items():
        assert float(cells[name]) == pytest.approx(statistics.mean(counts), abs=6e-4)
    assert {"copy-input", "constant"} < set(cells)
    tested = next(rows for rows in report_tables(report) if "level" in rows[0])
    levels = list(dict.fromkeys(row[1].removesuffix(" (exploratory)") for row in tested[2:]))
    assert levels == ["combined", "entities", "relations", "full stops", "letters"]
    # Without a bound of its range, nothing is said of the margin.
    place = tested[0].index("non-inf. p")
    letters = [row for row in tested if row[1].startswith("letters")]
    assert {(row[place], row[place + 1]) for row in letters} == {("–", "–")}


def test_summary_and_tests_of_differences_have_the_toys(run):
    quality = summarize(run)["quality"]
    before = STOPS["original"]
    for name, counts in STOPS.items():
        assert quality["systems"][name]["toy_stops"] == pytest.approx(statistics.mean(counts))
    for name, row in quality["differences"]["toy_stops"].items():
        change = [one - other for one, other in zip(STOPS[name], before, strict=True)]
        assert row["mean"] == pytest.approx(statistics.mean(change))
        assert row["interval"]["low"] <= row["mean"] <= row["interval"]["high"]
    assert quality["differences"]["toy_letters"]["w4a8"]["equivalence_p_holm"] is None
    assert quality["settings"]["primary"] == "complete"  # which judges all the same


def test_the_summary_has_every_ruler_of_every_system(run):
    quality = summarize(run)["quality"]
    rows = {row["name"]: row for row in quality["rulers"]}
    assert {"rouge_l", "bleu_2", "complete", "rg1_mean", "errors_weighted"} < rows.keys()
    assert {"chexpert14_macro_uncertain_positive", "toy_stops"} < rows.keys()
    assert not {"fidelity_complete", "identical", "rouge_l_original", "empty"} & rows.keys()
    assert [name for name, row in rows.items() if row["primary"]] == ["complete"]
    for row in rows.values():
        assert set(row["systems"]) == {*quality["precisions"], *BASELINES}
        before = row["systems"]["original"]
        for name, compared in row["differences"].items():
            if before is None:  # no label occurs
                assert compared == {"mean": None, "interval": None}
                continue
            assert compared["mean"] == pytest.approx(row["systems"][name] - before, abs=1e-9)
            assert compared["interval"]["low"] <= compared["mean"] + 1e-9
            assert compared["mean"] <= compared["interval"]["high"] + 1e-9
    for name in ("simple", "complete"):
        same = quality["differences"][name]["w4a8"]
        assert rows[name]["differences"]["w4a8"]["interval"] == same["interval"]
    groups = list(dict.fromkeys(row["group"] for row in rows.values()))
    assert groups == ["overlap", "entity", "label", "errors", "other"]


def test_the_report_says_which_rulers_depend_on_each_other(parts):
    section = parts[0].partition("### More than one ruler")[2].partition("\n## ")[0]
    text = " ".join(section.split())
    assert "**combined** (primary)" in text
    assert "| full stops ↓ |" in text
    assert "All others are exploratory" in text
    assert "the CheXpert labels and the errors come from the same annotations (toy 1)" in text
    assert "ROUGE-L, BLEU-2 and full stops read no annotation" in text
    assert re.search(r"CheXpert-14 macro F1, uncertain positive \(\d+ labels\)", text)
    assert "not from the CheXpert labeler" in text
    prose = [part for part in section.split("\n\n") if not part.startswith(("|", "<"))]
    for sentence in re.split(r"(?<=[.!?]) (?:- )?(?=[A-Z*↓])", " ".join(" ".join(prose).split())):
        assert len(sentence.split()) <= 25, sentence


def test_fewer_is_better_where_the_column_says_so(results, tmp_path):
    config = TOY | {"precisions": {name: TOY["precisions"][name] for name in ("original", "w4a4")}}
    folder = make_run(tmp_path / "results", config=config)
    table = read_table(folder / "scores/w4a4.parquet")
    for sign, word in ((-1, "better"), (1, "worse")):
        changed = read_table(results / "scores/original.parquet")["toy_stops"] + 2 + sign
        with pytest.MonkeyPatch.context() as patch:
            run = collect(folder, config)
            patch.setitem(run.scores, "w4a4", table.assign(toy_stops=changed))
            before = run.scores["original"].assign(toy_stops=changed - sign)
            patch.setitem(run.scores, "original", before)
            row = summarize(run)["quality"]["differences"]["toy_stops"]["w4a4"]
        assert row["mean"] == sign
        row["interval"] |= {"low": sign, "high": sign}  # so few reports leave it wider
        assert judge(row, 0.95, less_is_better=True) == word


def test_values_out_of_a_columns_range_are_refused(results, tmp_path, monkeypatch):
    column = registry.load_kind(registry.METRICS, "toy").ABOUT.columns[0]
    monkeypatch.setitem(vars(column), "range", (0, 1))
    with pytest.raises(UserError, match=r"'toy_stops': .* are not numbers from 0 to 1, first at"):
        collect(results, TOY)
    monkeypatch.setitem(vars(column), "range", (0, math.inf))
    table = read_table(results / "scores/w4a8.parquet")
    folder = shutil.copytree(results, tmp_path / "results")
    table.loc[3, "toy_stops"] = math.inf
    write_table(folder / "scores/w4a8.parquet", table)
    with pytest.raises(UserError, match=r"1 value.* from 0 to inf, first at id 'case-04'"):
        collect(folder, TOY)


def test_scores_are_computed_again_for_the_toys_too(results, run):
    recheck(results, run)
    run.scores["w4a8"].loc[0, "toy_stops"] += 1
    with pytest.raises(UserError, match="column 'toy_stops'"):
        recheck(results, run)
    run.scores["w4a8"].loc[0, "toy_stops"] -= 1


def test_the_explorer_names_the_toys_measure(parts):
    assert parts[2]["measure"] == "toy F1"


def test_compared_runs_show_the_toys(results, toys, tmp_path):
    other = make_run(tmp_path / "results", {**REPORTS, "case-01": ("a.",) * 6}, TOY)
    write_json(other / "venvs/toy-environment/ready.json", {"packages": {"toy": "2"}})
    for folder in (results, other):
        write_json(folder / "provenance.json", provenance(collect(folder, TOY)))
    a, b = map(read_side, (results, other))
    header, _, *rows = report_tables(comparison.render(a, b))[1]
    assert "letters" not in header  # as its module wants it
    cells = {row[0]: row[header.index("full stops")] for row in rows}
    for name, counts in STOPS.items():
        assert float(cells[name]) == pytest.approx((1 - counts[0]) / len(counts), rel=1e-2)
    (entry,) = [e for e in comparison.entries(a, b) if e.path[0] == "environments"]
    assert entry.name == "environments toy-environment packages toy"
    assert comparison.can_move(entry, "w4a8", {""}, a, b) == {"scores"}


KINDS = [("ANNOTATORS", Annotator), ("METRICS", Metric), ("MEASURES", Measure)]


@pytest.mark.parametrize(("table", "protocol"), KINDS)
def test_every_kind_has_the_names_of_its_protocol(table, protocol):
    for name in getattr(registry, table):
        assert isinstance(registry.load_kind(getattr(registry, table), name), protocol)


def test_kinds_are_typed_as_their_protocols(tmp_path, monkeypatch):
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    lines = []
    for table, protocol in KINDS:
        lines.append(f"from {protocol.__module__} import {protocol.__name__}")
        for place, module in enumerate(getattr(registry, table).values()):
            if module.startswith("radquant."):
                package, _, name = module.rpartition(".")
                lines.append(f"from {package} import {name} as {table}{place}")
                lines.append(f"{table}{place}_kind: {protocol.__name__} = {table}{place}")
    program = tmp_path / "kinds.py"
    program.write_text("\n".join(lines))
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    out, err, code = mypy.run([*config, "--cache-dir", str(ROOT / ".mypy_cache"), str(program)])
    assert code == 0, out + err


def test_no_two_metrics_share_a_column_and_scores_come_first():
    names = [column.name for column in columns.columns()]
    assert len(set(names)) == len(names)
    kinds = [column.kind for column in columns.columns()]
    assert kinds == sorted(kinds, key=[float, bool, int].index)
    assert [column.name for column in columns.levels()] == ["simple", "partial", "complete"]
    assert columns.tested()[0] == columns.primary()


def test_every_tested_column_says_which_way_is_better():
    assert not [c.name for c in columns.tested() if c.better == "neither"]
    assert all(metric.ABOUT.citation for metric in columns.metrics())
