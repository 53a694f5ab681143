"""The calibration set: as many texts as asked for, none silently shortened or dropped."""

import json
import runpy
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from test_prompts import CHAT, make_tokenizer
from tiny_models import SCRIPTS, tiny_llama

from radquant import calibration
from radquant.errors import UserError
from radquant.files import sha256_text

TEMPLATE = "F: {findings}"
ROWS = [{"id": f"r{n}", "findings": "Clear. " * n, "impression": f"Normal {n}."} for n in range(9)]


def draw(count: int, max_tokens: int = 200, seed: int = 0) -> list[calibration.Sample]:
    tokenizer = make_tokenizer(CHAT, adds_bos=True)
    return calibration.draw(tokenizer, ROWS, TEMPLATE, "impression", count, max_tokens, seed)


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
    record = calibration.record(cut, "h", 40, 0)
    assert record["truncated"] == sum(len(sample.ids) > 40 for sample in whole) > 0
    assert record["tokens"] == sum(len(sample.ids) for sample in cut)


def test_too_few_texts_are_an_error() -> None:
    # The ninth report has no findings.
    with pytest.raises(UserError, match=r"9 calibration samples .* only 8 reports with findings"):
        draw(9)
    with pytest.raises(UserError, match="must be at least 1"):
        draw(0)


def test_the_script(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model")
    pd.DataFrame(ROWS).to_csv(tmp_path / "train.csv", index=False)
    command = ["calibration_set.py", "--model", str(tmp_path / "model")]
    command += ["--train", str(tmp_path / "train.csv"), "--prompt-text", TEMPLATE]
    command += ["--samples", "5", "--max-tokens", "8", "--seed", "3"]
    tables = []
    for name in ("a", "b"):
        paths = ["--output", f"{tmp_path}/{name}.parquet", "--record", f"{tmp_path}/{name}.json"]
        with mock.patch.object(sys, "argv", command + paths):
            runpy.run_path(str(SCRIPTS / "calibration_set.py"), run_name="__main__")
        tables.append((tmp_path / f"{name}.parquet").read_bytes())
    assert tables[0] == tables[1]
    table = pd.read_parquet(tmp_path / "a.parquet")
    record = json.loads((tmp_path / "a.json").read_text())
    assert list(table.columns) == ["id", "text", "tokens", "input_ids"]
    assert list(table["tokens"]) == [len(ids) for ids in table["input_ids"]]
    assert table["input_ids"][0].dtype == "int32"
    assert record["prompt_hash"] == sha256_text(TEMPLATE)
    assert (record["samples"], record["max_tokens"], record["seed"]) == (5, 8, 3)
