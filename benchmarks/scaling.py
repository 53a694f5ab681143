"""How the workflow's cost grows: Snakemake's own with shards, that of the stages with reports.

    python benchmarks/scaling.py snakemake clean baselines score statistics report

Snakemake runs the real rules of config/smoke.yaml with jobs that do nothing but write their files.
So all that is measured is its own. It plans a run, starts and books its jobs, and finds that
nothing is to be done. The stages are the repository's scripts, each in a process of its own with
one thread, on invented reports. Peaks are of resident memory.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from annotation import report as sentences
from measuring import REPOSITORY, measured, script

from radquant.files import read_json, write_json, write_table
from radquant.settings.run import BASELINES

sys.path.insert(0, str(REPOSITORY / "tests"))

from report_run import CONFIG as RUN_CONFIG
from report_run import computed_as, make_results
from workflow_helpers import copy_repository

SHARDS = [10, 100, 1_000, 5_000]
REPORTS = [100, 1_000, 10_000, 100_000]
MIMIC = 227_000  # about as many reports as MIMIC-CXR has
PRECISIONS = 6
# A patient of MIMIC-CXR has three and a half studies in the mean.
STUDIES = 3.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="+", choices=list(PARTS), help="what to measure")
    add("--shards", type=int, nargs="+", default=SHARDS, help="of a precision (%(default)s)")
    add("--reports", type=int, nargs="+", default=REPORTS, help="rows of a table (%(default)s)")
    add("--resamples", type=int, default=10_000, help="of the report's statistics (%(default)s)")
    add("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for part in options.parts:
            sizes = options.shards if part == "snakemake" else options.reports
            (folder / part).mkdir(parents=True, exist_ok=True)
            if part == "report":
                report(folder / part, sizes, options.resamples)
            else:
                PARTS[part](folder / part, sizes)


def table(header: list[str]) -> Callable[..., None]:
    """Print a Markdown table's head; the function returned prints a row."""

    def row(*cells: object) -> None:
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)

    row(*header)
    row(*["---:"] * len(header))
    return row


def costs(used: dict[str, float]) -> list[str]:
    return [
        f"{used['cpu_seconds']:,.1f} s",
        f"{used['wall_seconds']:,.1f} s",
        f"{used['peak_bytes'] / 1e6:,.0f} MB",
    ]


COSTS = ["CPU", "wall", "peak"]


# Snakemake


def snakemake(folder: Path, sizes: list[int]) -> None:
    row = table(
        [
            "shards",
            "jobs",
            "plan: CPU",
            "peak",
            "plan for Slurm: CPU",
            "peak",
            "run: CPU a job",
            "peak",
            "no-op: CPU",
            "wall",
            "peak",
        ]
    )
    for shards in sizes:
        run = copy_repository(folder / str(shards))
        config = yaml.safe_load((run / "config/smoke.yaml").read_text(encoding="utf-8"))
        config["generation"]["shards"] = shards
        config["evaluation"]["reports"] = 100_000
        write_text = (run / "config/scaling.yaml").write_text
        write_text(yaml.safe_dump(config), encoding="utf-8")
        words = ["--directory", str(run), "--snakefile", str(run / "Snakefile"), "--cores", "1"]
        words += ["--configfile", str(run / "config/scaling.yaml")]
        words += ["--quiet", "rules", "progress", "--workflow-profile"]
        slurm = [sys.executable, "-m", "snakemake", *words, str(run / "profiles/slurm")]
        words += [str(run / "profiles/default")]
        real = [sys.executable, "-m", "snakemake", *words]
        plan, cluster = measured([*real, "--dry-run"]), measured([*slurm, "--dry-run"])
        idle = measured([sys.executable, str(Path(__file__).with_name("idle_jobs.py")), *words])
        nothing = measured(real)
        jobs = 22 + 6 * shards  # three precisions, each shard of which is written and annotated
        plan_cost, cluster_cost = costs(plan), costs(cluster)
        idle_cost, noop = costs(idle), costs(nothing)
        each = f"{1000 * idle['cpu_seconds'] / jobs:.0f} ms"
        planned = [plan_cost[0], plan_cost[2], cluster_cost[0], cluster_cost[2]]
        row(f"{shards:,}", f"{jobs:,}", *planned, each, idle_cost[2], *noop)
        shutil.rmtree(run)


# The stages


