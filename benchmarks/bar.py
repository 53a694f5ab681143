"""How well the terminal of a run tells how far the run is.

    python benchmarks/bar.py run lines.tsv --configfile config/smoke.yaml --directory NEW --cores 1
    python benchmarks/bar.py read lines.tsv
    python benchmarks/bar.py tiny NEW
    python benchmarks/bar.py fit RUN ... > src/radquant/terminal/usual.json

`run` starts Snakemake in a new folder, and keeps each line of its terminal with the second at which
it came. Then it does what `read` does. That prints for each line the share that was shown and the
true one, and the time left that was shown and the true one. The last line has the worst of both
after the first tenth of the run.

`tiny` writes the configuration of a run whose model has next to no weights, with that model, into a
new folder. Its jobs show what they take to start.

`fit` reads the results/logs/seconds.json of finished runs: what their jobs took, and how much work
they had. It fits the seconds of each unit of work, none of them negative, so that the relative
errors are smallest.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from measuring import REPOSITORY
from scipy.optimize import nnls

from radquant.errors import UserError
from radquant.files import read_json
from radquant.terminal.expected import LAST, Last, Took

SHOWN = re.compile(r" *(\d+)%  (.*)")
LEFT = re.compile(r"; about (.*) left of the run$")
UNITS = {"s": 1, "min": 60, "h": 3600}
# What fits are made of beside a model of 135 million weights: each way of doing a job once.
TINY = {
    "checkpoints": {name: {"method": name, "bits": 4, "group_size": 32} for name in ("awq", "rtn")},
    "precisions": {
        "original": {"checkpoint": "original"},
        "w4a16": {"checkpoint": "awq"},
        "w4a16-rtn": {"checkpoint": "rtn"},
        "w4a8": {"checkpoint": "awq", "activations": {"bits": 8}},
        "w4a8-naive": {"checkpoint": "awq", "activations": {"bits": 8, "granularity": "tensor"}},
    },
    "speed": {"repeats": 3, "prompts": 2, "tokens": 4, "seconds": 0.1},
}
LEAST = 0.05  # seconds that a job is taken to have lasted


class Line(NamedTuple):
    """What a line told, and when. left: seconds; None where it told none."""

    seconds: float
    share: float
    left: float | None
    words: str


def lines_of(kept: Iterable[str]) -> tuple[list[Line], float]:
    """Return the lines that tell a share, and the seconds of the whole run."""
    found, end = [], 0.0
    for line in kept:
        seconds, _, text = line.rstrip("\n").partition("\t")
        end = float(seconds)
        if told := SHOWN.fullmatch(text):
            left = LEFT.search(text)
            words = told[2].partition("; about")[0]
            found.append(Line(end, int(told[1]) / 100, left and in_seconds(left[1]), words))
    if not found:
        raise UserError("no line tells a share; give the file that `run` wrote")
    return found, end


def in_seconds(words: str) -> float:
    """Return the seconds of "2 h 5 min"."""
    parts = words.split()
    return sum(
        float(number) * UNITS[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True)
    )


def told(lines: list[Line], end: float) -> Iterator[str]:
    """Yield a row for each line, and the worst."""
    yield f"{'at':>6}  {'shown':>5}  {'true':>5}  {'left':>6}  {'true':>6}  line"
    shares, whole = [0.0], [0.0]
    for line in lines:
        true = line.seconds / end
        left = "" if line.left is None else f"{line.left:.0f}"
        yield (
            f"{line.seconds:6.0f}  {line.share:5.0%}  {true:5.0%}  {left:>6}"
            f"  {end - line.seconds:6.0f}  {line.words}"
        )
        if true >= 0.1:
            shares.append(line.share / true - 1)
            if line.left is not None:
                whole.append((line.seconds + line.left) / end - 1)
    back = sum(later.share < line.share for line, later in pairwise(lines))
    yield (
        f"after a tenth of {end:.0f} s: share shown {min(shares):+.0%} to {max(shares):+.0%} of "
        f"the true one. Passed and left together {min(whole):+.0%} to {max(whole):+.0%} of the "
        f"true time; {back} steps back"
    )


def run(file: Path, words: list[str]) -> None:
    """Run Snakemake and write a line "second<tab>text" as each line of its terminal arrives."""
    started = time.monotonic()
    command = [sys.executable, "-m", "snakemake", *words]
    with (
        open(file, "w", encoding="utf-8") as kept,
        subprocess.Popen(
            command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, bufsize=1
        ) as process,
    ):
        assert process.stderr is not None
        for line in process.stderr:
            kept.write(f"{time.monotonic() - started:.1f}\t{line}")
            kept.flush()
    if process.returncode:
        raise UserError(f"the run failed; {file} holds what it said")


def tiny(folder: Path) -> None:
    """Write config.yaml, model/ and corpus.csv into a new folder."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from tiny_run import CONFIG, write_inputs

    folder.mkdir(parents=True)
    write_inputs(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **TINY}))


def fit(runs: list[Path]) -> dict[str, dict[str, float]]:
    """Return {"rule how": {unit: seconds}} of the jobs of finished runs."""
    by_rule = defaultdict(list)
    for folder in runs:
        for job in Last.model_validate(read_json(folder / LAST)).jobs:
            by_rule[job.rule].append(job)
    return {name: each for rule in sorted(by_rule) for name, each in of_rule(by_rule[rule]).items()}


def of_rule(jobs: list[Took]) -> dict[str, dict[str, float]]:
    """Return {"rule how": {unit: seconds}}; all jobs of a rule take as long to start."""
    units = sorted({("", "start")} | {(job.how, unit) for job in jobs for unit in job.work})
    rows = [[amount(job, *unit) for unit in units] for job in jobs]
    seconds = np.maximum([job.seconds for job in jobs], LEAST)
    scale = np.maximum(np.max(rows, axis=0), 1e-12)
    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(jobs)))
    by_unit = dict(zip(units, found / scale, strict=True))
    return {
        f"{jobs[0].rule} {how}".strip(): {
            unit: float(f"{value:.3g}")
            for (of, unit), value in by_unit.items()
            if of in ("", how) and value
        }
        for how in sorted({job.how for job in jobs})
    }


def amount(job: Took, how: str, unit: str) -> float:
    """Return how much of a unit of work a job had, if it was done in that way."""
    if unit == "start":
        return 1.0
    return job.work.get(unit, 0.0) if job.how == how else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="what", required=True)
    for name in ("run", "read"):
        part = parts.add_parser(name, help="see above; further words are Snakemake's")
        part.add_argument("file", type=Path, help="of the lines, with their seconds")
    parts.add_parser("tiny", help="see above").add_argument("folder", type=Path)
    parts.add_parser("fit", help="see above").add_argument("runs", nargs="+", type=Path)
    args, words = parser.parse_known_args()
    if words and args.what != "run":
        parser.error(f"unknown words: {' '.join(words)}")
    if args.what == "fit":
        print(json.dumps(fit(args.runs), indent=1))
        return
    if args.what == "tiny":
        tiny(args.folder)
        return
    if args.what == "run":
        run(args.file, words)
    with open(args.file, encoding="utf-8") as kept:
        print("\n".join(told(*lines_of(kept))))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
