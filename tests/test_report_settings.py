"""How transforms, prefixes and every rounding stand in the report."""

import copy

import pytest
from reading import read_jsonl, report_tables
from report_run import CONFIG, REPORTS, AnyText, change_record, change_table, make_results

from radquant.errors import UserError
from radquant.files import read_json, write_json, write_jsonl
from radquant.reporting import words
from radquant.reporting.changes_section import example_texts
from radquant.reporting.collect import collect
from radquant.reporting.markdown import render
from radquant.reporting.summary import summarize
from radquant.reporting.verdict import verdict
from radquant.settings.precision import Activations, KVCache, LMHead, as_values
from radquant.settings.recipe import Recipe, recipe_values

GROUPS = Activations(
    bits=4, granularity="group", group_size=64, symmetric=False, clip_ratio=0.9, skip=("1",)
)
STATIC = Activations(bits=8, granularity="tensor", range="static")


def settings_config():
    """The usual run with other settings: names stay, so that its invented effects do, too."""
    config = copy.deepcopy(CONFIG)
    rotated = Recipe(
        method="rtn", bits=4, group_size=64, transform="hadamard", prefix="auto", activations=STATIC
    )
    config["checkpoints"] = {
        "awq-w4": recipe_values(Recipe(method="awq", bits=4, group_size=64, smooth_attention=True)),
        "rtn-w4": recipe_values(rotated),
    }
    config["precisions"]["w4a16-rtn"]["activations"] = as_values(STATIC)
    config["precisions"]["w4a4"]["activations"] = as_values(GROUPS)
    config["precisions"]["w4a8"] = {"checkpoint": "awq-w4", "kv_cache": {"bits": 4}}
    return config


@pytest.fixture
def results(tmp_path):
    return make_results(tmp_path / "results", settings_config())


def rows_below(report, title):
    """The rows of the first table behind a title, {first cell: {column: cell}}."""
    header, _, *rows = report_tables(report.partition(title)[2])[0]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Activations(bits=8), "8 bits, per token, dynamic, symmetric"),
        (GROUPS, "4 bits, per group of 64, dynamic, asymmetric, clip 0.9, not 1"),
        (STATIC, "8 bits, per tensor, static, symmetric"),
        (
            Activations(bits=4, skip=("down_proj", "o_proj")),
            "4 bits, per token, dynamic, symmetric, not down_proj and o_proj",
        ),
        (None, "–"),
    ],
)
def test_activations_in_words(settings, text):
    assert words.activations(as_values(settings)) == text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (KVCache(bits=4), "4 bits, per head, asymmetric"),
        (
            KVCache(bits=8, granularity="group", group_size=32, symmetric=True),
            "8 bits, per group of 32, symmetric",
        ),
        (None, "–"),
    ],
)
def test_the_cache_in_words(settings, text):
    assert words.kv_cache(as_values(settings)) == text


def test_the_head_in_words():
    assert words.lm_head(as_values(LMHead(bits=8, group_size=32))) == "8 bits, per group of 32"
    assert words.lm_head(None) == "–"


def test_each_precision_says_how_it_computes(results):
    report = render(summarize(collect(results, settings_config())), AnyText(), "figures")
    rows = rows_below(report, "How each precision computes:")
    assert rows["original"] == {
        "precision": "original",
        "checkpoint": "original",
        "transform": "–",
        "weight layers": "0",
        "activation layers": "0",
        "activations": "–",
        "KV cache": "–",
        "stored prefix": "–",
        "kernel": "none",
    }
    rotated = rows["w4a16-rtn (simulated)"]
    assert rotated["transform"] == "Hadamard rotation"
    assert rotated["activations"] == "8 bits, per tensor, static, symmetric"
    assert rotated["stored prefix"] == "2 tokens"
    cached = rows["w4a8 (simulated)"]
    assert (cached["transform"], cached["stored prefix"]) == ("SmoothAttention", "–")
    assert (cached["activations"], cached["KV cache"]) == ("–", "4 bits, per head, asymmetric")
    groups = rows["w4a4 (simulated)"]
    assert (groups["weight layers"], groups["activation layers"]) == ("3", "2")
    assert groups["activations"] == words.activations(as_values(GROUPS))
    assert "w4a16" in rows  # nothing is rounded there but weights


def test_each_checkpoint_says_what_was_done_before(results):
    report = render(summarize(collect(results, settings_config())), AnyText(), "figures")
    rows = rows_below(report, "## Quantization")
    assert rows["awq-w4"]["transform"] == "SmoothAttention"
    assert rows["awq-w4"]["fitted to activations of"] == "–"
    assert rows["rtn-w4"]["transform"] == "Hadamard rotation"
    assert rows["rtn-w4"]["stored prefix"] == "2 tokens"
    assert rows["rtn-w4"]["fitted to activations of"] == "8 bits, per tensor, static, symmetric"


