"""The report stage on a small results folder in the real file formats; all sentences invented."""

import copy
import json
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from reading import read_jsonl
from report_run import (
    CONFIG,
    REPORTS,
    AnyText,
    change_record,
    change_table,
    make_results,
)

from radquant.files import read_json, read_table, write_jsonl
from radquant.reporting import formatting
from radquant.reporting.changes_section import example_texts
from radquant.reporting.collect import collect
from radquant.reporting.drawing import STYLE, WIDTH, add_legend, legend_height, look
from radquant.reporting.figures import figures, write_figures
from radquant.reporting.markdown import render
from radquant.reporting.summary import summarize
from radquant.scoring.agreement import AGREEMENT


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="session")
def summary(finished):
    return summarize(collect(finished, CONFIG))


@pytest.fixture(scope="session")
def report(finished, summary):
    return render(summary, example_texts(collect(finished, CONFIG), summary), "figures")


@pytest.fixture
def results(tmp_path):
    """A finished run that the test may spoil."""
    return make_results(tmp_path / "results")


def leaves(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def table_lines(report):
    return [line for line in report.splitlines() if line.startswith("|") and "---" not in line]


def test_every_number_of_every_table_is_in_the_summary(report, summary):
    written = set()
    for value in leaves(summary):
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, str):
            written.add(formatting.escape(value))
            continue
        for digits in range(5):
            written |= {formatting.number(value, digits), formatting.change(value, digits)}
        written |= {formatting.ratio(value), formatting.share(value), formatting.size(value)}
        written |= {formatting.share(value, 1), f"{value:.2e}×"}
        written |= {formatting.perplexity(value), formatting.probability(value)}
        written.add(f"{value:,.0f} s")
    number = re.compile(r"(?<![\w.,])[<+−]?\d[\d,.]*(?:e[+-]?\d+)?(?: (?:%|MB|GB|kB|s)(?!\w))?×?")
    found = 0
    for line in table_lines(report):
        for cell in map(str.strip, line.strip("| ").split(" | ")):
            if re.fullmatch("[0-9a-f]{64}", cell):
                continue  # a hash: some have no three letters in a row
            if re.search("[a-zA-Z]{3}", cell) and not cell.rstrip(")").endswith("equal"):
                continue  # words: headings, names
            for text in number.findall(cell):
                found += 1
                assert text in written, (text, line)
    assert found > 250


def test_likelihood_and_perplexity_against_their_definitions(finished, summary):
    tables_of = {
        name: read_table(finished / f"likelihood/{name}.parquet").set_index("id")
        for name in ("original", "w4a8")
    }
    nats = tables_of["w4a8"]["nll"] - tables_of["original"]["nll"]  # pandas pairs them by id
    pooled = nats.sum() / tables_of["w4a8"]["tokens"].sum()
    row = summary["quality"]["likelihood_differences"]["w4a8"]
    assert row["mean"] == pytest.approx(pooled)
    assert row["interval"]["low"] < pooled < row["interval"]["high"]
    table = tables_of["w4a8"]
    expected = np.exp(table["nll"].sum() / table["tokens"].sum())
    assert summary["quality"]["systems"]["w4a8"]["perplexity"] == pytest.approx(expected)


def test_what_generation_took_is_added_up_over_shards(summary, report):
    row = summary["performance"]["systems"]["w4a16"]
    assert (row["wall_seconds"], row["output_tokens"]) == (14, 9 * REPORTS)
    assert row["disk_bytes"] == 2072
    assert "tokens_per_second" not in row
    assert "No speed was measured" in report


def test_precisions_stand_as_configured_after_the_original(summary):
    assert summary["quality"]["precisions"] == ["original", "w4a16", "w4a16-rtn", "w4a8", "w4a4"]


def test_hostile_text_is_shown_as_text(report):
    block = next(b for b in re.findall(r"```text\n(.*?)\n```\n", report, re.S) if "<script>" in b)
    assert "\x1b" not in report
    # The fence inside the text stands within a line, where it closes nothing.
    assert "<script>alert(1)</script> ``` # *no* effusion \ufffd[31m & [x](y)" in " ".join(
        block.split()
    )
    outside = re.sub(r"```text\n.*?\n```\n", "", report, flags=re.S)
    assert "<script>" not in outside


