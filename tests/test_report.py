"""The report stage on a small results folder in the real file formats; all sentences invented."""

import copy
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from radquant.errors import UserError
from radquant.files import read_json, read_table, write_json, write_table
from radquant.quantization.recipe import Recipe
from radquant.reporting import tables
from radquant.reporting.collect import collect
from radquant.reporting.figures import write_figures
from radquant.reporting.markdown import render
from radquant.reporting.sections import example_texts
from radquant.reporting.summary import summarize
from radquant.reporting.verdict import state, verdict

ROOT = Path(__file__).parents[1]
HOSTILE = "Clear | lungs <script>alert(1)</script>\n```\n# *no* effusion \x1b[31m & [x](y)"
REPORTS = 24
STATES = [
    *("worse", "worse, within the margin", "better", "better, within the margin"),
    *("equivalent", "cannot tell"),
]
# By precision: mean and spread of the change of the combined F1, and change of the NLL per token.
EFFECTS = {
    "original": (0.0, 0.0, 0.0),
    "w4a16": (0.0, 0.0, 0.1),
    "w4a16-rtn": (-0.02, 0.005, 0.3),
    "w4a8": (-0.005, 0.1, 0.15),
    "w4a4": (-0.3, 0.05, 3.0),
}
CONFIG = {
    "seed": 7,
    "model": {"name": "tiny_model", "path": "models/tiny"},
    "corpus": {"name": "invented", "format": "table", "path": "reports.csv"},
    "task": {"inputs": ["findings"], "target": "impression"},
    "checkpoints": {
        "awq-w4": vars(Recipe("awq", 4, 64)),
        "rtn-w4": vars(Recipe("rtn", 4, 64)),
    },
    "precisions": {
        "w4a16": {"checkpoint": "awq-w4"},
        "w4a16-rtn": {"checkpoint": "rtn-w4"},
        "original": {"checkpoint": "original"},
        "w4a8": {"checkpoint": "awq-w4", "activations": {"bits": 8}},
        "w4a4": {"checkpoint": "awq-w4", "activations": {"bits": 4}},
    },
    "generation": {"shards": 2, "prompt": "prompts/impression.txt"},
    "scoring": {"annotator": "lexicon"},
    "statistics": {"resamples": 1000, "confidence": 0.95, "margin": 0.01},
}


def make_results(folder, config=CONFIG):
    """Write a finished run under `folder` and return `folder`."""
    rng = np.random.default_rng(0)
    ids = [f"r{number:02d}" for number in rng.permutation(REPORTS)]
    base = rng.uniform(0.2, 0.7, REPORTS)
    reports = pd.DataFrame({"id": ids, "impression": [f"Small nodule number {i}." for i in ids]})
    write_table(folder / "data/eval.csv", reports.assign(findings="A nodule."))
    write_table(folder / "data/train.csv", reports.assign(id=[f"t{i}" for i in ids]))
    write_table(folder / "data/raw.parquet", reports)
    steps = [{"step": "read", "removed": 0, "left": 90}, {"step": "cut", "removed": 10, "left": 80}]
    cleaning = {"seed": 7, "steps": steps, "train": 56, "eval": REPORTS}
    cleaning |= {"split": "by hash", "unit": "patient"}
    write_json(folder / "data/cleaning.json", cleaning)
    calibration = {
        "samples": 8,
        "tokens": 400,
        "max_tokens": 64,
        "seed": 7,
        "prompt_hash": "c" * 64,
        "texts": 8,
        "packed": False,
        "source": {"kind": "corpus"},
    }
    write_json(folder / "calibration/set.json", calibration)
    write_weights(folder / "models/original", 4000)
    source = {
        "kind": "path",
        "note": "The weights come from a 4-bit GGUF.",
        "files": {"a": "f" * 64},
    }
    write_json(folder / "models/original/source.json", source)
    for name, recipe in config["checkpoints"].items():
        write_weights(folder / "checkpoints" / name, 1000)
        layers = [{"name": f"l.{i}", "weight_error": 0.1 + i / 100} for i in range(3)]
        record = {"recipe": recipe, "layers": layers, "checks": {"layers_quantized": 3}}
        cost = {"wall_seconds": 12.5, "cpu_seconds": 11.0, "peak_process_bytes": 900_000_000}
        write_json(folder / "checkpoints" / name / "quantization.json", record | cost)
    for name, precision in config["precisions"].items():
        outputs = [
            HOSTILE if i == ids[0] and name != "original" else f"Nodule {i} in {name}." for i in ids
        ]
        write_generations(folder, name, precision, ids, outputs)
        mean, spread, nats = EFFECTS[name]
        write_scores(folder, name, ids, base + rng.normal(mean, spread, REPORTS))
        nll = (4 + nats) * 10 + rng.normal(0, 0.2, REPORTS)
        likelihood = pd.DataFrame({"id": ids, "nll": nll, "tokens": 10}).sort_values("id")
        write_table(folder / "likelihood" / f"{name}.parquet", likelihood)
        write_json(
            folder / "likelihood" / f"{name}.json", {"wall_seconds": 2.0, "cpu_seconds": 1.5}
        )
    write_scores(folder, "copy-input", ids, base - 0.1)
    write_scores(folder, "constant", ids, base + 0.05)
    (folder / "config.json").write_text(json.dumps(config))  # in the order of the precisions
    return folder


