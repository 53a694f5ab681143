"""What keeps Snakemake's own work small, and large tables in little memory."""

import contextlib
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from explorer_reports import payload
from reading import read_jsonl
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler
from workflow_helpers import REPOSITORY, SMOKE, copy_repository

from radquant.errors import UserError
from radquant.files import hash_path, sha256_text, write_jsonl
from radquant.reporting.explorer import dump, payload_pieces
from radquant.scoring import changes, lexicon, records
from radquant.scoring.spans import sentences


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


def annotations(count: int) -> list[dict[str, Any]]:
    """Of texts that share no object."""
    texts = [
        f"Small left effusion, {n} mm. No edema. Nodule in the right lung." for n in range(count)
    ]
    ids = [f"r{number}" for number in range(count)]
    return records.build(ids, texts, lexicon.identity(), lexicon.annotate)


def test_records_are_what_the_files_hold_whatever_the_order_of_asking(tmp_path: Path) -> None:
    made = annotations(30)
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for number, path in enumerate(paths):
        write_jsonl(path, made[number::3])
    found = records.read(paths)
    assert {name: found[name] for name in reversed(list(found))} == {
        record["id"]: record for path in paths for record in read_jsonl(path)
    }
    assert found.annotators == {lexicon.identity()}
    assert found.is_of("r7", "Small left effusion, 7 mm. No edema. Nodule in the right lung.")
    assert not found.is_of("r7", "Small left effusion, 8 mm. No edema. Nodule in the right lung.")


def test_a_record_whose_hash_is_none_is_of_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{**annotations(1)[0], "text_hash": "not a hash"}])
    assert not records.read([path]).is_of("r0", "")
    hash_path(path).unlink()
    path.write_text('{"id": "r0"\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: not valid JSON"):
        records.read([path])


def test_records_take_little_memory(tmp_path: Path) -> None:
    count = 1000
    path = tmp_path / "a.jsonl"
    write_jsonl(path, annotations(count))
    records.read([path])  # what is made once
    tracemalloc.start()
    found = records.read([path])
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(found) == count
    assert size / count < 300  # bytes; as objects some 10,000
    assert sha256_text(found["r1"]["text"])  # it can still be read


def test_the_page_gets_its_reports_one_by_one(invented_run: Any) -> None:
    pieces = list(payload_pieces(invented_run, {}))
    whole = payload(invented_run)
    assert "".join(pieces) == dump(whole)
    assert json.loads("".join(pieces)) == whole
    listed = sum(len(whole[name]) for name in ("reports", "examples", "texts"))
    assert len(pieces) == 4 + listed


def test_claims_are_found_as_by_each_pattern_alone() -> None:
    """The one search that comes before them leaves none out."""
    texts = ["Unchanged effusion.", "No change since the prior", "Stable. New mass", "Clear lungs."]
    for text in texts:
        for start, end in sentences(text):
            sentence = text[start:end]
            alone = [name for name, pattern in changes._CLAIM.items() if pattern.search(sentence)]
            assert [name for name, _ in changes._claims(sentence)] == alone
    assert changes._claims("No change since the prior") != []


@pytest.mark.slow
def test_the_benchmark_of_the_report_makes_what_the_report_reads() -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks/scaling.py"), "report"]
    command += ["--reports", "30", "--resamples", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| 30 | " in done.stdout
