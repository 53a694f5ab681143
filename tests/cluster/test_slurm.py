"""A run over a real Slurm of two nodes, through a cancelled job and the death of a node."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import two_nodes
from tiny_run import make_run
from workflow_helpers import contents, errors

# The profile as it is; Snakemake asks for its jobs more often than a cluster's manners allow.
SLURM = [sys.executable, str(Path(__file__).with_name("asking.py"))]
SLURM += ["--workflow-profile", "profiles/slurm"]
RESULTS = [
    "results/scores/*.parquet",
    "results/likelihood/*.parquet",
    "results/generations/*/*.pa*",
]
STATES = ["COMPLETED", "CANCELLED", "NODE_FAIL"]
PATIENCE = 900  # seconds; a run takes one or two minutes of two idle cores


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A running Slurm. Where there can be none, CI fails and others skip, with the reason."""
    reason = two_nodes.missing()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with two_nodes.two_nodes(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def shown(number: str) -> dict[str, str]:
    """What scontrol says about a job."""
    text = two_nodes.ask("scontrol", "show", "job", number)
    return dict(re.findall(r"(\S+?)=(\S*)", text))


def memory(job: dict[str, str]) -> float:
    """The MB that a job asked for; scontrol says 48000M, and 62.50G for 64000."""
    said = shown(job["id"])["MinMemoryNode"]
    return float(said[:-1]) * {"M": 1, "G": 1024}[said[-1]]


def spoke(folder: Path, job: dict[str, str]) -> bool:
    """Whether a job has come so far as to write something."""
    logs = list((folder / "results/logs/slurm").rglob(f"{job['id']}.log"))
    return bool(logs) and logs[0].stat().st_size > 0


@pytest.fixture(scope="module")
def run(
    nodes: dict[str, subprocess.Popen[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run. One job was cancelled, and n2 died with another one on it."""
    folder = make_run(tmp_path_factory.mktemp("cluster") / "run")
    said = folder / "said.txt"
    with open(said, "wb") as out:
        process = subprocess.Popen(SLURM, cwd=folder, stdout=out, stderr=out)
        try:

            def at_work(on: str, *but: str) -> list[dict[str, str]]:
                """Jobs that run on a node of these, and have already said something."""
                assert process.poll() is None, said.read_text()[-5000:]
                return [
                    job
                    for job in two_nodes.jobs("RUNNING")
                    if job["node"] in on.split() and job["rule"] not in but and spoke(folder, job)
                ]

            found = two_nodes.wait_for("a job to cancel", lambda: at_work("n1 n2"), PATIENCE)
            cancelled = found[0]
            two_nodes.ask("scancel", cancelled["id"])

            def n2_is_at_its_second_job() -> bool:
                done = [job for job in two_nodes.jobs("COMPLETED") if job["node"] == "n2"]
                return bool(done and at_work("n2", cancelled["rule"]))

            two_nodes.wait_for("work on n2", n2_is_at_its_second_job, PATIENCE)
            two_nodes.kill_node(nodes, "n2")
            assert process.wait(timeout=PATIENCE) == 0, said.read_text()[-5000:]
        finally:
            process.kill()
            process.wait()
    return folder


def test_jobs_were_killed_and_all_others_ended_well_on_both_nodes(run: Path) -> None:
    jobs = two_nodes.jobs()
    ended = {state: [job for job in jobs if job["state"] == state] for state in STATES}
    assert [len(found) for found in ended.values()] == [len(jobs) - 2, 1, 1], jobs
    assert {job["node"] for job in ended["COMPLETED"]} == {"n1", "n2"}
    assert ended["NODE_FAIL"][0]["node"] == "n2"
    # The others took the places of the two, with twice the memory.
    for state in ("CANCELLED", "NODE_FAIL"):
        lost = ended[state][0]
        (again,) = [job for job in ended["COMPLETED"] if job["rule"] == lost["rule"]]
        assert memory(again) == 2 * memory(lost)


def test_scores_are_those_of_a_local_run(run: Path, undisturbed: Path) -> None:
    found, expected = contents(run, RESULTS), contents(undisturbed, RESULTS)
    assert len([name for name in expected if "/scores/" in name]) == 5
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_every_stage_asked_for_its_own_memory_and_time(run: Path) -> None:
    asked = {}
    for job in two_nodes.jobs():
        rule = re.sub("^rule_|_wildcards_.*", "", job["rule"])
        said = shown(job["id"])
        if rule not in asked:
            asked[rule] = (memory(job), said["TimeLimit"], said["Partition"])
        assert "gpu" not in said.get("TresPerNode", "") + said.get("TresPerJob", "")
    assert asked == {
        "clean": (16000, "01:00:00", "cpu"),
        "check_model": (16000, "01:00:00", "cpu"),
        "verify_checkpoint": (8000, "02:00:00", "cpu"),
        "check_prompts": (48000, "01:00:00", "cpu"),
        "calibration_set": (8000, "00:30:00", "cpu"),
        "quantize": (64000, "08:00:00", "cpu"),
        "generate": (48000, "08:00:00", "cpu"),
    }


def test_logs_of_all_jobs_come_home(run: Path) -> None:
    logs = {path.stem for path in (run / "results/logs/slurm").rglob("*.log")}
    assert logs == {job["id"] for job in two_nodes.jobs()}


def test_a_gpu_is_asked_for_where_the_configuration_does(run: Path) -> None:
    """The node's GPU is an empty device, so the job fails; its sentence comes home."""
    before = {job["id"] for job in two_nodes.jobs()}
    words = [*SLURM, "results/likelihood/original.parquet", "--retries", "0"]
    words += ["--config", 'compute={"device": "cuda"}']
    done = subprocess.run(words, cwd=run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (job,) = [job for job in two_nodes.jobs() if job["id"] not in before]
    said = shown(job["id"])
    assert (said["TresPerJob"], said["Partition"]) == ("gres:gpu:1", "gpu")
    assert any("GPU" in line or "CUDA" in line for line in errors(done.stderr)), done.stderr[-3000:]
