"""Few-shot examples of each report's own: what they are, and that the stages show them."""

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_reports import model_and_splits, run_script
from transformers import AutoTokenizer

import examples as benchmark
from radquant import prompts
from radquant.errors import UserError
from radquant.generation.nearest_examples import STEPS, nearest_examples
from radquant.generation.tasks import Output, Pace, Work
from radquant.reporting import words
from radquant.scoring import lexicon

Row = dict[str, str]


def row(name: str, findings: str, impression: str = "", group: str = "") -> Row:
    said = impression or f"Impression of {name}."
    return {"id": name, "group": group, "findings": findings, "impression": said}


def choose(train: list[Row], reports: list[Row], count: int, most: int = 40, seed: int = 7) -> Any:
    found = nearest_examples(train, reports, ["findings"], "impression", count, most, seed)
    return [[example["id"] for example in each] for each in found]


TRAIN = [
    row("a", "No effusion. Heart is normal."),
    row("b", "No effusion. Left lung has a granuloma."),
    row("c", "A granuloma, calcified."),
    row("d", "Pacemaker in place. No effusion."),
]


def test_the_rarer_the_words_that_are_shared_the_nearer_and_the_nearest_is_last() -> None:
    assert choose(TRAIN, [row("x", "NO calcified granuloma")], 2) == [["b", "c"]]
    assert choose(TRAIN, [row("x", "Pacemaker.")], 1) == [["d"]]
    assert choose(TRAIN, [row("x", "Heart."), row("y", "Heart.")], 0) == [[], []]


def test_no_example_is_the_report_itself_or_of_its_patient() -> None:
    assert choose(TRAIN, [TRAIN[2]], 3)[0][-1] == "b"
    train = [dict(each) for each in TRAIN]
    train[2]["group"] = "p1"
    assert choose(train, [row("x", "Calcified granuloma.", group="p1")], 1) == [["b"]]
    assert choose(train, [row("x", "Calcified granuloma.", group="p2")], 1) == [["c"]]
    assert choose(train, [row("x", "Calcified granuloma.")], 1) == [["c"]]  # patients unknown


def test_two_examples_never_say_the_same() -> None:
    train = [row(f"r{n}", "Clear lungs.", "Normal.") for n in range(5)] + TRAIN
    chosen = choose(train, [row("x", "clear lungs")], 2)[0]
    assert chosen[1].startswith("r")
    assert chosen[0] in {"a", "b", "c", "d"}


def test_too_few_are_an_error_that_shows_no_text() -> None:
    with pytest.raises(UserError, match=r"report x gets only 4 of 5 distinct .* 40 words"):
        choose(TRAIN, [row("x", "Heart.")], 5)
    with pytest.raises(UserError, match="gets only 0 of"):
        choose(TRAIN, [row("x", "Heart.")], 1, most=3)
    with pytest.raises(UserError, match="gets only 0 of"):
        choose([row("a", " ")], [row("x", "Heart.")], 1)


WORDS = ["no", "clear", "lungs", "mass", "effusion", "left"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6)
FEWEST = st.integers(1, 4)
NAMED = st.tuples(TEXTS, st.sampled_from(["", "p1", "p2"]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NAMED, max_size=12), NAMED, st.integers(1, 3), st.integers(0, 9), FEWEST, st.randoms()
)
def test_none_that_may_be_shown_is_nearer_than_those_that_are(
    texts: list[tuple[list[str], str]],
    asked: tuple[list[str], str],
    count: int,
    seed: int,
    few: int,
    random: Any,
) -> None:
    train = [row(f"r{n}", " ".join(t), group=g) for n, (t, g) in enumerate(texts)]
    report = row("x", " ".join(asked[0]), group=asked[1])
    usable = [each for each in train if each["findings"]]
    known = Counter(word for each in usable for word in set(each["findings"].split()))
    rarity = {w: round(STEPS * math.log(len(usable) / n)) for w, n in known.items()}

    def vector(text: str) -> dict[str, int]:
        return {w: n * rarity[w] for w, n in Counter(text.split()).items() if w in rarity}

    def likeness(name: str) -> float:
        one, other = (vector(each["findings"]) for each in (report, by_id[name]))
        length = math.sqrt(sum(value**2 for value in other.values()))
        return sum(one.get(word, 0) * value for word, value in other.items()) / max(length, 1)

    by_id = {each["id"]: each for each in train}
    apart = [r["id"] for r in usable if not r["group"] or r["group"] != report["group"]]
    if len(apart) < count:
        with pytest.raises(UserError, match=f"gets only {len(apart)} of {count} "):
            choose(train, [report], count, seed=seed)
        return
    with mock.patch("radquant.generation.nearest_examples.FEW", few):
        [chosen] = choose(train, [report], count, seed=seed)
    assert [chosen] == choose(random.sample(train, len(train)), [report], count, seed=seed)
    assert set(chosen) <= set(apart)
    assert len(set(chosen)) == count
    values = [likeness(name) for name in chosen]
    assert all(one <= other + 1e-6 for one, other in pairwise(values))
    others = [likeness(name) for name in apart if name not in chosen]
    assert max(others, default=0) <= values[0] + 1e-6