def write_weights(folder, count):
    folder.mkdir(parents=True)
    save_file({"w": np.zeros(count, np.float16)}, folder / "model.safetensors")


def write_scores(folder, name, ids, combined):
    combined = np.clip(combined, 0, 1)
    same = name == "original"
    bad = name in ("w4a16", "w4a4")
    lost = [["effusion", "nodule"] if bad and i == ids[0] else [] for i in ids]
    table = pd.DataFrame(
        {
            "id": ids,
            "annotator": "lexicon 1 (sha256 0123456789ab)",
            "rewards": "radgraph 0.1.18 (0123456789ab)",
            "simple": np.minimum(combined + 0.1, 1),
            "partial": np.minimum(combined + 0.05, 1),
            "complete": combined,
            **{f"fidelity_{x}": 1.0 if same else 0.6 for x in ("simple", "partial", "complete")},
            # A number of its own for every system, so that a swapped column or row is seen.
            "rg1_entities": combined * 0.9,
            "rg1_relations": combined * 0.7,
            "rg1_mean": combined * 0.8,
            "rouge_l": 0.25,
            "rouge_l_original": 1.0 if same else 0.7,
            "identical": same,
            "output_words": 6,
            "lost": [json.dumps(x) for x in lost],
            "invented": "[]",
            "empty": False,
        }
    )
    write_table(folder / "scores" / f"{name}.parquet", table)


def write_generations(folder, name, precision, ids, outputs):
    bits = precision.get("activations", {}).get("bits")
    quantized = 0 if name == "original" else 3
    table = pd.DataFrame(
        {
            "id": ids,
            "prompt_hash": [f"hash of {i}" for i in ids],
            "prompt_tokens": 30,
            "truncated_tokens": 0,
            "output": outputs,
            "output_tokens": 9,
            "finish_reason": ["length" if i == ids[1] else "stop" for i in ids],
        }
    )
    for number in (1, 2):
        part = table.iloc[number - 1 :: 2].iloc[::-1]  # in another order than eval.csv's
        write_table(folder / f"generations/{name}/shard-{number}-of-2.parquet", part)
        record = {
            "precision": name,
            "shard": number,
            "shards": 2,
            "engine": "transformers",
            "device": "cpu",
            "device_name": "Invented CPU",
            "dtype": "float32",
            "threads": 1,
            "batch_size": 6,
            "max_new_tokens": 32,
            "examples": 2,
            "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
            "kernel": "reference" if quantized else "none",
            "reports": len(part),
            "batches": 2,
            "prompt_tokens": 30 * len(part),
            "output_tokens": 9 * len(part),
            "wall_seconds": 4.0 + quantized,
            "cpu_seconds": 3.5 + quantized,
            "tokens_per_second": 9 * len(part) / (4.0 + quantized),
            "latency_seconds": {"mean": 2.0, "p50": 2.0, "p95": 2.2, "max": 2.5},
            "load_seconds": 1.0,
            "peak_process_bytes": 1_200_000_000,
            "peak_device_bytes": None,
            "weight_bytes": 538_000_000 if name == "original" else 190_000_000,
            "layers_quantized": quantized,
            "activation_layers": quantized if bits else 0,
            "activation_bits": bits,
            "truncated_prompts": 0,
        }
        write_json(folder / f"generations/{name}/shard-{number}-of-2.json", record)


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


