"""How many labelled pairs of texts have just the kinds of change that their label says.

    python benchmarks/changes.py            # both halves of changes_pairs.tsv
    python benchmarks/changes.py --show     # and every pair of the tuned half that is wrong

The pairs were written and labelled before the rules. The rules were made with the half *tuned* in
sight; the half *apart* was only counted. Kinds without a direction are tried in both.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from radquant.scoring import lexicon
from radquant.scoring.changes import KINDS, changes

PAIRS = Path(__file__).with_name("changes_pairs.tsv")
DIRECTED = {"lost", "negated", "invented", "asserted", "hedged"}


def pairs(path: Path) -> Iterator[tuple[str, frozenset[str], str, str]]:
    """Yield (half, kinds, before, after) of every pair, and of the pair the other way round."""
    with open(path, encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            kinds = frozenset(row["kinds"].split(",")) - {"-"}
            if not kinds <= KINDS.keys():
                raise SystemExit(f"{path}: {sorted(kinds - KINDS.keys())} are no kinds")
            yield row["half"], kinds, row["before"], row["after"]
            if not kinds & DIRECTED:
                yield row["half"], kinds, row["after"], row["before"]


def found(before: str, after: str) -> frozenset[str]:
    notes = [lexicon.annotate(text) for text in (before, after)]
    return frozenset(change["kind"] for change in changes(*notes, before, after))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="table (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="name the wrong ones of the half tuned")
    options = parser.parse_args()
    count: Counter[tuple[str, str, str]] = Counter()
    for half, expected, before, after in pairs(options.pairs):
        said = found(before, after)
        for kind in expected or {"no change"}:
            count[half, kind, "pairs"] += 1
            count[half, kind, "right"] += said == expected
        count[half, "all", "pairs"] += 1
        count[half, "all", "right"] += said == expected
        count[half, "all", "missed"] += bool(expected - said)
        count[half, "all", "false"] += bool(said - expected)
        if options.show and half != "apart" and said != expected:
            wanted, got = (",".join(sorted(kinds)) or "-" for kinds in (expected, said))
            print(f"{wanted} read as {got}: {before} | {after}")
    halves = list(dict.fromkeys(half for half, _, _ in count))
    print("| kind |" + "".join(f" {half} |" for half in halves))
    print("| --- |" + " ---: |" * len(halves))
    for kind in (*KINDS, "no change", "all"):
        cells = [f"{count[half, kind, 'right']} of {count[half, kind, 'pairs']}" for half in halves]
        if any(count[half, kind, "pairs"] for half in halves):
            print(f"| {kind} | {' | '.join(cells)} |")
    for what, name in (("missed", "a kind missed"), ("false", "a kind too many")):
        print(f"| {name} | {' | '.join(str(count[half, 'all', what]) for half in halves)} |")


if __name__ == "__main__":
    main()