# ----------------------------------------------------------------------------------- the stages


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of eval.csv, the first report has an input of train.csv, and each of the others none."""
    folder = model_and_splits(tmp_path_factory.mktemp("data"))
    texts = ["the heart is normal .", "no acute effusion .", "lungs are clear ."]
    for name, start, more in (("train", 0, ""), ("eval", 100, " the heart")):
        rows = [row(f"r{start + n}", f"{text}{more}", text) for n, text in enumerate(texts)]
        rows[0]["findings"] = texts[0]
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.mark.parametrize("name", ["generate", "likelihood"])
def test_the_prompts_and_the_record_of_a_stage(data: Path, tmp_path: Path, name: str) -> None:
    options = ["--examples", "1", "--examples-by", "nearest"]
    options += ["--max-new-tokens", "3", "--reports", "2"] if name == "generate" else []
    run_script(name, data, tmp_path / "x", *options)
    record = json.loads((tmp_path / "x.json").read_text())
    written = 2 if name == "generate" else 3
    assert (record["examples"], record["examples_by"]) == (1, "nearest")
    assert (record["same_input_reports"], record["reports"]) == (1, written)
    tokenizer = AutoTokenizer.from_pretrained(data / "original")
    train, evaluation = (
        pd.read_csv(data / f"{each}.csv", dtype=str, keep_default_na=False).to_dict("records")
        for each in ("train", "eval")
    )
    made = [
        prompts.chat_prompt(
            tokenizer, "findings : {findings} impression :", report, [example], "impression"
        )
        for report, example in zip(evaluation[:written], train, strict=False)
    ]
    assert record["prompt_tokens"] == sum(prompt.length for prompt in made)
    if name == "generate":
        hashes = pd.read_parquet(tmp_path / "x.parquet")["prompt_hash"]
        assert list(hashes) == [prompt.hash for prompt in made]


def test_how_the_report_tells_of_examples() -> None:
    drawn: dict[str, Any] = {"examples": 2, "examples_by": "drawn", "reports": 20}
    drawn["same_input_reports"] = 0
    assert words.examples([drawn]).endswith("in each prompt: 2, the same for all reports.")
    near = {**drawn, "examples_by": "nearest"}
    assert words.examples([near]).endswith(
        "Of 20 reports, 0 have the very same input as one of theirs."
    )
    both = words.examples([near, {**near, "same_input_reports": 3}])
    assert "2, those nearest by words" in both
    assert "Of 40 reports, 3 have" in both
    assert words.examples([{**drawn, "examples": 0}]) == "No solved example is in the prompts."


# -------------------------------------------------------------------------------- the benchmark


def test_the_benchmark_holds_whole_patients_out_and_no_input_is_in_both_parts() -> None:
    rows = [row(f"r{n}", f"text {n % 20}", group=f"p{n // 3}") for n in range(60)]
    pool, held = benchmark.parted(rows, ["findings"], 9, 7)
    assert len(held) >= 9
    assert not {r["group"] for r in pool} & {r["group"] for r in held}
    assert not {r["findings"] for r in pool} & {r["findings"] for r in held}
    left_out = [r for r in rows if r not in pool and r not in held]
    assert all(r["findings"] in {h["findings"] for h in held} for r in left_out)
    assert (pool, held) == benchmark.parted(rows[::-1], ["findings"], 9, 7)


def test_the_benchmark_writes_anew_what_was_cut_off_alone() -> None:
    assert benchmark.ends_open(None)
    assert benchmark.ends_open(Output("no", 2, "length"))
    assert not benchmark.ends_open(Output("no", 2, "stop"))


def test_the_benchmark_gives_a_longer_output_its_share_of_decoding() -> None:
    pace = Pace(prefill_seconds=1.0, decode_seconds=3.0)
    done = mock.Mock(cpu_seconds=8.0, work=Work([], [], [], 0, pace))
    assert benchmark.in_proportion(done, 100, 100) == pytest.approx(8)
    assert benchmark.in_proportion(done, 100, 200) == pytest.approx(2 + 12)


def test_the_benchmark_scores_as_the_run_does() -> None:
    reference = lexicon.annotate("No pleural effusion.")
    assert benchmark.scores(["No pleural effusion.", ""], [reference] * 2) == [1, 0]
