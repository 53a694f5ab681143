"""What Snakemake makes of a finished run: its own report, and files of benchmarks."""

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from workflow_helpers import SMOKE, copy_run, dry_run, finish

from radquant.reporting.tables import SECTIONS

FIGURES = {"differences", "tradeoff", "flips", "likelihood", "loss"}


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return copy_run(finished_run, tmp_path / "run")


def shown(archive: Path) -> dict[str, Any]:
    """What the report's page lists, by the path of each file."""
    with zipfile.ZipFile(archive) as opened:
        text = opened.read(f"{archive.stem}/report.html").decode()
    start = text.index('var results = {"') + len("var results = ")
    results: dict[str, Any] = json.JSONDecoder().raw_decode(text, start)[0]
    return results


def test_snakemake_s_report_shows_tables_and_figures_with_captions(run: Path) -> None:
    finish(run, *SMOKE, "--report", "seen.zip")
    results = shown(run / "seen.zip")
    pages = {Path(path).name: entry for path, entry in results.items()}
    drawn = {path.name for path in (run / "results/figures").glob("*.svg")}
    assert {f"{name}.html" for name in SECTIONS} | drawn | {"report.html"} == set(pages)
    assert {f"{name}.svg" for name in FIGURES} >= drawn >= {"tradeoff.svg"}
    for name, entry in pages.items():
        caption = re.sub("<.*?>", "", entry["caption"]).strip()
        assert caption, name
        assert "Error" not in caption
    assert dry_run(run, *SMOKE).jobs == {}


def cells(text: str) -> list[list[str]]:
    """The rows of all tables of a Markdown text, or of a page."""
    page = MarkdownIt("commonmark").enable("table").render(text) if "<td" not in text else text
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in rows]


def test_tables_are_those_of_the_report_and_hold_no_text_of_one(run: Path) -> None:
    report = (run / "results/report.md").read_text(encoding="utf-8")
    all_rows = cells(report)
    texts = pd.read_csv(run / "results/data/eval.csv")[["findings", "impression"]]
    sentences = {str(text)[:40] for text in texts.to_numpy().ravel() if len(str(text)) > 40}
    assert sentences
    for name in SECTIONS:
        page = (run / f"results/tables/{name}.html").read_text(encoding="utf-8")
        rows = cells(page)
        assert len(rows) > 2
        assert all(row in all_rows for row in rows)
        assert not [sentence for sentence in sentences if sentence in page]


def test_benchmark_files_are_there_and_decide_nothing(run: Path) -> None:
    benchmarks = run / "results/benchmarks"
    names = {path.relative_to(benchmarks).as_posix() for path in benchmarks.rglob("*.tsv")}
    rules = ["clean", "calibration_set", "check_model", "report"]
    assert names == {f"{rule}.tsv" for rule in rules} | {
        "quantize/awq-w4.tsv",
        "verify/awq-w4.tsv",
    }
    quantized = pd.read_csv(benchmarks / "quantize/awq-w4.tsv", sep="\t")
    assert quantized["s"].item() > 0
    assert quantized["max_rss"].item() > 200  # MB, of a process with PyTorch
    shutil.rmtree(benchmarks)
    assert dry_run(run, *SMOKE).jobs == {}
