"""What each quantization recipe costs in likelihood, on reports that no stage of a run has seen.

Takes the model, corpus and calibration set of a finished run, quantizes the model by every recipe
below, and prints perplexity of the references, the paired difference from the original with its
interval, CPU time, peak memory and size. Nothing that exists already is made again.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from radquant.files import read_json, read_table, write_table

REPOSITORY = Path(__file__).parents[1]
RECIPES = {
    "rtn, 4 bits": ["--method", "rtn"],
    "awq, 4 bits": ["--method", "awq"],
    "awq, 4 bits, no clipping": ["--method", "awq", "--no-clip"],
    "gptq, 4 bits": ["--method", "gptq"],
    "gptq, 4 bits, no clipping": ["--method", "gptq", "--no-clip"],
    "gptq, 4 bits, desc_act": ["--method", "gptq", "--desc-act"],
    "awq with gptq rounding, 4 bits": ["--method", "awq", "--rounding", "gptq"],
    "gptq, 3 bits": ["--method", "gptq", "--bits", "3"],
    "rtn, 8 bits": ["--method", "rtn", "--bits", "8"],
    "awq, 8 bits": ["--method", "awq", "--bits", "8"],
    "gptq, 8 bits": ["--method", "gptq", "--bits", "8"],
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--work", type=Path, default=Path("benchmarks/recipes"), help="default: %(default)s")
    add("--reports", type=int, default=200, metavar="N", help="how many (%(default)s)")
    add("--group-size", type=int, default=64, help="of every recipe (%(default)s)")
    add("--only", nargs="*", metavar="RECIPE", help="some of the recipes, by name")
    return parser.parse_args()


def script(name: str, *arguments: object) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / name), *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})


def choose_reports(results: Path, work: Path, count: int) -> None:
    """Training reports outside of the calibration set; examples come from those inside."""
    seen = set(read_table(results / "calibration" / "samples.parquet")["id"])
    train = read_table(results / "data" / "train.csv")
    inside = train["id"].isin(seen)
    if (~inside).sum() < count:
        sys.exit(f"error: only {(~inside).sum()} reports are outside of the calibration set")
    write_table(work / "train.csv", train[inside])
    write_table(work / "eval.csv", train[~inside].iloc[:count])


def nll_per_token(checkpoint: Path, name: str, work: Path) -> np.ndarray:
    """Of each report's reference, [reports]."""
    table = work / f"{name}.parquet"
    if not table.is_file():
        files = ["--train", work / "train.csv", "--eval", work / "eval.csv", "--output", table]
        files += ["--metrics", table.with_suffix(".json"), "--model", checkpoint]
        prompt = ["--prompt", REPOSITORY / "prompts" / "impression.txt"]
        script("likelihood.py", *files, *prompt, "--precision", name, "--examples", 1)
    found = read_table(table)
    return np.asarray(found["nll"] / found["tokens"], dtype=float)


def row(name: str, record: dict, own: np.ndarray, original: np.ndarray, size: int) -> str:
    difference = own - original
    interval = stats.bootstrap((difference,), np.mean, rng=0).confidence_interval
    cells = [
        name,
        f"{np.exp(own.mean()):.2f}",
        f"{difference.mean():+.4f}",
        f"{interval.low:+.4f} to {interval.high:+.4f}",
        f"{difference.mean() / original.mean():+.2%}",
        f"{record['cpu_seconds']:.0f} s",
        f"{record['peak_process_bytes'] / 1e6:.0f} MB",
        f"{size / 1e6:.0f} MB",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    args = parse_arguments()
    choose_reports(args.results, args.work, args.reports)
    model = args.results / "models" / "original"
    original = nll_per_token(model, "original", args.work)
    lines = [
        "| recipe | perplexity | nats/token | 95 % interval | relative | CPU | peak | size |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        f"| original | {np.exp(original.mean()):.2f} | | | | | | |",
    ]
    for name, options in RECIPES.items():
        if args.only and name not in args.only:
            continue
        place = name.replace(", ", "-").replace(" ", "-")
        checkpoint = args.work / place
        if not (checkpoint / "quantization.json").is_file():
            samples = args.results / "calibration" / "samples.parquet"
            common = ["--model", model, "--calibration", samples, "--output", checkpoint]
            script("quantize.py", *common, "--group-size", args.group_size, *options)
        record = read_json(checkpoint / "quantization.json")
        own = nll_per_token(checkpoint, place, args.work)
        size = (checkpoint / "model.safetensors").stat().st_size
        lines.append(row(name, record, own, original, size))
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
