"""scripts/report.py on a run whose scores are real, and its refusal of scores that are not."""

import dataclasses
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from explorer_reports import CONFIG, make_run

from radquant.errors import UserError
from radquant.files import read_json, read_table, write_json, write_table
from radquant.reporting.collect import collect
from radquant.reporting.readers import readers_record
from radquant.reporting.readers_comparison import Settings
from radquant.reporting.readers_study import read_study
from radquant.reporting.recheck import recheck

ROOT = Path(__file__).parents[1]


def run_script(results, folder, *more):
    command = [sys.executable, str(ROOT / "scripts/report.py"), "--results", str(results)]
    command += ["--config", str(results / "config.json"), "--output", str(folder / "report.md")]
    command += ["--html", str(folder / "report.html")]
    command += ["--summary", str(folder / "summary.json"), "--figures", str(folder / "figures")]
    command += ["--tables", str(folder / "tables")]
    command += ["--provenance", str(folder / "provenance.json")]
    command += ["--reporting", str(folder / "reporting.md")]
    return subprocess.run([*command, *map(str, more)], capture_output=True, text=True)


def read_by_one(results, file):
    """Write the readers.json of one reader who finds every text acceptable."""
    study = read_study(results, CONFIG)
    said = {"acceptability": 5, "harm": "none", "errors": [], "comment": "", "seconds": None}
    ratings = [
        {"report": report, "system": system, **said}
        for report in study.patients
        for system in ("original", "w4a8")
    ]
    record = {"format": 1, "run": study.run, "reader": "R", "seed": 1, "finished": None}
    record |= {"created": "2026-01-31T09:12:05.120Z", "count": len(study.patients)}
    record |= {"reference": "hidden", "systems": ["original", "w4a8"], "ratings": ratings}
    file.with_name("reading.json").write_text(json.dumps(record))
    files = [file.with_name("reading.json")]
    write_json(file, readers_record(study, files, Settings(100, 0.95, 7)))


def test_script_writes_report_summary_and_figures(tmp_path):
    results, readers = make_run(tmp_path / "results"), tmp_path / "readers.json"
    read_by_one(results, readers)
    done = run_script(results, tmp_path, "--readers", readers)
    assert done.returncode == 0, done.stderr
    assert done.stderr in ("", "at work\n")  # which a busy machine says
    for name in ("report.md", "report.html", "reporting.md"):
        assert "rated outputs of" in (tmp_path / name).read_text()
    assert read_json(tmp_path / "summary.json")["readers"] == read_json(readers)
    text = (tmp_path / "report.md").read_text()
    for link in re.findall(r"!\[.+\]\((.+)\)", text):
        ElementTree.parse(tmp_path / link)
    assert len(re.findall(r"!\[", text)) == 5
    assert set(read_json(tmp_path / "summary.json")) >= {"quality", "performance", "machine"}


SWAPS = [
    ("w4a16", "simple", "complete"),
    ("constant", "partial", "complete"),
    ("w4a4", "complete", "rouge_l"),
    ("w4a8", "fidelity_complete", "complete"),
]


@pytest.mark.parametrize(("system", "one", "other"), SWAPS)
def test_swapped_columns_are_refused(tmp_path, system, one, other):
    results = make_run(tmp_path / "results")
    swap = {one: other, other: one}
    path = results / f"scores/{system}.parquet"
    write_table(path, read_table(path).rename(columns=swap))
    run = collect(results, CONFIG)
    with pytest.raises(UserError, match=rf"scores/{system}.parquet, column .*swapped columns"):
        recheck(results, run)


def test_scores_of_other_outputs_are_refused_by_the_script(tmp_path):
    results = make_run(tmp_path / "results")
    write_table(results / "scores/w4a8.parquet", read_table(results / "scores/w4a16.parquet"))
    done = run_script(results, tmp_path)
    assert done.returncode == 1
    assert "scores/w4a8.parquet, column" in done.stderr
    assert not (tmp_path / "report.md").exists()


def test_scores_by_other_definitions_are_refused(tmp_path):
    results = make_run(tmp_path / "results")
    run = dataclasses.replace(collect(results, CONFIG), rewards="radgraph 0.1.18 (0123)")
    with pytest.raises(UserError, match=r"made with the definitions of radgraph 0\.1\.18 \(0123\)"):
        recheck(results, run)
