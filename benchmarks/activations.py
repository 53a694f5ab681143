"""What the rounding of a run's precisions costs: tables of a finished run, for docs/activations.md.

The report of a run compares each precision with the original. These tables compare it with rounded
weights alone, too. That is one precision of the run (--base). It is also the precision of the same
checkpoint that rounds nothing at run time, if the run has one. Without the second, a checkpoint
whose weights are rounded better would hide what its activations lose.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from comparing import CONFIDENCE, RESAMPLES, compared, read_nll, table, with_interval

from radquant import statistics
from radquant.errors import UserError
from radquant.files import read_json, read_table

ORIGINAL = "original"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="the run's results/")
    parser.add_argument("--base", default="w4a16", metavar="PRECISION", help="default: %(default)s")
    return parser.parse_args()


def rounds_nothing(precision: Mapping[str, Any]) -> bool:
    return not precision["activations"] and not precision["kv_cache"]


def same_weights(name: str, precisions: Mapping[str, Any]) -> str | None:
    """The precision of the same checkpoint that rounds nothing at run time, if there is one."""
    checkpoint = precisions[name]["checkpoint"]
    found = [
        other
        for other, precision in precisions.items()
        if precision["checkpoint"] == checkpoint and rounds_nothing(precision)
    ]
    return found[0] if found and found[0] != name else None


def likelihood_table(results: Path, precisions: Mapping[str, Any], base: str) -> str:
    """NLL per reference token of each precision, least first, and what it is over others'."""
    original = read_nll(results / "likelihood" / f"{ORIGINAL}.parquet")
    tokens = original["tokens"].to_numpy(dtype=np.float64)
    nll = {
        name: read_nll(results / "likelihood" / f"{name}.parquet", original)["nll"].to_numpy()
        for name in precisions
    }

    def over(name: str, other: str | None) -> list[str]:
        if other is None or other == name:
            return ["", ""]
        share = nll[name].sum() / nll[other].sum() - 1
        return [with_interval(compared(nll[name], nll[other], tokens)), f"{share:+.2%}"]

    head = ["precision", "weights", "NLL", f"over {base}", "", "over the same weights", ""]
    rows = [
        [
            name,
            precisions[name]["checkpoint"],
            f"{nll[name].sum() / tokens.sum():.4f}",
            *over(name, base),
            *over(name, same_weights(name, precisions)),
        ]
        for name in sorted(nll, key=lambda name: float(nll[name].sum()))
    ]
    return (
        f"{len(original)} references of {int(tokens.sum()):,} tokens; NLL in nats per token, "
        f"differences with {CONFIDENCE:.0%} intervals over reports.\n\n{table(head, rows)}"
    )


def outputs_table(results: Path, precisions: Mapping[str, Any]) -> str:
    """Clinical F1 of what each precision wrote, and how much it is like the original's outputs,
    most first."""
    scores = {name: read_table(results / "scores" / f"{name}.parquet") for name in precisions}
    original = scores[ORIGINAL]
    head = ["precision", "weights", "entity F1", "over the original", "fidelity", "identical"]
    rows = []
    closest = sorted(scores, key=lambda name: -float(scores[name]["fidelity_simple"].mean()))
    for name in closest:
        found = scores[name]
        cells = [name, precisions[name]["checkpoint"], f"{found['simple'].mean():.3f}"]
        if name == ORIGINAL:
            cells += ["", "", ""]
        else:
            cells += [paired(found, original), f"{found['fidelity_simple'].mean():.3f}"]
            cells += [f"{found['identical'].mean():.0%}"]
        rows.append(cells)
    return f"{len(original)} outputs, scored by {original['annotator'][0]}.\n\n{table(head, rows)}"


def paired(found: pd.DataFrame, original: pd.DataFrame) -> str:
    if not found["id"].equals(original["id"]):
        raise UserError("the scores of two precisions are of different reports; run the workflow")
    differences = (found["simple"] - original["simple"]).to_numpy()
    interval = statistics.bootstrap_interval(differences, RESAMPLES, CONFIDENCE, seed=0)
    return f"{differences.mean():+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def main() -> None:
    args = parse_arguments()
    precisions = read_json(args.results / "summary.json")["config"]["precisions"]
    if args.base not in precisions:
        raise UserError(f"{args.results} has no precision {args.base}; name another with --base")
    print(likelihood_table(args.results, precisions, args.base))
    print()
    print(outputs_table(args.results, precisions))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
