"""PrefixQuant's tokens: which stand out, which are worth a try, and going on after a kill."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_models import (
    make_stand_out,
    quantize_after_a_kill,
    store,
    tiny_llama,
    token_samples,
    token_sequences,
    write_samples,
)
from torch import Tensor

from radquant.quantization import outliers
from radquant.quantization.original_model import open_original
from radquant.quantization.outliers import all_behind, choose_prefix, find_prefix, standing_out
from radquant.quantization.samples import Sample
from radquant.runtime.runtime_file import FILE, behind_prefix

CPU = torch.device("cpu")
BOS, ODD = 1, 7
ids = st.lists(st.integers(0, 4), max_size=6)


@pytest.mark.parametrize(
    ("prefix", "text", "expected"),
    [
        ([BOS], [BOS, 5, 6], [BOS, 5, 6]),
        ([ODD, BOS], [BOS, 5, 6], [ODD, BOS, 5, 6]),  # once, where both meet
        ([ODD, BOS], [5, 6], [ODD, BOS, 5, 6]),  # a text without
        ([ODD, BOS], [BOS, BOS, 5], [ODD, BOS, BOS, 5]),
        ([BOS, ODD], [BOS, 5], [BOS, ODD, BOS, 5]),  # not where they meet
        ([ODD, BOS], [], [ODD, BOS]),
        ([ODD, BOS], [BOS], [ODD, BOS]),
        ([], [BOS, 5], [BOS, 5]),
        ([], [], []),
    ],
)
def test_where_prefix_and_text_meet(
    prefix: list[int], text: list[int], expected: list[int]
) -> None:
    assert behind_prefix(prefix, text) == expected


@given(ids, ids)
def test_a_text_behind_a_prefix_is_whole(prefix: list[int], text: list[int]) -> None:
    found = behind_prefix(prefix, text)
    assert found[: len(prefix)] == prefix
    assert found[len(found) - len(text) :] == text  # also where a token is both's


def test_all_sequences_behind_a_prefix() -> None:
    sequences = token_samples([torch.tensor([BOS, 5]), torch.tensor([6])])
    found = [each.ids.tolist() for each in all_behind([ODD, BOS], sequences)]
    assert found == [[ODD, BOS], [ODD, BOS, 5], [ODD, BOS, 6]]  # the prefix by itself first
    assert [each.ids.tolist() for each in all_behind([], sequences)] == [[BOS, 5], [6]]
    assert all(each.ids.dtype == torch.int64 for each in all_behind([ODD], sequences))


def chosen(*texts: list[int], odd: Sequence[Sequence[int]]) -> list[list[int]]:
    """odd: the places that stand out in each text."""
    marks = [
        torch.tensor([n in places for n in range(len(text))])
        for text, places in zip(texts, odd, strict=True)
    ]
    return choose_prefix(token_samples(map(torch.tensor, texts)), marks)


def test_no_token_stands_out() -> None:
    assert chosen([1, 5, 6], [1, 6, 5], odd=[[], []]) == []


def test_the_first_alone() -> None:
    """What comes first in most texts."""
    assert chosen([1, 5, 6], [1, 6, 5], [5, 6], odd=[[0], [0], [0]]) == [[1]]


def test_the_first_and_others() -> None:
    found = chosen([1, 5, 6, 8], [1, 6, 5, 8], odd=[[0, 1], [0, 2]])  # one in a text: 5
    assert found == [[1], [5, 1]]
    found = chosen([1, 5, 6, 8], [1, 6, 5, 8], odd=[[0, 1, 2], [0, 2]])  # 1.5 in a text
    assert found == [[1], [5, 6, 1]]


def test_no_more_than_a_few() -> None:
    text = [1, 2, 3, 4, 5, 6, 7]
    found = chosen(text, text, [1, 2, 3, 4], odd=[[0, 1, 2, 3, 4, 5, 6]] * 2 + [[1, 2, 3]])
    assert found == [[1], [2, 3, 4, 1]]


def test_a_rare_one_is_not_worth_a_place() -> None:
    texts = [[1, 5, 6]] * 5
    assert chosen(*texts, odd=[[0, 1], [0], [0], [0], [0]]) == [[1]]
    assert chosen(*texts, odd=[[1], [], [], [], []]) == [[1]]


def test_the_first_token_is_not_named_twice() -> None:
    assert chosen([1, 5, 1], [1, 1, 5], odd=[[0, 2], [0, 1]]) == [[1]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "model"
    return make_stand_out(tiny_llama(folder, tie_word_embeddings=False), ODD)


def marks_of(original: Path, folder: Path, sequences: list[Tensor], prefix: int) -> list[Tensor]:
    samples = token_samples(sequences)
    return standing_out(open_original(original), samples, prefix, folder / "hidden", CPU)


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_token_that_stands_out_is_marked(original: Path, tmp_path: Path, prefix: int) -> None:
    """Wherever it is behind the prefix, and no other."""
    sequences = [torch.cat([torch.tensor([ODD, BOS]), ids]) for ids in token_sequences(4, 20)]
    found = marks_of(original, tmp_path, sequences, prefix)
    for marks, sequence in zip(found, sequences, strict=True):
        assert marks.tolist() == (sequence[prefix:] == ODD).tolist()
    assert sum(int(marks.sum()) for marks in found) > 4 * (not prefix)
    assert not list(tmp_path.iterdir())


def test_nothing_stands_out_of_an_ordinary_model(tmp_path: Path) -> None:
    plain = tiny_llama(tmp_path / "m")
    work = tmp_path / "work"
    work.mkdir()
    assert not any(marks.any() for marks in marks_of(plain, work, token_sequences(4, 20), 0))
    samples = token_samples(token_sequences(4, 20))
    found = find_prefix(lambda: open_original(plain), samples, work / "h", CPU)
    assert found == []


def test_the_one_that_comes_first_is_found(original: Path, tmp_path: Path) -> None:
    """In the first place of most sequences, and behind itself no longer counted."""
    rest = [ids[ids != ODD] for ids in token_sequences(8, 20)]
    sequences = token_samples(torch.cat([torch.tensor([ODD]), ids]) for ids in rest)
    found = find_prefix(lambda: open_original(original), sequences, tmp_path / "h", CPU)
    assert found == [ODD]


@pytest.mark.parametrize(
    ("left", "expected"), [((9, 2), [ODD, BOS]), ((3, 3), [BOS]), ((2, 5), [BOS])]
)
def test_the_prefix_that_leaves_the_fewest(
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: tuple[int, int],
    expected: list[int],
) -> None:
    """Of the first token and the first with others; the shorter one among equals."""
    seen = []

    def marks(source: object, samples: list[Sample], prefix: int, *_: object) -> list[Tensor]:
        sequences = [sample.ids for sample in samples]
        seen.append([each[: max(prefix, 1)].tolist() for each in sequences])
        if not prefix:
            return [(each == ODD) | (torch.arange(len(each)) == 0) for each in sequences]
        return [torch.arange(len(each) - prefix) < left[prefix - 1] for each in sequences]

    monkeypatch.setattr(outliers, "standing_out", marks)
    sequences = token_samples([torch.tensor([BOS, 5, 6, ODD, 8, 9, 10, 11, 12, 13, 14, 15])] * 40)
    found = find_prefix(lambda: open_original(original), sequences, tmp_path / "h", CPU)
    assert found == expected
    count = outliers.SEQUENCES
    assert seen == [[[BOS]] * count, [[BOS]] * count, [[ODD, BOS]] * count]


# ----------------------------------------------------------------------------------- the script


def test_the_script_finds_stores_and_records_it(original: Path, tmp_path: Path) -> None:
    samples = write_samples(tmp_path, ODD)
    options = ("--method", "rtn", "--bits", "8", "--prefix", "auto", "--calibration", str(samples))
    directory = store(original, tmp_path / "c", *options)
    assert json.loads((directory / "quantization.json").read_text())["prefix"] == [ODD]
    tensors = load_file(directory / FILE)
    assert tensors["prefix.ids"].tolist() == [ODD]
    assert sorted(tensors) == [
        "prefix.0.key",
        "prefix.0.value",
        "prefix.1.key",
        "prefix.1.value",
        "prefix.ids",
    ]


def test_a_model_without_such_tokens_stores_nothing(tmp_path: Path) -> None:
    original = tiny_llama(tmp_path / "m")
    samples = write_samples(tmp_path, BOS)
    options = ("--method", "rtn", "--bits", "8", "--prefix", "auto", "--calibration", str(samples))
    directory = store(original, tmp_path / "c", *options)
    assert json.loads((directory / "quantization.json").read_text())["prefix"] == []
    assert not (directory / FILE).exists()


LAYERS = 8  # enough for a kill to come before the last


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """With everything that is stored for run time."""
    folder = tiny_llama(tmp_path / "o", num_hidden_layers=LAYERS, tie_word_embeddings=False)
    original = make_stand_out(folder, ODD)
    rounding = '{"bits": 8, "granularity": "tensor", "range": "static"}'
    options = ["--method", "awq", "--transform", "hadamard", "--prefix", "auto"]
    options += ["--smooth-attention", "--activations", rounding]
    options += ["--calibration", str(write_samples(tmp_path, ODD))]
    expected = store(original, tmp_path / "c", *options)
    output = tmp_path / "again"
    quantize_after_a_kill(
        original, output, LAYERS, "--group-size", "32", "--device", "cpu", *options
    )
    for name in ("model.safetensors", FILE, "config.json", "README.md"):
        assert (output / name).read_bytes() == (expected / name).read_bytes(), name
