"""The calibration set: as many texts as asked for, none silently shortened or dropped."""

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prompts import CHAT, SPACED, make_tokenizer
from tiny_models import SCRIPTS, tiny_llama

from radquant import prompts
from radquant.calibration import sequences
from radquant.errors import UserError
from radquant.files import sha256_file, sha256_text

TEMPLATE = "F: {findings}"
ROWS = [{"id": f"r{n}", "findings": "Clear. " * n, "impression": f"Normal {n}."} for n in range(9)]
TEXTS = [{"id": f"line {n}", "text": "A dog barks. " * (n % 4) + f"Number {n}"} for n in range(12)]
BOS, EOS = 1, 2


def corpus() -> sequences.Source:
    tokenizer = make_tokenizer(CHAT, adds_bos=True)
    return sequences.reports(tokenizer, ROWS, TEMPLATE, "impression")


def draw(count: int, max_tokens: int = 200, seed: int = 0) -> list[sequences.Sample]:
    return sequences.draw(corpus(), count, max_tokens, seed)


def pack_texts(
    count: int, max_tokens: int, seed: int = 0, rows: Any = TEXTS, **options: Any
) -> list[sequences.Sample]:
    source = sequences.plain_texts(make_tokenizer(**options), rows, "a file")
    return sequences.pack(source, count, max_tokens, seed)


def spelled(text: str) -> list[int]:
    """The tokens of a text as the character tokenizer of test_prompts numbers them."""
    return [8 + ord(letter) - 32 for letter in text]


# -------------------------------------------------------------------------- a text, a sequence


def test_a_sample_is_the_prompt_and_its_reference() -> None:
    tokenizer = make_tokenizer(CHAT)
    for sample in draw(8):
        row = next(row for row in ROWS if row["id"] == sample.id)
        expected = f"<s><user>F: {row['findings']}<end><assistant>{row['impression']}"
        assert sample.text == expected
        assert tokenizer.decode(sample.ids) == expected
        assert sample.ids.count(tokenizer.bos_token_id) == 1
        assert sample.cut == 0


def test_the_seed_decides_and_texts_are_not_drawn_twice() -> None:
    assert draw(4) == draw(4)
    assert len({tuple(sample.id for sample in draw(4, seed=seed)) for seed in range(9)}) > 5
    assert sorted(sample.id for sample in draw(8)) == [f"r{n}" for n in range(1, 9)]


def test_long_texts_are_cut_and_counted() -> None:
    whole, cut = draw(8), draw(8, max_tokens=40)
    assert all(len(sample.ids) <= 40 for sample in cut)
    for before, after in zip(whole, cut, strict=True):
        assert after.ids == before.ids[:40]
        assert after.cut == max(0, len(before.ids) - 40)
        assert before.text.startswith(after.text)
    record = sequences.record(cut, {"kind": "corpus"}, "h", 40, False, 0)
    assert record["truncated"] == sum(len(sample.ids) > 40 for sample in whole) > 0
    assert record["tokens"] == sum(len(sample.ids) for sample in cut)
    assert record["texts"] == record["samples"] == 8


def test_too_few_texts_are_an_error() -> None:
    # The ninth report has no findings.
    with pytest.raises(UserError, match=r"9 calibration samples .* only 8 reports with findings"):
        draw(9)
    source = sequences.plain_texts(make_tokenizer(), [*TEXTS, {"id": "x", "text": " "}], "t.csv")
    with pytest.raises(UserError, match=r"13 calibration samples .* t\.csv has only 12 texts"):
        sequences.draw(source, 13, 5, 0)


@pytest.mark.parametrize("make", [sequences.draw, sequences.pack])
@pytest.mark.parametrize(("count", "max_tokens"), [(0, 5), (5, 0)])
def test_nothing_cannot_be_asked_for(make: Any, count: int, max_tokens: int) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        make(corpus(), count, max_tokens, 0)


@pytest.mark.parametrize("chat", [None, CHAT])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_plain_text_is_as_it_is(chat: str | None, adds_bos: bool) -> None:
    source = sequences.plain_texts(make_tokenizer(chat, adds_bos), TEXTS, "a file")
    texts = {row["id"]: row["text"] for row in TEXTS}
    samples = sequences.draw(source, 12, 1000, 3)
    assert {sample.id: sample.text for sample in samples} == texts
    for sample in samples:
        assert sample.ids == [BOS] * adds_bos + spelled(texts[sample.id])


