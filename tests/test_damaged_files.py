"""What this program wrote and something else changed: refused, whichever byte it is."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from tiny_models import quantize_tiny, tiny_llama

from radquant.checkpoints.loading import load_tokenizer
from radquant.errors import UserError
from radquant.files import (
    atomic_directory,
    atomic_path,
    hash_directory,
    hash_path,
    read_json,
    read_table,
    write_json,
    write_jsonl,
    write_table,
)
from radquant.quantization import resuming
from radquant.scoring import records

NOTE = {"tokens": "clear", "label": "ANAT-DP", "start_ix": 0, "end_ix": 0, "relations": []}
RECORD = {
    "id": "1",
    "annotator": "lexicon",
    "text_hash": "0" * 64,
    "text": "clear",
    "entities": {"1": NOTE},
}
TABLE = pd.DataFrame({"id": ["1", "2"], "output": ["clear lungs", "no effusion"], "nll": [1.5, 2]})

WRITERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "scores.parquet": (lambda path: write_table(path, TABLE), read_table),
    "eval.csv": (lambda path: write_table(path, TABLE), read_table),
    "quantization.json": (lambda path: write_json(path, {"bits": 4, "files": {}}), read_json),
    "notes.jsonl": (
        lambda path: write_jsonl(path, [RECORD]),
        lambda path: records.read([path]),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("written")
    for name, (write, _) in WRITERS.items():
        write(made / name)
    return made


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_a_file_is_refused_whichever_bit_is_wrong_and_wherever_it_ends(
    folder: Path, name: str, place: int, bit: int, cut: bool
) -> None:
    path, read = folder / name, WRITERS[name][1]
    whole = path.read_bytes()
    place %= len(whole)
    damaged = whole[:place] if cut else bytearray(whole)
    if not cut:
        damaged[place] ^= 1 << bit  # type: ignore[index]
    read(path)
    try:
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            read(path)
    finally:
        path.write_bytes(whole)
    assert str(path) in str(caught.value)
    assert "delete it and run again" in str(caught.value)


def test_a_file_of_someone_else_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "own.json") == {"a": 1}


def test_a_record_of_a_hash_is_no_file_of_a_model(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {})
    assert hash_path(tmp_path / "config.json").is_file()
    assert list(hash_directory(tmp_path)) == ["config.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(UserError, match=r"a\.csv cannot be written") as caught,
        atomic_path(tmp_path / "a.csv"),
    ):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_by_what_writes_tensors(tmp_path: Path) -> None:
    """safetensors has an exception of its own, seen on a full tmpfs."""
    told = "Error while serializing: I/O error: No space left on device (os error 28)"
    with (
        pytest.raises(UserError, match=r"a\.safetensors cannot be written \(No space left"),
        atomic_path(tmp_path / "a.safetensors"),
    ):
        raise SafetensorError(told)


KILLED = """
import os, signal, sys
from radquant.files import atomic_directory
with atomic_directory(sys.argv[1]) as part:
    (part / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def parts_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix == ".part"]


def test_what_a_killed_process_left_of_a_directory_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "w4[1]"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)])
    assert done.returncode == -signal.SIGKILL
    assert [list(path.iterdir()) for path in parts_in(tmp_path)] != []
    others = [".w4[1].work", ".w4[1].5.12345.part"]  # of a checkpoint w4[1].5
    for name in others:
        (tmp_path / name).mkdir()
    with atomic_directory(target) as part:
        (part / "config.json").write_text("{}")
        assert {path.name for path in parts_in(tmp_path)} == {part.name, others[1]}
    assert {path.name for path in tmp_path.iterdir()} == {*others, "w4[1]"}


def test_a_directory_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """By a process with the same id, as in two containers."""
    with atomic_directory(tmp_path / "w4") as one:
        (one / "config.json").write_text("1")
        with atomic_directory(tmp_path / "w4") as other:
            (other / "config.json").write_text("2")
        assert (tmp_path / "w4/config.json").read_text() == "2"
    assert (tmp_path / "w4/config.json").read_text() == "1"
    assert not parts_in(tmp_path)


def test_two_processes_of_one_id_write_one_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.json") as one:
        one.write_text("1")
        with atomic_path(tmp_path / "a.json") as other:
            other.write_text("2")
        assert (tmp_path / "a.json").read_text() == "2"
    assert (tmp_path / "a.json").read_text() == "1"
    assert not parts_in(tmp_path)


def make_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("name", [".w4.00000000-0123456789abcdef.part", ".w4.12345.part"])
def test_what_another_machine_left_is_removed_once_it_is_silent(tmp_path: Path, name: str) -> None:
    """Its locks are not seen here. The second name is an earlier version's."""
    left = tmp_path / name
    left.mkdir()
    shard = left / "model.safetensors"
    shard.write_bytes(b"half")

    def is_left() -> bool:
        with atomic_directory(tmp_path / "w4"):
            return left.exists()

    make_old(left, 7200)
    assert is_left()  # the file in it grows
    make_old(shard, 600)
    assert is_left()
    make_old(shard, 7200)
    assert not is_left()


def test_without_locks_only_silence_tells_what_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "w4")])
    (left,) = parts_in(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic_directory(tmp_path / "w4"):
        assert left.exists()
    for path in (left / "model.safetensors", left):
        make_old(path, 7200)
    with atomic_directory(tmp_path / "w4"):
        assert not left.exists()


def test_a_changed_tokenizer_is_noticed_before_texts_are_counted(tmp_path: Path) -> None:
    """The calibration set, which needs no weights, was made with whatever tokenizer was there."""
    original = tiny_llama(tmp_path / "model")
    write_json(original / "source.json", {"files": hash_directory(original)})
    load_tokenizer(original)
    text = (original / "tokenizer.json").read_text()
    (original / "tokenizer.json").write_text(text.replace('"heart"', '"haart"'))
    with pytest.raises(UserError, match=r"tokenizer\.json was changed.*fetch the model again"):
        load_tokenizer(original)


def test_a_checkpoint_holds_no_record_of_another_file(tmp_path: Path) -> None:
    original = tiny_llama(tmp_path / "model")
    write_json(original / "source.json", {"files": hash_directory(original)})
    checkpoint = quantize_tiny(original, tmp_path, "rtn")
    assert not hash_path(checkpoint / "source.json").exists()
    files = read_json(checkpoint / "quantization.json")["files"]
    assert not [name for name in files if name.startswith(".")]


@pytest.mark.parametrize("name", ["layer-0000.safetensors", "hidden-0001.f32"])
def test_a_damaged_layer_of_a_killed_quantization_is_made_again(tmp_path: Path, name: str) -> None:
    work, fingerprint = tmp_path / "work", {"recipe": 1}
    assert resuming.prepare(work, fingerprint) == 0
    tensors = {"a": torch.arange(64.0)}
    with resuming.recorded_path(work / resuming.hidden_name(1)) as part:
        part.write_bytes(bytes(64))
    resuming.finish_layer(work, 0, tensors, {}, {"layers": []})
    assert resuming.prepare(work, fingerprint) == 1
    data = bytearray((work / name).read_bytes())
    data[-1] ^= 1
    (work / name).write_bytes(data)
    assert resuming.prepare(work, fingerprint) == 0
    assert not (work / name).exists()
    assert json.loads((work / resuming.FINGERPRINT).read_text()) == fingerprint
