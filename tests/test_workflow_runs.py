"""Whole runs of the workflow: the same again, killed, in other shards, refused."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_run import ORPHANS
from workflow_helpers import (
    REPOSITORY,
    SMOKE,
    command,
    contents,
    copy_repository,
    copy_run,
    dry_run,
    empty_run,
    errors,
    finish,
    snakemake,
)

from radquant.files import read_json, read_table

SCORES = ["results/scores/*.parquet"]


@pytest.fixture
def fresh(downloads: Path, tmp_path: Path) -> Path:
    return empty_run(tmp_path / "run", downloads)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return copy_run(finished_run, tmp_path / "run")


def quality(run: Path) -> Any:
    return read_json(run / "results" / "summary.json")["quality"]


def kill_in(run: Path, rule: str, log: str, output: str) -> None:
    """Start the run and kill it, with all of its processes, while `rule` is at work."""
    process = subprocess.Popen(
        command(*SMOKE),
        cwd=run,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while not (run / "results" / "logs" / log).exists():
            assert process.poll() is None, f"ended before {rule}"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGSTOP)  # so that it cannot end meanwhile
        if rule == "generate":
            assert_second_run_is_refused(run, *SMOKE)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (run / "results" / output).exists(), f"{rule} was not killed in the middle"


def assert_second_run_is_refused(run: Path, *words: str) -> None:
    second = snakemake(run, *words)
    assert second.returncode == 1
    assert errors(second.stderr) == [
        "error: another run is at work in this directory; wait for it, or stop it first"
    ]


@pytest.mark.long
def test_a_run_killed_twice_ends_with_the_bytes_of_an_undisturbed_one(
    finished_run: Path, run: Path
) -> None:
    """Also: one core gives what two did, and a second run runs beside no first.

    tests/faults kills in every stage, and test_streaming within a quantization.
    """
    results = run / "results"
    for written in ("generations/w4a8", "annotations/w4a8", "scores", "logs"):
        shutil.rmtree(results / written)
    (results / "report.md").unlink()
    shard = "w4a8/shard-2-of-2"
    kill_in(run, "generate", f"generate/{shard}.log", f"generations/{shard}.parquet")
    kill_in(run, "annotate", f"annotate/{shard}.log", f"annotations/{shard}.jsonl")
    finish(run, *SMOKE)
    expected = contents(finished_run, SCORES)
    assert len(expected) == 6
    assert contents(run, SCORES) == expected
    assert quality(run) == quality(finished_run)
    # A handful of reports answers nothing, and says so before all else.
    said = read_json(run / "results" / "summary.json")["verdict"][0]
    assert said.startswith("Unfit to answer: ")
    assert not [path for path in results.rglob("*.part") if "downloads" not in path.parts]


@pytest.mark.long
def test_four_shards_give_the_outputs_of_two(run: Path) -> None:
    """Three batches in four shards: one shard is empty."""
    before = contents(run, ["results/scores/w4a8.parquet"])
    outputs = all_outputs(run, "w4a8", 2)
    finish(run, *before, *SMOKE, "--config", 'generation={"shards": 4}')
    assert contents(run, list(before)) == before
    assert all_outputs(run, "w4a8", 4) == outputs


def all_outputs(run: Path, precision: str, shards: int) -> dict[str, str]:
    outputs: dict[str, str] = {}
    for number in range(1, shards + 1):
        path = run / f"results/generations/{precision}/shard-{number}-of-{shards}.parquet"
        table = read_table(path)
        outputs.update(zip(table["id"], table["output"], strict=True))
    return outputs


@pytest.mark.slow
def test_an_environment_is_built_by_its_rule(fresh: Path) -> None:
    (fresh / "envs" / "empty.txt").write_text("# nothing\n")
    finish(fresh, "results/venvs/empty/ready.json")
    python = fresh / "results" / "venvs" / "empty" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "--version"], check=True)
    record = read_json(fresh / "results" / "venvs" / "empty" / "ready.json")
    assert "radquant" not in record["packages"]


@pytest.mark.slow
def test_a_command_of_the_workflow_works_by_hand(run: Path) -> None:
    """The log of a dry run with -p holds the command that a job would run."""
    score = run / "results" / "scores" / "w4a8.parquet"
    expected = score.read_bytes()
    score.unlink()
    shown = dry_run(run, "results/scores/w4a8.parquet", "-p", *SMOKE).out
    by_hand = next(line for line in shown.splitlines() if " scripts/score.py " in line)
    subprocess.run(["bash", "-c", by_hand.removeprefix("Shell command: ")], cwd=run, check=True)
    assert score.read_bytes() == expected


# --------------------------------------------------------------------------- what bad input gets


def table_config(run: Path, table: str, reports: int = 2) -> str:
    """Write a configuration whose corpus is the CSV `table`, and return its name."""
    config = yaml.safe_load((run / "config" / "smoke.yaml").read_text())
    config["corpus"] = {"name": "own", "format": "table", "path": table}
    config["evaluation"] = {"reports": reports}
    (run / "own.yaml").write_text(yaml.safe_dump(config))
    return "own.yaml"


def write_reports(path: Path, count: int = 12) -> None:
    rows = [
        f"p{number},Heart size is {number} units wide. Lungs show change number {number}.,"
        f"Change number {number} in the lungs."
        for number in range(count)
    ]
    path.write_text("\n".join(["id,findings,impression", *rows, ""]), encoding="utf-8")


def assert_refused(run: Path, sentence: str, *arguments: str) -> None:
    done = snakemake(run, *arguments)
    assert done.returncode == 1
    assert len(errors(done.stderr)) == 1, done.stderr
    assert sentence in errors(done.stderr)[0]
    assert "Traceback" not in done.stderr


def test_a_path_may_hold_anything_but_braces(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    name = 'it\'s a "table" $(touch hacked) & more'
    write_reports(run / f"{name}.csv")
    prompt = run / "prompts" / f"{name}.txt"
    shutil.copy(run / "prompts" / "impression.txt", prompt)
    table_config(run, f"{name}.csv")
    config = yaml.safe_load((run / "own.yaml").read_text())
    config["generation"]["prompt"] = f"prompts/{name}.txt"
    (run / "own.yaml").write_text(yaml.safe_dump(config))
    finish(run, "results/data/eval.csv", "results/config.json", "--configfile", "own.yaml")
    assert len(read_table(run / "results" / "data" / "eval.csv")) == 2
    assert read_json(run / "results" / "config.json")["corpus"]["path"] == f"{name}.csv"
    planned = dry_run(run, "--configfile", "own.yaml")
    assert planned.code == 0, planned.err
    assert not (run / "hacked").exists()


def test_a_corpus_that_is_not_there(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    table_config(run, "none.csv")
    assert_refused(run, "none.csv", "results/data/eval.csv", "--configfile", "own.yaml")
    assert not (run / "results" / "logs").exists()  # no job has begun


def test_a_plan_looks_at_a_corpus_that_is_there(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    (run / "own.csv").write_text("id;txt\n1;a\n")
    config = table_config(run, "own.csv")
    assert_refused(run, "own.csv has no column 'text'", "-n", "--configfile", config)


def test_fewer_reports_than_asked_for(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    write_reports(run / "own.csv")
    table_config(run, "own.csv", reports=100)
    assert_refused(run, "100", "results/data/eval.csv", "--configfile", "own.yaml")
    assert not list((run / "results" / "data").glob("*.csv"))


def test_a_second_run_is_refused_in_one_line(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    (run / "results").mkdir()
    words = ["results/data/eval.csv", "--configfile", table_config(run, "own.csv")]
    write_reports(run / "own.csv")
    with open(run / "results" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_second_run_is_refused(run, *words)
    with open(run / "results" / ".jobs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert errors(snakemake(run, *words).stderr) == [ORPHANS]
    assert not (run / "results" / "data").exists()


def test_sentences_of_rules_are_written_in_one_piece() -> None:
    """`print` writes the end of a line by itself. Snakemake's logger writes from another thread."""
    for file in [REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")]:
        assert not re.search(r"\bprint\(", file.read_text(encoding="utf-8"))


def test_an_edited_corpus_is_read_again(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    write_reports(run / "own.csv")
    config = ["results/data/eval.csv", "--configfile", table_config(run, "own.csv")]
    finish(run, *config)
    os.utime(run / "own.csv")
    assert "Nothing to be done" in snakemake(run, *config).stderr
    write_reports(run / "own.csv", 13)
    finish(run, *config)
    assert len(read_table(run / "results" / "data" / "raw.parquet")) == 13


@pytest.mark.slow
def test_a_group_size_that_divides_no_layer(run: Path) -> None:
    config = ['checkpoints={"rtn": {"method": "rtn", "group_size": 128}}']
    config.append('precisions={"w4-rtn": {"checkpoint": "rtn"}}')
    target = "results/checkpoints/rtn/model.safetensors"
    assert_refused(run, "group", target, *SMOKE, "--config", *config)
    assert not (run / target).exists()


@pytest.mark.slow
def test_fewer_calibration_texts_than_asked_for(run: Path) -> None:
    config = ["--config", 'calibration={"samples": 100000}']
    assert_refused(run, "100000", "results/calibration/samples.parquet", *SMOKE, *config)


@pytest.mark.slow
def test_a_changed_byte_in_a_checkpoint(run: Path) -> None:
    weights = run / "results" / "checkpoints" / "awq-w4" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.unlink()  # the file may be a link to another run's
    weights.write_bytes(data)
    target = "results/likelihood/w4a16.parquet"
    assert_refused(run, "model.safetensors was changed", target, *SMOKE)


@pytest.mark.slow
def test_the_summary_and_the_resolved_configuration_are_json(finished_run: Path) -> None:
    config = json.loads((finished_run / "results" / "config.json").read_text())
    assert list(config["precisions"]) == ["original", "w4a16", "w4a8"]
    assert config["seed"] == 7
