"""Where report text goes: one small run without a network, under names made to run commands.

Every report holds CANARY. The run, and stages that are made to fail, may leave it in data files
and nowhere else.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tiny_models import tiny_llama
from tiny_tokenizers import byte_tokenizer
from workflow_helpers import copy_repository

CANARY = "zqxcanary7193"
# What may hold report text, by docs/privacy.md.
DATA = (
    *("results/data", "results/calibration/samples.parquet", "results/generations"),
    *("results/annotations", "results/scores", "results/report.md", "results/report.html"),
)
STRANGE = 'it\'s a "model"; $(touch pwned) `touch pwned` & x'
# As many tokens as `byte_tokenizer` has: one of words would hold what it can read.
SHAPE = {"num_hidden_layers": 1, "vocab_size": 320, "max_position_embeddings": 2048}


def offline(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a network namespace of its own, in which there is no network at all."""
    cut = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*cut, "true"], capture_output=True, check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("unshare may not make a network namespace here")
        pytest.skip("unshare may not make a network namespace here")
    words = [*cut, sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        words, cwd=run, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_repository(tmp_path_factory.mktemp("run; $(touch pwned)") / "a 'run'")
    rows = [
        f"r{n},The lungs are clear {CANARY} {n}.,No acute effusion {CANARY} {n}." for n in range(12)
    ]
    tiny_llama(folder / STRANGE, bos_token_id=0, eos_token_id=1, pad_token_id=None, **SHAPE)
    byte_tokenizer().save_pretrained(folder / STRANGE)
    corpus = folder / f"{STRANGE}.csv"
    corpus.write_text("\n".join(["id,findings,impression", *rows]) + "\n")
    config = {
        "model": {"name": "tiny", "path": STRANGE},
        "corpus": {"name": "tiny", "format": "table", "path": corpus.name},
        "evaluation": {"reports": 3},
        "calibration": {"samples": 4, "max_tokens": 256},
        "checkpoints": {"w4": {"method": "gptq", "bits": 4, "group_size": 32}},
        "precisions": {"original": {"checkpoint": "original"}, "w4a16": {"checkpoint": "w4"}},
        "generation": {"examples": 1, "batch_size": 2, "shards": 1, "max_new_tokens": 4},
        "statistics": {"resamples": 200},
        "speed": {"repeats": 3, "prompts": 2, "tokens": 3, "seconds": 0.01},
        "compute": {"device": "cpu"},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    done = offline(folder, "--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    (folder / "said.txt").write_text(done.stdout + done.stderr)
    return folder


def places(run: Path) -> Iterator[Path]:
    """Every file in which the workflow, Snakemake or this test wrote something down."""
    for folder in ("results", ".snakemake", "said.txt"):
        path = run / folder
        yield from [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())


def with_canary(run: Path) -> set[str]:
    return {str(p.relative_to(run)) for p in places(run) if CANARY.encode() in p.read_bytes()}


def test_a_run_without_a_network_keeps_report_text_in_data_files(run: Path) -> None:
    found = with_canary(run)
    assert "results/data/eval.csv" in found
    assert "results/report.html" in found
    assert not [name for name in found if not name.startswith(DATA)]


def test_no_name_ran_a_command(run: Path) -> None:
    assert not list(run.parent.parent.rglob("pwned"))


def test_files_with_text_are_their_owners_alone(run: Path) -> None:
    assert stat.S_IMODE((run / "results").stat().st_mode) == 0o700
    modes = {name: stat.S_IMODE((run / name).stat().st_mode) for name in with_canary(run)}
    assert modes
    assert set(modes.values()) == {0o600}, modes


# Each stage's own code, at a place where it holds report text, ends with that text as its error.
RAISE = "    raise ValueError(str({what}))\n"
PLACES = [
    ("src/radquant/corpus/formats/reading.py", "    check_ids(reports)\n", "reports"),
    ("src/radquant/corpus/pipeline.py", "    check_ids(raw)\n", "raw"),
    ("src/radquant/prompts.py", "    said = [*_said_by(", "row"),
    ("src/radquant/scoring/lexicon.py", "    tokens, starts, paragraphs, lowered = read(", "text"),
    ("src/radquant/scoring/changes.py", "    before, after = describe(", "original_text"),
    (
        "src/radquant/reporting/explorer.py",
        "    yield dump(_head(run, ruined, inputs))",
        "run.reports.to_dict()",
    ),
]


def test_stages_that_fail_tell_no_text(run: Path, tmp_path: Path) -> None:
    for number, (name, line, what) in enumerate(PLACES):
        copy = tmp_path / str(number)
        shutil.copytree(run, copy, symlinks=True)
        path = copy / name
        text = path.read_text()
        assert text.count(line) == 1, name
        path.write_text(text.replace(line, RAISE.format(what=what) + line))
        done = offline(copy, "--cores", "2")
        (copy / "said.txt").write_text(done.stdout + done.stderr)
        assert done.returncode == 1
        assert "ValueError in the program itself" in done.stderr, done.stderr[-3000:]
        assert not [found for found in with_canary(copy) if not found.startswith(DATA)], name
