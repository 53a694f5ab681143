"""The training reports whose inputs are most like a report's own.

They are its few-shot examples. What the nearest one says is handed in as a baseline.

Likeness is the cosine of two texts' TF-IDF vectors (Salton and Buckley 1988). A word counts as
often as a text has it, times the logarithm of how rare it is among the training reports. These
logarithms are rounded to whole numbers. So sums are exact, and every machine chooses the same
examples.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from radquant.corpus.marks import same_id
from radquant.errors import UserError
from radquant.instructions import Row, can_be_example, seeded_order, words_of

STEPS = 1000  # of a rarity, in each unit of the natural logarithm
FEW = 100  # of the nearest are put in order first; more are seldom looked at


def nearest_examples(
    train: Sequence[Row],
    reports: Sequence[Row],
    columns: Sequence[str],
    target: str,
    count: int,
    max_words: int,
    seed: int,
) -> list[list[Row]]:
    """Return `count` training rows for each of `reports`, the most like it last.

    Compared are the words of `columns`, those of the prompt. An example has text in all of them
    and a reference, of at most `max_words` words together. None is the report itself or of its
    patient (column `group`), and no two say the same. The seed decides among equals.
    """
    if count == 0:
        return [[] for _ in reports]
    said = (*columns, target)
    rows = [r for r in in_order(train, seed) if can_be_example(r, said, max_words)]
    found = []
    for report, nearest in zip(reports, nearest_rows(rows, reports, columns), strict=True):
        chosen: dict[tuple[str, ...], Row] = {}
        for row in nearest:
            if len(chosen) == count:
                break
            chosen.setdefault(tuple(words_of(row[name]) for name in said), row)
        if len(chosen) < count:
            raise UserError(
                f"report {report['id']} gets only {len(chosen)} of {count} distinct few-shot "
                f"examples, from other patients, of at most {max_words} words; ask for fewer or "
                "longer ones"
            )
        found.append(list(chosen.values())[::-1])
    return found


def in_order(train: Sequence[Row], seed: int) -> list[Row]:
    """Return the training rows as the seed orders those that are equally like a report."""
    return seeded_order(train, seed, "examples")


def nearest_rows(
    rows: Sequence[Row], reports: Sequence[Row], columns: Sequence[str]
) -> Iterator[Iterator[Row]]:
    """For each of `reports`, those of `rows` that are not of its patient, the most like it first.

    Compared are the words of `columns`. Equals stay in the order of `rows`.
    """

    def said(row: Row) -> str:
        return " ".join(words_of(row[name]) for name in columns)

    def others(report: Row) -> Iterator[Row]:
        for place in likeness.order(said(report)):
            if not of_one_patient(rows[place], report):
                yield rows[place]

    likeness = Likeness([said(row) for row in rows])
    return map(others, reports)


def of_one_patient(row: Row, other: Row) -> bool:
    """Whether two rows are the same report, or known to be of the same patient."""
    patient = same_id(str(row.get("group", "")))
    return same_id(str(row["id"])) == same_id(str(other["id"])) or (
        patient != "" and patient == same_id(str(other.get("group", "")))
    )


class Likeness:
    """How like each of some texts is to another; a text is words with spaces between them."""

    def __init__(self, texts: Sequence[str]) -> None:
        from scipy.sparse import csr_array

        counts = [Counter(text.split()) for text in texts]
        known = Counter(word for each in counts for word in each)
        self.places = {word: place for place, word in enumerate(known)}
        self.rarity = np.array(
            [round(STEPS * math.log(len(texts) / each)) for each in known.values()], dtype=np.int64
        )
        ends = np.cumsum([0, *map(len, counts)])
        words = np.array([self.places[w] for each in counts for w in each], dtype=np.int64)
        times = np.array([n for each in counts for n in each.values()], dtype=np.int64)
        values = times * self.rarity[words]
        self.vectors = csr_array((values, words, ends), shape=(len(texts), len(self.places)))
        squares = csr_array((values**2, words, ends), shape=self.vectors.shape)
        self.lengths = np.sqrt(squares.sum(axis=1, dtype=np.int64).astype(np.float64))

    def order(self, text: str) -> Iterator[int]:
        """The places of the texts, the most like `text` first and equals in their own order."""
        vector = np.zeros(len(self.places), dtype=np.int64)
        for word, times in Counter(text.split()).items():
            if word in self.places:
                vector[self.places[word]] = times * self.rarity[self.places[word]]
        # The text's own length is left out, as it divides all of them alike.
        likeness = (self.vectors @ vector) / np.maximum(self.lengths, 1.0)
        least = np.partition(likeness, -FEW)[-FEW] if len(likeness) > FEW else -1.0
        for some in (likeness >= least, likeness < least):
            places = np.flatnonzero(some)
            yield from places[np.argsort(-likeness[places], kind="stable")].tolist()