def change_record(path, **values):
    write_json(path, read_json(path) | values)


def change_table(path, change):
    write_table(path, change(read_table(path)))


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


def test_script_writes_report_summary_and_figures(finished, tmp_path):
    command = [sys.executable, str(ROOT / "scripts/report.py"), "--results", str(finished)]
    command += ["--config", str(finished / "config.json"), "--output", str(tmp_path / "report.md")]
    command += ["--summary", str(tmp_path / "summary.json"), "--figures", str(tmp_path / "figures")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "report.md").read_text()
    for link in re.findall(r"!\[.+\]\((.+)\)", text):
        ElementTree.parse(tmp_path / link)
    assert len(re.findall(r"!\[", text)) == 3
    assert set(read_json(tmp_path / "summary.json")) >= {"quality", "performance", "machine"}


def test_every_number_of_every_table_is_in_the_summary(report, summary):
    written = set()
    for value in leaves(summary):
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, str):
            written.add(tables.escape(value))
            continue
        for digits in range(5):
            written |= {tables.number(value, digits), tables.change(value, digits)}
        written |= {tables.ratio(value), tables.share(value), tables.size(value)}
        written |= {tables.perplexity(value), tables.probability(value)}
        written.add(f"{value:,.0f} s")
    number = re.compile(r"(?<![\w.,])[<+−]?\d[\d,.]*(?:e[+-]?\d+)?(?: (?:%|MB|GB|kB|s)(?!\w))?×?")
    found = 0
    for line in table_lines(report):
        for cell in line.strip("| ").split(" | "):
            if re.search("[a-zA-Z]{3}", cell) and not cell.rstrip(")").endswith("equal"):
                continue  # words: headings, names, hashes
            for text in number.findall(cell):
                found += 1
                assert text in written, (text, line)
    assert found > 250


def test_verdict_is_two_sentences_that_name_what_fails_and_what_is_open(summary, report):
    first, second = summary["verdict"]
    for sentence in (first, second):
        assert sentence.endswith(".")
        assert len(re.findall(r"[.!?](?:\s|$)", sentence)) == 1
        assert tables.escape(sentence) in report
    assert "w4a16-rtn and w4a4 are clearly worse" in first
    assert "whether w4a8 differs" in first
    assert "w4a16 is equivalent within ±0.010 (no difference in any report)" in first
    assert "cannot tell at n = 24" in first
    assert "smallest detectable difference" in first
    assert "slower" in second
    assert "w4a16 takes 2.07 kB instead of 8.07 kB" in second


@given(st.lists(st.sampled_from(STATES), min_size=4, max_size=4))
def test_verdict_of_any_states_is_two_sentences_that_name_all(summary, states):
    quality = copy.deepcopy(summary["quality"])
    names = list(quality["differences"]["complete"])
    for name, word in zip(names, states, strict=True):
        quality["differences"]["complete"][name]["state"] = word
    first, second = verdict(quality, summary["performance"])
    for sentence in (first, second):
        assert len(re.findall(r"[.!?](?:\s|$)", sentence)) == 1
    assert all(re.search(rf"\b{name}\b", first) for name in names)


def test_state_says_both_difference_and_equivalence():
    found = {
        (p, equivalence, mean): state(
            {"p_holm": p, "equivalence_p_holm": equivalence, "mean": mean}, alpha=0.05
        )
        for p in (0.01, 0.5)
        for equivalence in (0.01, 0.5)
        for mean in (-0.1, 0.1)
    }
    assert set(found.values()) == set(STATES)
    assert found[0.5, 0.5, -0.1] == found[0.5, 0.5, 0.1] == "cannot tell"
    assert found[0.01, 0.01, -0.1] == "worse, within the margin"


def test_states_of_the_known_effects(summary):
    states = {
        name: row["state"] for name, row in summary["quality"]["differences"]["complete"].items()
    }
    assert states["w4a16"] == "equivalent"  # no difference at all
    assert states["w4a4"] == "worse"
    assert states["w4a16-rtn"] == "worse"