def invented(reports: int, seed: int = 0) -> pd.DataFrame:
    """Raw reports as radquant.corpus.formats gives them: 60 words of findings, 12 of impression."""
    import random

    draw = random.Random(seed)
    rows = []
    for number in range(reports):
        findings = " ".join([*sentences(draw), *sentences(draw)]).capitalize()
        impression = " ".join(sentences(draw)[:2]).capitalize()
        patient = draw.randrange(max(2, int(reports / STUDIES)))
        text = (
            f"FINAL REPORT\n INDICATION: Cough.\n FINDINGS: {findings}\n IMPRESSION: {impression}"
        )
        rows.append(
            {
                "id": f"s{number:07d}",
                "group": f"p{patient:06d}",
                "study": f"s{number:07d}",
                "findings": findings,
                "impression": impression,
                "indication": "Cough.",
                "comparison": "None.",
                "text": text,
                "images": "",
                "split": "",
            }
        )
    return pd.DataFrame(rows, dtype="str")


def clean(folder: Path, sizes: list[int]) -> None:
    row = table(["reports cleaned", *COSTS])
    for reports in [*sizes, *([MIMIC] if max(sizes) == max(REPORTS) else [])]:
        write_table(folder / "raw.parquet", invented(reports))
        words: list[object] = ["--raw", folder / "raw.parquet", "--inputs", "findings"]
        words += ["--target", "impression", "--eval-reports", reports // 10, "--seed", 7]
        for name, file in (("train", "csv"), ("eval", "csv"), ("rejected", "csv")):
            words += [f"--{name}", folder / f"{name}.{file}"]
        words += ["--funnel", folder / "cleaning.json"]
        row(f"{reports:,}", *costs(measured(script("clean.py", *words))))


def baselines(folder: Path, sizes: list[int]) -> None:
    row = table(["training reports", "evaluation reports", *COSTS])
    for reports in sizes:
        others = invented(reports // 10, seed=1)
        others[["id", "group"]] = "e" + others[["id", "group"]]
        write_table(folder / "train.csv", invented(reports))
        write_table(folder / "eval.csv", others)
        words: list[object] = ["--inputs", "findings", "--target", "impression", "--seed", 7]
        for name in ("train", "eval"):
            words += [f"--{name}", folder / f"{name}.csv"]
        for name in ("copy", "constant", "nearest"):
            words += [f"--{name}-output", folder / f"{name}.parquet"]
        used = costs(measured(script("baselines.py", *words)))
        row(f"{reports:,}", f"{len(others):,}", *used)


def scored(folder: Path, reports: int) -> dict[str, Any]:
    """Write references, two systems' outputs and their annotations; return what annotating cost."""
    raw, other = invented(reports), invented(reports, seed=1)
    write_table(folder / "eval.csv", raw)
    kept = np.random.default_rng(0).random(reports) < 0.3  # outputs that equal the original's
    outputs = {"original": other["impression"]}
    outputs["system"] = other["impression"].where(kept, invented(reports, seed=2)["impression"])
    for name, texts in outputs.items():
        table = pd.DataFrame({"id": raw["id"], "output": texts, "finish_reason": "stop"})
        write_table(folder / f"{name}.parquet", table)
    words: dict[str, list[object]] = {
        "reference": ["--texts", folder / "eval.csv", "--column", "impression"],
        **{name: ["--texts", folder / f"{name}.parquet", "--column", "output"] for name in outputs},
    }
    used = {}
    for name, options in words.items():
        options += ["--annotator", "lexicon", "--output", folder / f"{name}.jsonl"]
        used[name] = measured(script("annotate.py", *options))
    return used["reference"]


def score(folder: Path, sizes: list[int]) -> None:
    row = table(["pairs scored", *COSTS, *(f"annotating as many: {name}" for name in COSTS)])
    for reports in sizes:
        annotating = scored(folder, reports)
        row(f"{reports:,}", *costs(measured(score_command(folder))), *costs(annotating))


def score_command(folder: Path, system: str = "system") -> list[str]:
    words: list[object] = ["--system", system, "--eval", folder / "eval.csv"]
    words += ["--target", "impression", "--reference", folder / "reference.jsonl"]
    for prefix, name in (("", system), ("original-", "original")):
        words += [f"--{prefix}generations", folder / f"{name}.parquet"]
        words += [f"--{prefix}annotations", folder / f"{name}.jsonl"]
    words += ["--prompt", REPOSITORY / "prompts/impression.txt"]
    return script("score.py", *words, "--output", folder / f"score-{system}.parquet")


def statistics(folder: Path, sizes: list[int]) -> None:
    row = table(["reports", *COSTS])
    for reports in sizes:
        code = (
            "import numpy as np; from radquant import statistics; "
            f"d = np.random.default_rng(0).normal(0, 0.3, {reports}).round(2); "
            "statistics.compare(d, 10_000, 0.95, 7); "
            "statistics.equivalence_p(d, 0.01, 1, 10_000, 7)"
        )
        row(f"{reports:,}", *costs(measured([sys.executable, "-c", code])))


def report(folder: Path, sizes: list[int], resamples: int = 10_000) -> None:
    row = table([f"reports, {PRECISIONS} precisions", *COSTS, "report.html"])
    for reports in sizes:
        shutil.rmtree(folder, ignore_errors=True)
        results = finished(folder, reports, resamples)
        words: list[object] = ["--results", results, "--config", results / "config.json"]
        words += ["--output", folder / "report.md", "--html", folder / "report.html"]
        words += ["--summary", folder / "summary.json", "--provenance", folder / "provenance.json"]
        words += ["--reporting", folder / "reporting.md"]
        words += ["--figures", folder / "figures", "--tables", folder / "tables"]
        used = measured(script("report.py", *words))
        size = (folder / "report.html").stat().st_size
        row(f"{reports:,}", *costs(used), f"{size / 1e6:,.0f} MB")


def finished(folder: Path, reports: int, resamples: int = 10_000) -> Path:
    """A finished run of `reports` reports: real outputs, annotations and scores of two systems, one
    of which stands for all quantized precisions."""
    scored(folder / "texts", reports)
    texts = folder / "texts"
    for system in ("original", "system"):
        measured(score_command(texts, system))
    names = [f"w4a{number}" for number in range(1, PRECISIONS)]
    config = {**RUN_CONFIG, "precisions": {"original": {"checkpoint": "original"}}}
    config["precisions"] |= {name: {"checkpoint": "awq-w4"} for name in names}
    config["generation"] = {"shards": 1, "prompt": str(REPOSITORY / "prompts/impression.txt")}
    config["statistics"] = {"resamples": resamples, "confidence": 0.95, "margin": 0.01}
    results = make_skeleton(folder / "results", config)
    evaluation = pd.read_csv(texts / "eval.csv", dtype=str, keep_default_na=False)
    write_table(results / "data/eval.csv", evaluation)
    others = invented(100, seed=3)  # of which examples are: short ones
    others = others.assign(id="t" + others["id"], findings=others["impression"])
    write_table(results / "data/train.csv", others)
    link(texts / "reference.jsonl", results / "annotations/reference.jsonl")
    noise = np.random.default_rng(1).normal(0, 0.2, reports)
    for name in ("original", *names, *BASELINES):
        source = "original" if name == "original" else "system"
        file = "all" if name in BASELINES else "shard-1-of-1"
        link(texts / f"{source}.jsonl", results / f"annotations/{name}/{file}.jsonl")
        link(texts / f"score-{source}.parquet", results / f"scores/{name}.parquet")
        outputs = pd.read_parquet(texts / f"{source}.parquet")
        outputs = outputs.assign(
            prompt_hash="0" * 64, prompt_tokens=120, truncated_tokens=0, output_tokens=20
        )
        write_table(results / f"generations/{name}/{file}.parquet", outputs)
        if file == "all":
            continue
        record = read_json(results / "record.json") | computed_as(config, name)
        record |= {"precision": name, "shard": 1, "shards": 1, "reports": reports}
        write_json(results / f"generations/{name}/{file}.json", record)
        nll = pd.DataFrame({"id": outputs["id"], "nll": 40 + noise, "tokens": 10})
        write_table(results / f"likelihood/{name}.parquet", nll)
        cost = {"precision": name, "wall_seconds": 2.0, "cpu_seconds": 1.5, "too_large_batches": []}
        write_json(results / f"likelihood/{name}.json", cost | computed_as(config, name))
    return results


def make_skeleton(results: Path, config: dict[str, Any]) -> Path:
    """The records of the tests' invented run, without its tables; record.json is a shard's."""
    make_results(results / "invented")
    invented_run = results / "invented"
    for name in ("models", "checkpoints", "calibration", "data"):
        shutil.move(invented_run / name, results / name)
    write_json(
        results / "record.json", read_json(invented_run / "generations/original/shard-1-of-2.json")
    )
    shutil.rmtree(invented_run)
    (results / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return results


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(source)


PARTS: dict[str, Callable[[Path, list[int]], None]] = {
    "snakemake": snakemake,
    "clean": clean,
    "baselines": baselines,
    "score": score,
    "statistics": statistics,
    "report": report,
}

if __name__ == "__main__":
    main()
