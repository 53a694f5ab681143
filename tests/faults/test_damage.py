"""Files that are damaged, made read-only or find no room: the same scores, or a sentence.

CI tries a few; `--all-damages` every kind of file in every way (see test_kills.py).
"""

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import copy, make_run, plain, scores
from workflow_helpers import errors

SHARD = "w4a16/shard-1-of-1"
KINDS = [
    "models/original/model.safetensors",
    "models/original/tokenizer.json",
    "models/original/source.json",
    "data/raw.parquet",
    "data/train.csv",
    "data/eval.csv",
    "calibration/samples.parquet",
    "calibration/set.json",
    "checkpoints/w4/model.safetensors",
    "checkpoints/w4/config.json",
    "checkpoints/w4/quantization.json",
    f"generations/{SHARD}.parquet",
    f"generations/{SHARD}.json",
    "annotations/reference.jsonl",
    f"annotations/{SHARD}.jsonl",
    "likelihood/w4a16.parquet",
    "scores/original.parquet",
    "scores/w4a16.parquet",
]
WAYS = ["cut short", "one bit flipped", "one bit flipped, its time kept"]
# Each is noticed by another part: a job that runs again, Snakemake's start.
IN_CI = [(f"annotations/{SHARD}.jsonl", WAYS[1]), ("scores/w4a16.parquet", WAYS[2])]
IN_CHECKPOINT = [
    *("config.json", "model.safetensors", "quantization.json"),
    *("README.md", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = metafunc.config.getoption("--all-damages")
    if "kind" in metafunc.fixturenames:
        every = [(kind, way) for kind in KINDS for way in WAYS]
        metafunc.parametrize(("kind", "way"), every if everything else IN_CI)
    if "lost" in metafunc.fixturenames:
        metafunc.parametrize("lost", IN_CHECKPOINT if everything else [])


def damage(path: Path, way: str) -> None:
    """At a place that is drawn by the file's name: the same each time."""
    drawn, data, times = random.Random(path.name), bytearray(path.read_bytes()), path.stat()
    place = drawn.randrange(len(data))
    if way == WAYS[0]:
        del data[place:]
    else:
        data[place] ^= 1 << drawn.randrange(8)
    path.write_bytes(data)
    if way == WAYS[2]:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def follow(run: Path, damaged: str) -> list[str]:
    """Call the plain command and do what its sentence says until it succeeds; the sentences."""
    said: list[str] = []
    while (done := plain(run)).returncode:
        found = errors(done.stderr)
        assert found, done.stderr[-5000:]
        assert found[0] not in said, "the remedy that it names is none"
        named = re.match(r"error: (results/[^\s,:]+)", found[0])
        assert named, found
        assert named[1].startswith(f"results/{Path(damaged).parent}"), found
        assert "was changed" in found[0] or "is missing" in found[0] or "valid" in found[0]
        path = run / named[1]
        if "delete the directory" in found[0]:
            shutil.rmtree(path.parent)
        else:
            assert "delete it and run again" in found[0], found
            path.unlink()
            if "results/report.md with it" in found[0]:
                (run / "results/report.md").unlink()
        said.append(found[0])
    return said


def test_a_damaged_file_changes_no_score(
    undisturbed: Path, tmp_path: Path, kind: str, way: str, ends: Counter[tuple[str, str]]
) -> None:
    run = copy(undisturbed, tmp_path / "run")
    damage(run / "results" / kind, way)
    said = follow(run, kind)
    assert scores(run) == scores(undisturbed)
    ends[
        f"{kind} {way}", "refused by name, then the same scores" if said else "the same scores"
    ] += 1


@pytest.mark.parametrize("again", ["", "generations/w4a16/shard-1-of-1.parquet"])
def test_a_file_that_is_lost_from_a_checkpoint_changes_no_score(
    undisturbed: Path, tmp_path: Path, lost: str, again: str, ends: Counter[tuple[str, str]]
) -> None:
    """Whether a job loads the checkpoint again or not."""
    run = copy(undisturbed, tmp_path / "run")
    (run / "results/checkpoints/w4" / lost).unlink()
    if again:
        (run / "results" / again).unlink()
    said = follow(run, f"checkpoints/w4/{lost}")
    assert scores(run) == scores(undisturbed)
    how = "refused by name, then the same scores" if said else "the same scores"
    ends[f"checkpoints/w4/{lost} lost", how] += 1


def bound() -> list[str]:
    """What lets file modes bind root, too; others they bind anyway."""
    if os.geteuid():
        return []
    caps = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]


def test_read_only_files(undisturbed: Path, tmp_path: Path, ends: Counter[tuple[str, str]]) -> None:
    """Files are replaced, which needs a writable folder alone; where that is not, a sentence."""
    run = copy(undisturbed, tmp_path / "run")
    results = run / "results"
    lost = results / "scores/w4a16.parquet"
    # Not those that will be made again: Snakemake names and refuses write-protected outputs.
    for kind in ("data", "models", "checkpoints", "generations", "annotations", "likelihood"):
        for path in (results / kind).rglob("*"):
            if path.is_file():
                path.chmod(0o400)
    lost.unlink()
    (results / "report.md").unlink()
    lost.parent.chmod(0o500)
    done = plain(run, *bound())
    assert done.returncode == 1
    assert errors(done.stderr) == [
        "error: results/scores/w4a16.parquet cannot be written (Permission denied); make room or "
        "allow it, and run again"
    ]
    lost.parent.chmod(0o700)
    done = plain(run, *bound())
    assert done.returncode == 0, done.stderr[-5000:]
    assert scores(run) == scores(undisturbed)
    ends["read-only folder", "refused by name, then the same scores"] += 1
    ends["read-only files", "the same scores"] += 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A run that has not begun, whose results go to a file system of their own."""
    run = make_run(tmp_path / "run")
    (run / "results").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(run / "results")]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"no tmpfs can be mounted here ({done.stderr.strip()})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield run
    subprocess.run(["umount", str(run / "results")], check=True)


def resize(run: Path, size: str) -> None:
    words = ["mount", "-o", f"remount,size={size}", str(run / "results")]
    subprocess.run(words, check=True)


@pytest.mark.long
def test_a_full_disk(undisturbed: Path, small: Path, ends: Counter[tuple[str, str]]) -> None:
    """One that gets room little by little, so that one stage after another finds it full."""
    stops = 0
    for size in ["100k", "300k", "700k"]:
        resize(small, size)
        done = plain(small)
        if done.returncode:
            assert "No space left on device" in done.stderr, done.stderr[-5000:]
            stops += 1
    assert stops
    resize(small, "50m")
    done = plain(small)
    assert done.returncode == 0, done.stderr[-5000:]
    assert scores(small) == scores(undisturbed)
    ends["disk full", "told by name, then the same scores"] += stops
