"""How many sentences the lexicon reads as a radiologist does, construction by construction.

The sentences of sentences.csv were written and labelled before the rules were tried on them. Labels
say which findings each calls present, absent or uncertain, and which words in it state no finding.
A seed parts them in two. The rules were mended on one half, and the other half's faults were not
looked at. A sentence is read right when all of its labels are.
"""

import argparse
import csv
import random
from pathlib import Path
from typing import NamedTuple

from radquant.scoring import findings, lexicon

SENTENCES = Path(__file__).with_name("sentences.csv")
NOT_STATED = "not stated"
STATUSES = (findings.PRESENT, findings.ABSENT, findings.UNCERTAIN, NOT_STATED)
SEED = 0


class Sentence(NamedTuple):
    half: str
    construction: str
    text: str
    labels: dict[str, str]  # finding → one of STATUSES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=["tuning", "held", "both"], default="both")
    parser.add_argument("--faults", action="store_true", help="print what is read otherwise")
    arguments = parser.parse_args()
    sentences = [s for s in read_sentences() if arguments.half in (s.half, "both")]
    print(f"{lexicon.identity()}, {arguments.half}\n")
    print(table(sentences))
    if arguments.faults:
        for sentence in sentences:
            for finding, (expected, found) in faults(sentence).items():
                print(f"{sentence.text} | {finding}: {expected}, read as {found}")


def read_sentences() -> list[Sentence]:
    """Return the rows of the table; a label is "finding status", several are parted by "; "."""
    with open(SENTENCES, newline="", encoding="utf-8") as file:
        return [
            Sentence(row["half"], row["construction"], row["sentence"], _labels(row["labels"]))
            for row in csv.DictReader(file)
        ]


def _labels(cell: str) -> dict[str, str]:
    labels = {}
    for label in cell.split("; "):
        status = next(status for status in STATUSES if label.endswith(f" {status}"))
        labels[label.removesuffix(f" {status}")] = status
    return labels


def halves(sentences: list[Sentence]) -> dict[str, str]:
    """Return {text: half}, as the seed parts them."""
    texts = sorted(sentence.text for sentence in sentences)
    random.Random(SEED).shuffle(texts)
    middle = len(texts) // 2
    return dict.fromkeys(texts[:middle], "tuning") | dict.fromkeys(texts[middle:], "held")


def faults(sentence: Sentence) -> dict[str, tuple[str, str]]:
    """Return {finding: (label, what is read)} where the two differ."""
    found = findings.statuses(lexicon.annotate(sentence.text))
    read = {finding: found.get(finding, NOT_STATED) for finding in sentence.labels}
    return {
        finding: (expected, read[finding])
        for finding, expected in sentence.labels.items()
        if read[finding] != expected
    }


def table(sentences: list[Sentence]) -> str:
    """Return the counts of sentences and labels that are read right, as a Markdown table."""
    rows = ["| construction | sentences right | labels right |", "|---|---:|---:|"]
    kinds = dict.fromkeys(sentence.construction for sentence in sentences)
    for kind in (*kinds, "all"):
        chosen = [s for s in sentences if kind in (s.construction, "all")]
        wrong = [len(faults(sentence)) for sentence in chosen]
        labels = sum(len(sentence.labels) for sentence in chosen)
        whole = f"{wrong.count(0)} of {len(chosen)}"
        rows.append(f"| {kind} | {whole} | {labels - sum(wrong)} of {labels} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