def test_likelihood_and_perplexity_against_their_definitions(finished, summary):
    tables_of = {
        name: read_table(finished / f"likelihood/{name}.parquet").set_index("id")
        for name in ("original", "w4a8")
    }
    rates = {name: table["nll"] / table["tokens"] for name, table in tables_of.items()}
    per_token = rates["w4a8"] - rates["original"]  # pandas pairs them by id
    row = summary["quality"]["likelihood_differences"]["w4a8"]
    assert row["mean"] == pytest.approx(per_token.mean())
    assert row["interval"]["low"] < per_token.mean() < row["interval"]["high"]
    table = tables_of["w4a8"]
    expected = np.exp(table["nll"].sum() / table["tokens"].sum())
    assert summary["quality"]["systems"]["w4a8"]["perplexity"] == pytest.approx(expected)


def test_speed_is_tokens_over_wall_seconds_of_all_shards(summary):
    systems = summary["performance"]["systems"]
    assert systems["w4a16"]["tokens_per_second"] == pytest.approx(9 * REPORTS / 14)
    assert systems["w4a16"]["ratios"]["tokens_per_second"] == pytest.approx(8 / 14)
    assert systems["w4a16"]["disk_bytes"] == 2072


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
    assert "odule" not in text
    assert "effusion" not in text


def test_examples_take_the_worst_of_each_precision(summary):
    found = [(row["precision"], row["lost"]) for row in summary["quality"]["examples"]]
    assert found == [("w4a16", 2), ("w4a4", 2)]


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