def test_summary_holds_no_report_text(summary):
    text = json.dumps(summary)
    assert "odule" not in text  # nor "odulex", a finding that only a report's own word names
    assert '"mass"' in text  # a name of ours


def test_examples_take_the_worst_of_each_precision(summary):
    found = [(row["precision"], row["kinds"]) for row in summary["quality"]["examples"]]
    assert found == [("w4a16", {"lost": 2}), ("w4a4", {"lost": 2})]


def test_a_baseline_above_the_model_is_said(report):
    assert "**constant (0.522) scores at least as high without any model" in report


HUB = {"kind": "hub", "id": "some/texts", "file": "a.csv", "revision": "b" * 40, "column": "text"}


@pytest.mark.parametrize(
    ("calibration", "sentence", "row"),
    [
        ({}, "calibrated on 8 training texts, 400 tokens.", f"`calibration prompt` | {'c' * 64}"),
        (
            {"source": {**HUB, "sha256": "d" * 64}, "prompt_hash": None, "packed": True},
            "calibrated on 8 texts from some/texts (a.csv), packed into 8 sequences, 400 tokens.",
            f"`calibration texts` | {'d' * 64}",
        ),
        (
            {
                "source": {"kind": "table", "path": "t.csv", "sha256": "e" * 64},
                "prompt_hash": None,
            },
            "calibrated on 8 texts from t.csv, 400 tokens.",
            f"`calibration texts` | {'e' * 64}",
        ),
    ],
)
def test_the_calibration_texts_are_named(finished, summary, calibration, sentence, row):
    changed = {**summary, "calibration": {**summary["calibration"], **calibration}}
    report = render(changed, example_texts(collect(finished, CONFIG), changed), "figures")
    assert sentence in " ".join(report.split())
    assert row in " ".join(report.split())


def test_annotator_is_named_and_lexicon_is_not_called_radgraph(report):
    assert "## Quality: clinical F1 (lexicon)" in report
    assert "lexicon 1 (sha256 0123456789ab)" in report
    headings = [line for line in report.splitlines() if line.startswith("#")]
    assert not any("RadGraph" in line for line in headings)


def test_the_lexicons_agreement_is_printed_only_of_the_rules_that_were_measured(report, results):
    assert "agree with RadGraph-XL has not been measured" in " ".join(report.split())
    record = read_json(AGREEMENT)
    for path in results.glob("scores/*.parquet"):
        change_table(path, lambda table: table.assign(annotator=record["lexicon"]))
    for path in results.glob("annotations/**/*.jsonl"):
        notes = [{**note, "annotator": record["lexicon"]} for note in read_jsonl(path)]
        write_jsonl(path, notes)
    text = " ".join(render(summarize(collect(results, CONFIG)), AnyText(), "figures").split())
    for name in ("finding F1", "finding + status F1", "uncertain F1"):
        figures = record["agreement"][name]
        assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**figures) in text
    assert "has not been measured" not in text