def test_columns_in_which_nothing_stands_are_left_out(tmp_path):
    results = make_results(tmp_path / "results")
    report = render(summarize(collect(results, CONFIG)), AnyText(), "figures")
    for title in ("## Quantization", "How each precision computes:"):
        columns = next(iter(rows_below(report, title).values()))
        assert not {"transform", "stored prefix", "KV cache", "head"} & set(columns)


@pytest.mark.parametrize(
    "rounded",
    [
        {"activations": {"bits": 8}},
        {"kv_cache": {"bits": 8}},
        {"activations": {"bits": 8}, "kv_cache": {"bits": 8}},
        {"lm_head": {"bits": 8}},
    ],
)
def test_rounding_at_run_time_is_simulated_and_has_no_speed(tmp_path, rounded):
    config = copy.deepcopy(CONFIG)
    config["precisions"] = {
        "original": {"checkpoint": "original"},
        "w4a8": {"checkpoint": "awq-w4", **rounded},
    }
    summary = summarize(collect(make_results(tmp_path / "results", config), config))
    assert summary["performance"]["systems"]["w4a8"]["simulated"]
    saving = verdict(summary["quality"], summary["performance"])[-1]
    assert saving.startswith("w4a8 needs ")
    assert saving.endswith(" on disk.")
    assert "w4a8 (simulated)" in render(summary, AnyText(), "figures")


def test_a_skipped_layer_that_is_rounded_all_the_same_is_noticed(results):
    change_record(results / "likelihood/w4a4.json", activation_layers=3)
    with pytest.raises(UserError, match="had 3 layers with quantized activations instead of 2"):
        collect(results, settings_config())


def test_another_tools_checkpoint_stores_no_prefix(tmp_path):
    results = make_results(tmp_path / "results")
    path = results / "checkpoints/awq-w4/quantization.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "prefix"})
    assert summarize(collect(results, CONFIG))["quantization"]["awq-w4"]["prefix"] == []


def fewer_config():
    return CONFIG | {"generation": CONFIG["generation"] | {"reports": 10}}


def test_of_how_many_reports_each_number_is(tmp_path):
    config = fewer_config()
    run = collect(make_results(tmp_path / "results", config), config)
    summary = summarize(run)
    quality = summary["quality"]
    assert (quality["reports"], quality["references"]) == (10, REPORTS)
    assert {row["n"] for row in quality["differences"]["complete"].values()} == {10}
    assert {row["n"] for row in quality["baseline_differences"].values()} == {10}
    assert {row["n"] for row in quality["likelihood_differences"].values()} == {REPORTS}
    report = " ".join(render(summary, example_texts(run, summary), "figures").split())
    for sentence in (
        "of 10 reports of the corpus",
        "The references' likelihood is over 24 reports.",
        "Perplexity is that of the references of all 24 evaluation reports: less is better.",
        "the first 10 by draw were written and scored",
        "negative log-likelihood of all 24 evaluation reports, pooled",
        "paired over the same 10 reports",
    ):
        assert sentence in report
    whole = summarize(collect(make_results(tmp_path / "whole"), CONFIG))
    assert whole["quality"]["likelihood_differences"] == quality["likelihood_differences"]
    text = " ".join(render(whole, AnyText(), "figures").split())
    assert "evaluation reports" not in text
    assert "likelihood is over" not in text


def test_a_silent_loss_names_the_references_it_was_measured_on(tmp_path):
    config = fewer_config()
    summary = summarize(collect(make_results(tmp_path / "results", config), config))
    assert "finds the radiologists' 24 reports less likely" in summary["verdict"][1]


def drop_a_likelihood(results):
    change_table(results / "likelihood/w4a8.parquet", lambda table: table.iloc[1:])


def write_one_more(results):
    for name in ("generations", "annotations"):
        (results / name / "w4a8").rename(results / name / "fewer")
        (results / f"../whole/{name}/w4a8").rename(results / name / "w4a8")


def lose_a_reference(results):
    path = results / "annotations/reference.jsonl"
    write_jsonl(path, read_jsonl(path)[:10])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_a_likelihood, "w4a8.parquet has 23 rows, but it should be of 24 reports"),
        (write_one_more, "generations/w4a8 has 24 rows, but it should be of 10 reports"),
        (lose_a_reference, "annotations has 10 rows, but it should be of 24 reports"),
    ],
)
def test_other_reports_than_those_to_be_written_are_refused(tmp_path, spoil, message):
    results = make_results(tmp_path / "results", fewer_config())
    make_results(tmp_path / "whole")
    spoil(results)
    with pytest.raises(UserError, match=message):
        collect(results, fewer_config())