def test_radgraph1_definitions_have_their_own_table(finished, report, summary):
    table = report.partition("### By the definitions of ReXrank")[2].partition("##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    rows = {row[0]: row[1:] for row in rows if row}
    assert rows["system"] == ["entity F1", "relation F1", "mean of both"]
    assert set(summary["quality"]["systems"]) < set(rows)
    for system in summary["quality"]["systems"]:
        combined = pd.read_parquet(finished / "scores" / f"{system}.parquet")["complete"].mean()
        expected = [combined * 0.9, combined * 0.7, combined * 0.8]
        assert [float(cell) for cell in rows[system]] == pytest.approx(expected, abs=6e-4)


def test_equal_results_give_equal_quality_and_figures(finished, summary, tmp_path):
    again = summarize(collect(finished, CONFIG))
    assert again["quality"] == summary["quality"]
    write_figures(summary, tmp_path / "one")
    write_figures(again, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_other_speeds_leave_quality_alone(results, summary):
    for path in results.glob("generations/*/*.json"):
        change_record(path, wall_seconds=99.0, peak_process_bytes=1)
    assert summarize(collect(results, CONFIG))["quality"] == summary["quality"]


def test_the_original_alone_has_a_report_too(tmp_path):
    config = CONFIG | {"checkpoints": {}, "precisions": {"original": {"checkpoint": "original"}}}
    run = collect(make_results(tmp_path / "results", config), config)
    summary = summarize(run)
    write_figures(summary, tmp_path)
    assert "Only the original model was run" in render(summary, {}, ".")
    assert [path.name for path in tmp_path.glob("*.svg")] == ["tradeoff.svg"]


def test_radgraph_scores_are_called_radgraph(tmp_path):
    config = CONFIG | {"scoring": {"annotator": "radgraph"}}
    results = make_results(tmp_path / "results", config)
    for path in results.glob("scores/*"):
        change_table(path, lambda table: table.assign(annotator="modern-radgraph-xl 0.1.18 (ab)"))
    report = render(summarize(collect(results, config)), _AnyText(), "figures")
    assert "## Quality: RadGraph F1" in report
    assert "lexicon" not in report


class _AnyText(dict):
    def __missing__(self, key):
        return "Some text."


def spoil_annotator(results):
    change_table(results / "scores/w4a8.parquet", lambda t: t.assign(annotator="radgraph-xl (ab)"))


def spoil_rewards(results):
    change_table(results / "scores/w4a8.parquet", lambda t: t.assign(rewards="radgraph 0.1.17"))


def spoil_all_annotators(results):
    for path in results.glob("scores/*"):
        change_table(path, lambda table: table.assign(annotator="radgraph-xl (ab)"))


def drop_score_row(results):
    change_table(results / "scores/w4a8.parquet", lambda table: table.iloc[1:])


def reorder_scores(results):
    change_table(results / "scores/w4a8.parquet", lambda table: table.iloc[::-1])


def spoil_score(results):
    change_table(results / "scores/w4a8.parquet", lambda table: table.assign(partial=np.nan))


def drop_output(results):
    change_table(results / "generations/w4a8/shard-1-of-2.parquet", lambda table: table.iloc[1:])


def repeat_shard(results):
    first = results / "generations/w4a8/shard-1-of-2.parquet"
    (results / "generations/w4a8/shard-2-of-2.parquet").write_bytes(first.read_bytes())


def lose_shard(results):
    (results / "generations/w4a8/shard-2-of-2.parquet").unlink()


def change_prompt(results):
    path = results / "generations/w4a8/shard-2-of-2.parquet"
    change_table(path, lambda table: table.assign(prompt_hash="other"))


def quantize_nothing(results):
    for path in results.glob("generations/w4a16/*.json"):
        change_record(path, layers_quantized=0)


def round_no_activations(results):
    for path in results.glob("generations/w4a8/*.json"):
        change_record(path, activation_layers=0)


def change_dtype(results):
    change_record(results / "generations/w4a8/shard-2-of-2.json", dtype="bfloat16")


def change_threads(results):
    change_record(results / "generations/w4a4/shard-1-of-2.json", threads=4)


def change_tokens(results):
    change_table(results / "likelihood/w4a8.parquet", lambda table: table.assign(tokens=11))


def spoil_nll(results):
    change_table(results / "likelihood/w4a8.parquet", lambda table: table.assign(nll=np.inf))


def lose_weights(results):
    (results / "checkpoints/awq-w4/model.safetensors").unlink()


def swap_records(results):
    change_record(results / "generations/w4a8/shard-1-of-2.json", precision="w4a4")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_annotator, "different values of 'annotator'.*radgraph-xl"),
        (spoil_rewards, "different values of 'rewards'"),
        (spoil_all_annotators, "asks for lexicon"),
        (drop_score_row, "23 rows.*24 reports"),
        (reorder_scores, "row 1: id .* cannot be paired"),
        (spoil_score, "'partial'.*not numbers"),
        (drop_output, "12 reports.*holds 11"),
        (repeat_shard, "more than once"),
        (lose_shard, "shard-2-of-2.parquet does not exist"),
        (change_prompt, "w4a8: 12 report.* another prompt"),
        (quantize_nothing, "w4a16, shard 1 had 0 quantized layers instead of 3"),
        (round_no_activations, "had 0 layers with quantized activations instead of 3"),
        (change_dtype, "w4a8, shard 2 ran with dtype 'bfloat16'"),
        (change_threads, "threads 4"),
        (change_tokens, "other tokens"),
        (spoil_nll, "no finite likelihood"),
        (lose_weights, "no model.*safetensors"),
        (swap_records, "record of precision 'w4a4'"),
    ],
)
def test_what_cannot_be_compared_is_refused(results, spoil, message):
    spoil(results)
    with pytest.raises(UserError, match=message) as caught:
        collect(results, CONFIG)
    assert "\n" not in str(caught.value)
    assert "odule" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (-0.0001, "0.000"), (-0.25, "−0.250"), (None, "–"), (1234.5, "1,234.500")],
)
def test_numbers(value, text):
    assert tables.number(value) == text


def test_changes_carry_their_sign():
    assert [tables.change(x) for x in (0.02, -0.02, 0.0001, 0.0)] == [
        "+0.020",
        "−0.020",
        "0.000",
        "0.000",
    ]


def test_sizes():
    found = [tables.size(x) for x in (2072, 102e6, 999.7e6, 1.234e9, 13.5e9)]
    assert found == ["2.07 kB", "102 MB", "1,000 MB", "1.23 GB", "13.5 GB"]


def test_table_columns_are_aligned():
    lines = tables.table(["a", "b"], [["long name", "1"], ["x", "−0.25"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| --------- | ----: |"
