"""What is said of exceptions that nobody expected: what helps, and nothing that may be a text."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import tokenizers
import torch
import transformers
from tiny_models import tiny_llama
from tokenizers import models, pre_tokenizers

from radquant.checkpoints.fitting import open_config
from radquant.checkpoints.loading import load_tokenizer
from radquant.cli import run
from radquant.errors import UserError
from radquant.failures import how_it_ended, loading, tell_of_killed, withheld_panics

TEXT = "zqx no effusion"


def panicking() -> tokenizers.Tokenizer:
    """A tokenizer that panics in Rust for every text."""
    made = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    made.pre_tokenizer = pre_tokenizers.FixedLength(0)
    return made


def said_of(
    work: Callable[[], object], capfd: pytest.CaptureFixture[str], code: int = 1
) -> list[str]:
    """The lines on stderr of a script that does this."""
    with pytest.raises(SystemExit) as ended:
        run(lambda: work() and None)
    assert ended.value.code == code
    return capfd.readouterr().err.splitlines()


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> None:
        raise error

    return work


def write_too_much() -> None:
    os.write(os.open("/dev/full", os.O_WRONLY), b"x")


# Of PyTorch, NumPy and Arrow themselves, so that another wording of theirs is noticed.
@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.empty(10**15),
        lambda: np.empty(10**15),
        lambda: pyarrow.allocate_buffer(10**17),
        raising(torch.OutOfMemoryError("Tried to allocate 9 GiB")),
        raising(OSError(errno.ENOMEM, "Cannot allocate memory")),
    ],
)
def test_memory_that_ran_out_has_advice(
    capfd: pytest.CaptureFixture[str], work: Callable[[], object]
) -> None:
    (line,) = said_of(work, capfd)
    assert line.startswith("error: memory ran out; lower generation.batch_size")


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (write_too_much, "a file cannot be written (No space left on device); make room"),
        (raising(OSError(errno.EDQUOT, "")), "(Disk quota exceeded); make room"),
        (raising(OSError(errno.EMFILE, "")), "(Too many open files); raise the limit (ulimit -n)"),
        (raising(OSError(errno.EROFS, "")), "(Read-only file system); allow it, or choose another"),
        (raising(OSError("… No space left on device (os error 28)")), "make room"),
        (raising(BlockingIOError(errno.EAGAIN, "")), "no more processes (Resource temporarily"),
        (raising(RuntimeError("can't start new thread")), "lower compute.threads"),
        (
            raising(RuntimeError("CUDA error: no kernel image is available\nmore")),
            "the GPU failed (CUDA error: no kernel image is available more); look at it",
        ),
        (lambda: __import__("no_such_package"), "No module named 'no_such_package'"),
    ],
)
def test_what_the_system_refuses_has_a_sentence(
    capfd: pytest.CaptureFixture[str], work: Callable[[], object], said: str
) -> None:
    (line,) = said_of(work, capfd)
    assert line.startswith("error: ")
    assert said in line


def test_a_file_is_named_and_a_text_is_not(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    absent = tmp_path / "model.safetensors"
    (line,) = said_of(absent.read_bytes, capfd)
    assert line == f"error: {absent} cannot be opened (No such file or directory); check the path"
    for text in (TEXT, f"/{TEXT}", f"{TEXT}/5 views", f"/{TEXT}" * 200):  # taken for a path
        lines = said_of(Path(text).read_bytes, capfd)
        assert "zqx" not in "".join(lines)


@pytest.mark.parametrize("error", [ValueError(TEXT), KeyError(TEXT), OSError(TEXT)])
def test_any_other_message_is_withheld(capfd: pytest.CaptureFixture[str], error: Exception) -> None:
    lines = said_of(raising(error), capfd)
    assert lines[-1].startswith(f"error: {type(error).__name__} in the program itself")
    assert "zqx" not in "".join(lines)


def test_a_panic_is_withheld_and_so_is_what_rust_says_of_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        with withheld_panics():
            print("of Python", file=sys.stderr)
            os.write(2, b"of a library\n")
            panicking().encode(TEXT)

    said = "\n".join(said_of(work, capfd))
    assert "of Python\nof a library\n" in said
    assert "PanicException in the program itself" in said
    assert "panicked at" not in said
    assert "chunk size" not in said  # what it panicked for


def test_what_is_said_without_a_panic_is_all_kept(capfd: pytest.CaptureFixture[str]) -> None:
    with withheld_panics(), withheld_panics():
        os.write(2, b"one\n")
    os.write(2, b"two\n")
    assert capfd.readouterr().err == "one\ntwo\n"


def test_interrupts_and_exits_are_no_failures(capfd: pytest.CaptureFixture[str]) -> None:
    assert said_of(raising(KeyboardInterrupt()), capfd, 130) == ["interrupted"]
    assert said_of(raising(SystemExit(3)), capfd, 3) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("model_type"), "m cannot be loaded (KeyError: 'model_type'); fetch"),
        (ValueError("two\n  lines."), "m cannot be loaded (ValueError: two lines); fetch"),
        (IndexError("x" * 9999), "x …); fetch"),
        (UserError("a sentence"), "a sentence"),
    ],
)
def test_of_loading_the_message_is_told(error: Exception, said: str) -> None:
    with pytest.raises(UserError) as caught, loading("m"):
        raise error
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


def out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


def test_memory_is_no_fault_of_what_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MemoryError), loading("m"):
        raise MemoryError
    tiny_llama(tmp_path)
    for name in ("AutoTokenizer", "AutoConfig"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", out_of_memory)
    with pytest.raises(MemoryError):
        load_tokenizer(tmp_path)
    with pytest.raises(MemoryError):
        open_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", "{0}/tokenizer.json is no whole JSON; fetch"),
        ("tokenizer.json", "{}", "the tokenizer of {0} cannot be loaded (KeyError"),
        ("tokenizer_config.json", "[", "{0}/tokenizer_config.json is no whole JSON; fetch"),
        (
            *("config.json", '{"model_type": "llama", "num_attention_heads": 0}'),
            "the tokenizer of {0} cannot be loaded (ZeroDivisionError",
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_loaded_is_one_sentence(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    tiny_llama(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(said.replace("{0}", str(tmp_path)))):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_panics_is_found_before_it_sees_a_report(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_llama(tmp_path)
    capfd.readouterr()
    panicking().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="PanicException: chunk size must be non-zero"):
        load_tokenizer(tmp_path)
    assert "panicked" not in capfd.readouterr().err


def test_a_child_that_was_killed_is_said_to_be() -> None:
    done = subprocess.run(["sh", "-c", "kill -9 $$"], check=False)
    assert how_it_ended(done.returncode).startswith("was killed, most likely because memory")
    assert how_it_ended(137).startswith("was killed")
    assert how_it_ended(1).startswith("failed (exit status 1)")


@pytest.mark.parametrize("signal_number", [9, 15, 0])
def test_the_shell_of_a_job_says_that_it_was_killed(signal_number: int, tmp_path: Path) -> None:
    program = f"import os; os.kill(os.getpid(), {signal_number})"
    words = f'{sys.executable} -ISc "{program}" 2>&1 | tee {tmp_path}/log >&2'
    line = f"set -euo pipefail; {tell_of_killed(sys.executable)}; {words}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == (128 + signal_number if signal_number else 0)
    told = "error: the job was killed, most likely because memory ran out; lower generation."
    assert (told in done.stderr) == (signal_number == 9)
    assert "memory" not in line  # which Snakemake prints for every job that fails