# --------------------------------------------------------------------------------------- packing


def stream(rows: Sequence[dict[str, str]], seed: int, adds_bos: bool = False) -> list[int]:
    """All texts' tokens in drawn order, each between the marks of a document."""
    ordered = prompts.seeded_order(rows, seed, "calibration")
    documents = [[BOS] * adds_bos + spelled(row["text"]) + [EOS] for row in ordered]
    return [token for document in documents for token in document]


@given(
    st.lists(st.text("ab c", min_size=1).filter(str.strip), min_size=1, max_size=8),
    st.integers(1, 30),
    st.integers(0, 9),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_packed_sequences_are_the_texts_in_a_row(
    texts: list[str], length: int, seed: int, adds_bos: bool
) -> None:
    rows = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    expected = stream(rows, seed, adds_bos)
    count = len(expected) // length
    if count:
        samples = pack_texts(count, length, seed, rows, adds_bos=adds_bos)
        assert [len(sample.ids) for sample in samples] == [length] * count
        joined = [token for sample in samples for token in sample.ids]
        assert joined == expected[: count * length]
    with pytest.raises(
        UserError, match=rf"are {(count + 1) * length} tokens, but .*{len(expected)}"
    ):
        pack_texts(count + 1, length, seed, rows, adds_bos=adds_bos)


def test_a_packed_sequence_names_the_texts_in_it() -> None:
    rows = [{"id": name, "text": name * 4} for name in "abcdef"]  # five tokens each with the EOS
    order = "".join(row["id"] for row in prompts.seeded_order(rows, 0, "calibration"))
    samples = pack_texts(4, 7, rows=rows)
    # Tokens 0-6, 7-13, 14-20 and 21-27 of texts that begin at 0, 5, 10, 15, 20 and 25.
    named = ["".join(sample.sources) for sample in samples]
    assert named == [order[0:2], order[1:3], order[2:5], order[4:6]]
    assert samples[0].id == f"{order[0]} + {order[1]}"
    assert samples[0].text == f"{order[0] * 4}</s>{order[1] * 2}"
    assert [sample.cut for sample in samples] == [0, 0, 0, 2]
    record = sequences.record(samples, {"kind": "table"}, None, 7, True, 0)
    assert (record["texts"], record["tokens"], record["truncated_tokens"]) == (6, 28, 2)
    assert (record["samples"], record["packed"], record["truncated"]) == (4, True, 1)


def test_packing_draws_by_seed_and_no_more_than_it_needs() -> None:
    assert pack_texts(3, 20) == pack_texts(3, 20)
    assert len({tuple(pack_texts(3, 20, seed=seed)[0].sources) for seed in range(9)}) > 5
    assert len({name for sample in pack_texts(1, 5) for name in sample.sources}) == 1


@pytest.mark.parametrize("chat", [CHAT, SPACED, None])
def test_packed_reports_are_prompts_with_references(chat: str | None) -> None:
    tokenizer = make_tokenizer(chat)
    source = sequences.reports(tokenizer, ROWS, TEMPLATE, "impression")
    whole = sequences.draw(source, 8, 1000, 5)
    expected = "".join(f"{sample.text}</s>" for sample in whole)
    samples = sequences.pack(source, 6, 50, 5)
    assert expected.startswith("".join(sample.text for sample in samples))


def test_an_end_that_is_already_there_is_not_doubled() -> None:
    rows = [{"id": "a", "text": "one</s>"}]
    assert pack_texts(1, 4, rows=rows)[0].ids == [*spelled("one"), EOS]
    with pytest.raises(UserError, match="ask for fewer"):
        pack_texts(1, 5, rows=rows)


# ------------------------------------------------------------------------------------ the script


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "model")