def test_radgraph1_definitions_have_their_own_table(finished, report, summary):
    table = report.partition("### By the definitions of ReXrank")[2].partition("##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    rows = {row[0]: row[1:] for row in rows if row}
    assert rows["system"] == ["entity F1", "relation F1", "mean of both"]
    assert set(summary["quality"]["systems"]) < set(rows)
    for system in summary["quality"]["systems"]:
        combined = read_table(finished / "scores" / f"{system}.parquet")["complete"].mean()
        expected = [combined * 0.9, combined * 0.7, combined * 0.8]
        assert [float(cell) for cell in rows[system]] == pytest.approx(expected, abs=6e-4)


def test_equal_results_give_equal_quality_and_figures(finished, summary, tmp_path):
    again = summarize(collect(finished, CONFIG))
    assert again["quality"] == summary["quality"]
    write_figures(summary, tmp_path / "one")
    write_figures(again, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.fixture(scope="module")
def points_drawn(summary):
    """{figure: {name: (x, y) of its mark}} of the figures in which precisions have a place."""
    found = {}
    for name in ("loss", "tradeoff"):
        figure = figures(summary)[name].draw()
        marks = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
        found[name] = {line.get_label(): line.get_xydata()[0].tolist() for line in marks}
        plt.close(figure)
    return found


def test_no_point_of_a_figure_is_moved_from_its_value(summary, points_drawn):
    quality, systems = summary["quality"], summary["performance"]["systems"]
    sizes = {name: row["weight_bytes"] / 1e6 for name, row in systems.items()}
    assert len(set(sizes.values())) == 2  # so that points would cover each other
    changes = {name: row["mean"] for name, row in quality["differences"]["complete"].items()}
    changes["original"] = 0.0
    scores = {name: quality["systems"][name]["complete"] for name in sizes}
    for figure, values in (("loss", changes), ("tradeoff", scores)):
        expected = {name: [sizes[name], values[name]] for name in sizes}
        assert points_drawn[figure] == expected


def test_the_original_looks_like_no_precision():
    own = look(0)
    others = [look(place) for place in range(1, 40)]
    assert own[0] not in {colour for colour, _, _ in others}
    assert own[1] not in {marker for _, marker, _ in others}


def test_a_ruined_precision_does_not_hide_the_margin(summary):
    """Beside a loss of many margins a second panel shows what is near the original."""
    drawn = figures(summary)["loss"]
    figure = drawn.draw()
    wide, near = (axis.get_ylim() for axis in figure.axes)
    plt.close(figure)
    margin = summary["quality"]["margin"]
    assert wide[0] < -0.3
    assert near == (-4 * margin, 4 * margin)
    assert "enlarged" in drawn.caption
    mild = copy.deepcopy(summary)
    for row in mild["quality"]["differences"]["complete"].values():
        row |= {"mean": -margin, "interval": {"low": -2 * margin, "high": margin}}
    figure = figures(mild)["loss"].draw()
    assert len(figure.axes) == 1
    plt.close(figure)


def test_a_legend_of_many_precisions_is_whole_and_covers_nothing():
    names = ["original", *(f"q4_k_m-llama.cpp-{number}" for number in range(13))]
    with matplotlib.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, 2 + legend_height(names)))
        for name in names:
            axis.bar([0], [1], label=name)
        add_legend(figure, axis, names)
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        panel = axis.get_tightbbox()
    plt.close(figure)
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    assert legend.y1 <= figure.bbox.y1
    assert panel.y1 <= legend.y0
    assert len({look(index)[:2] for index in range(14)}) == 14
    assert len({look(index)[::2] for index in range(14)}) == 14


def test_other_speeds_leave_quality_alone(results, summary):
    for path in results.glob("generations/*/*.json"):
        change_record(path, wall_seconds=99.0, peak_process_bytes=1)
    assert summarize(collect(results, CONFIG))["quality"] == summary["quality"]


def test_the_original_alone_has_a_report_too(tmp_path):
    config = CONFIG | {"checkpoints": {}, "precisions": {"original": {"checkpoint": "original"}}}
    run = collect(make_results(tmp_path / "results", config), config)
    summary = summarize(run)
    write_figures(summary, tmp_path)
    assert "Only the original model was run." in render(summary, {}, ".")
    assert [path.name for path in tmp_path.glob("*.svg")] == ["tradeoff.svg"]


def test_radgraph_scores_are_called_radgraph(tmp_path):
    config = CONFIG | {"scoring": {"annotator": "radgraph"}}
    results = make_results(tmp_path / "results", config)
    annotator = "radgraph 0.1.18 modern-radgraph-xl (ab)"
    for path in results.glob("scores/*.parquet"):
        change_table(path, lambda table: table.assign(annotator=annotator))
    for path in results.glob("annotations/**/*.jsonl"):
        write_jsonl(path, [note | {"annotator": annotator} for note in read_jsonl(path)])
    report = render(summarize(collect(results, config)), AnyText(), "figures")
    assert "## Quality: RadGraph F1" in report
    assert "lexicon" not in report
