"""A whole run that takes half a minute, and what tests of faults do to it."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import yaml
from tiny_models import tiny_llama
from workflow_helpers import command, contents, copy_repository, errors, snakemake

SCORES = ["results/scores/*.parquet"]
CONFIG = {
    "model": {"name": "tiny", "path": "model"},
    "corpus": {"name": "tiny", "format": "table", "path": "corpus.csv"},
    "evaluation": {"reports": 3},
    "calibration": {"samples": 4, "max_tokens": 64},
    "checkpoints": {"w4": {"method": "gptq", "bits": 4, "group_size": 32}},
    "precisions": {"original": {"checkpoint": "original"}, "w4a16": {"checkpoint": "w4"}},
    "generation": {"examples": 1, "batch_size": 2, "shards": 1, "max_new_tokens": 8},
    "statistics": {"resamples": 200},
    "speed": {"repeats": 0},
    "compute": {"device": "cpu"},
}
# In the order of a run: a rule, the log of one of its jobs, and a file that this job writes.
STAGES = [
    ("fetch_model", "fetch_model", "models/original/config.json"),
    ("clean", "clean", "data/eval.csv"),
    ("calibration_set", "calibration_set", "calibration/samples.parquet"),
    ("quantize", "quantize/w4", "checkpoints/w4/model.safetensors"),
    ("generate", "generate/w4a16/shard-1-of-1", "generations/w4a16/shard-1-of-1.parquet"),
    ("likelihood", "likelihood/w4a16", "likelihood/w4a16.parquet"),
    ("annotate", "annotate/w4a16/shard-1-of-1", "annotations/w4a16/shard-1-of-1.jsonl"),
    ("score", "score/w4a16", "scores/w4a16.parquet"),
    ("report", "report", "report.md"),
]
WAYS = ["SIGKILL to all", "SIGKILL to Snakemake", "Ctrl-C"]
ORPHANS = (
    "error: jobs of a run that was killed are still at work in this directory; wait for them, or "
    "stop them first"
)


def make_run(folder: Path) -> Path:
    """A copy of the repository in which the plain command is a tiny run; nothing has run yet."""
    run = copy_repository(folder)
    write_inputs(run)
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return run


def write_inputs(folder: Path) -> None:
    """A tiny model and 12 reports, which CONFIG names."""
    rows = [
        f"r{n},The lungs are clear and the heart size is normal {n}.,No acute effusion {n}."
        for n in range(12)
    ]
    tiny_llama(folder / "model", texts=rows, max_position_embeddings=512)
    (folder / "corpus.csv").write_text("\n".join(["id,findings,impression", *rows]) + "\n")


def copy(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder, symlinks=True)
    return folder


def plain(run: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """The plain command, with nothing but how many jobs run side by side."""
    if not before:
        return snakemake(run, "--cores", "2")
    words = [*before, *command("--cores", "2")]
    return subprocess.run(words, cwd=run, capture_output=True, text=True, check=False)


def scores(run: Path) -> dict[str, bytes]:
    found = contents(run, SCORES)
    assert len(found) == 5
    return found


def processes(run: Path) -> list[psutil.Process]:
    """Those at work in a run's directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(run):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # over, or another user's
            continue
    return found


def interrupt(run: Path, stage: tuple[str, str, str], delay: float, way: str) -> int:
    """Start the run, stop it `delay` seconds into a stage; what is left of it is over, too.

    A stage that was finished before is made to run again. Returns Snakemake's exit code.
    """
    _, log, output = stage
    (run / "results" / output).unlink(missing_ok=True)
    # What only finished jobs have read is not missed.
    (run / "results/report.md").unlink(missing_ok=True)
    seen = run / "results" / "logs" / f"{log}.log"
    seen.unlink(missing_ok=True)
    with open(run / "said.txt", "wb") as said:
        process = subprocess.Popen(
            command("--cores", "2"),
            cwd=run,
            start_new_session=True,
            stdout=said,
            stderr=said,
            # Tests that run in a shell's background have inherited that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    deadline = time.monotonic() + 600
    while not seen.exists():
        assert process.poll() is None, (run / "said.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(delay)
    if way == "SIGKILL to Snakemake":
        process.kill()
    elif way == "SIGTERM to Snakemake":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGINT if way == "Ctrl-C" else signal.SIGKILL)
    code = process.wait(timeout=120)
    if way == "SIGKILL to Snakemake":
        outlive(run)
    else:
        psutil.wait_procs(processes(run), timeout=10)
        assert not processes(run), "orphans"
    return code


def outlive(run: Path) -> None:
    """Jobs that outlive a killed Snakemake keep another run out until they are done."""
    if processes(run):
        second = plain(run)
        # The last of them may have ended while Snakemake started.
        if processes(run):
            assert errors(second.stderr) == [ORPHANS], second.stderr[-3000:]
    _, alive = psutil.wait_procs(processes(run), timeout=600)
    assert not alive


def moments(seed: int, count: int) -> list[tuple[tuple[str, str, str], float]]:
    """`count` random stages in the order of a run, and how many seconds into each."""
    drawn = random.Random(seed)
    stages = sorted((drawn.choice(STAGES) for _ in range(count)), key=STAGES.index)
    return [(stage, drawn.uniform(0, 3)) for stage in stages]