def run_script(folder: Path, model: Path, *options: str, name: str = "a") -> dict[str, Any]:
    """Run calibration_set.py; return its record. The samples are in `folder`/`name`.parquet."""
    command = ["calibration_set.py", "--model", str(model), *options]
    command += ["--output", f"{folder}/{name}.parquet", "--record", f"{folder}/{name}.json"]
    with mock.patch.object(sys, "argv", command):
        runpy.run_path(str(SCRIPTS / "calibration_set.py"), run_name="__main__")
    record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return record


def test_the_script(tmp_path: Path, model: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "train.csv", index=False)
    options = ["--train", str(tmp_path / "train.csv"), "--prompt-text", TEMPLATE]
    options += ["--samples", "5", "--max-tokens", "8", "--seed", "3"]
    record = run_script(tmp_path, model, *options)
    run_script(tmp_path, model, *options, name="b")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert list(table.columns) == ["id", "text", "tokens", "input_ids"]
    assert list(table["tokens"]) == [len(ids) for ids in table["input_ids"]]
    assert table["input_ids"][0].dtype == "int32"
    assert record["prompt_hash"] == sha256_text(TEMPLATE)
    assert (record["samples"], record["max_tokens"], record["seed"]) == (5, 8, 3)
    assert (record["source"], record["packed"]) == ({"kind": "corpus"}, False)


SECRET = "the heart is normal and the lungs are clear no effusion no acute"


def write_texts(folder: Path) -> Path:
    pd.DataFrame({"report": [f"lungs clear {n} {SECRET}" for n in range(9)]}).to_csv(
        folder / "texts.csv", index=False
    )
    return folder / "texts.csv"


def test_the_script_packs_a_table_and_records_no_text(tmp_path: Path, model: Path) -> None:
    texts = write_texts(tmp_path)
    options = ["--texts", str(texts), "--column", "report"]
    record = run_script(tmp_path, model, *options, "--pack", "--samples", "4", "--max-tokens", "10")
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert list(table["tokens"]) == [len(ids) for ids in table["input_ids"]] == [10] * 4
    digest = sha256_file(texts)
    source = {"kind": "table", "path": str(texts), "sha256": digest, "column": "report"}
    assert (record["source"], record["prompt_hash"]) == (source, None)
    assert (record["tokens"], record["packed"]) == (40, True)
    assert "heart" not in (tmp_path / "a.json").read_text()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        run_script(*arguments)
    sentence = capsys.readouterr().err
    assert ended.value.code == 1
    assert sentence.startswith("error: ")
    assert sentence.count("\n") == 1
    return sentence


def test_the_script_refuses_evaluation_reports(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = write_texts(tmp_path)
    sections = {"id": ["e"], "findings": [SECRET.upper()], "impression": ["No."], "text": [""]}
    pd.DataFrame(sections).to_csv(tmp_path / "eval.csv", index=False)
    options = ["--texts", str(texts), "--column", "report", "--eval", str(tmp_path / "eval.csv")]
    sentence = refusal(capsys, tmp_path, model, *options)
    assert "9 of the 9 calibration texts" in sentence
    assert "row 2, row 3" in sentence
    assert "heart" not in sentence.lower()
    assert not (tmp_path / "a.parquet").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--texts", "TEXTS"], "has no column 'text'; its columns are report"),
        (["--texts", "TEXTS", "--column", "reports"], "did you mean 'report'?"),
        (["--texts", "TEXTS", "--column", "report"], "64 calibration samples"),
        (["--texts", "TEXTS", "--column", "report", "--pack"], "are 16384 tokens, but column"),
        (["--texts", "TEXTS", "--prompt-text", TEMPLATE], "leave the prompt out"),
        (["--texts", "none.csv"], "none.csv does not exist"),
        (["--train", "TEXTS"], "--train needs --prompt"),
        (["--train", "TEXTS", "--prompt-text", TEMPLATE, "--eval", "x.csv"], "are for --texts"),
        (["--texts", "TEXTS", "--column", "report", "--origin", "ORIGIN"], "is not the file that"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    tmp_path: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: str,
) -> None:
    origin = tmp_path / "origin.json"
    origin.write_text('{"sha256": "0"}')
    places = {"TEXTS": str(write_texts(tmp_path)), "ORIGIN": str(origin)}
    given = [places.get(option, option) for option in options]
    assert expected in refusal(capsys, tmp_path, model, *given)
