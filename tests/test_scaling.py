"""What keeps Snakemake's own work small, and large tables in little memory."""

import contextlib
from pathlib import Path

import pytest
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler
from workflow_helpers import SMOKE, copy_repository


@pytest.fixture
def schedulers(monkeypatch: pytest.MonkeyPatch) -> list[JobScheduler]:
    """The schedulers as they are when they begin."""
    begun: list[JobScheduler] = []
    schedule = JobScheduler.schedule

    def record(self: JobScheduler) -> bool:
        begun.append(self)
        return bool(schedule(self))

    monkeypatch.setattr(JobScheduler, "schedule", record)
    return begun


def run(directory: Path, *words: str) -> None:
    with contextlib.chdir(directory), pytest.raises(SystemExit) as ended:
        main(["results/config.json", "--quiet", "all", *words, *SMOKE])
    assert not ended.value.code


def test_snakemake_looks_at_ready_jobs_only_when_one_ends_and_at_few(
    tmp_path: Path, schedulers: list[JobScheduler]
) -> None:
    run(copy_repository(tmp_path / "one"))
    run(copy_repository(tmp_path / "other"), "--max-jobs-per-timespan", "50/2s")
    unlimited, limited = schedulers
    assert unlimited.job_rate_limiter is None
    assert unlimited.subsample == 100
    assert "greedy" in type(unlimited._scheduler).__module__
    assert (limited.job_rate_limiter.max_jobs, limited.job_rate_limiter.timespan) == (50, 2)
