"""Findings that are asked for and answered: "effusion: none", "pneumothorax negative"."""

from collections.abc import Iterator

from radquant.scoring.lexicon_relations import (
    FINDING,
    HEADS,
    MODIFIER,
    NEGATION,
    NORMAL,
    POST_NEGATION,
    STOP,
    Entity,
    Match,
)


def answers(words: list[str], matches: list[Match]) -> Iterator[Match]:
    """Yield `matches`, "negative" beside a finding being a trigger, not a normal chest."""
    for number, (start, end, kind) in enumerate(matches):
        if kind == NORMAL and words[start] == "negative":
            before = matches[number - 1] if number else (-1, -1, STOP)
            after = matches[number + 1] if number + 1 < len(matches) else (-1, -1, STOP)
            if before[1] == start and before[2] in HEADS:
                kind = POST_NEGATION
            elif (after[0] == end and after[2] in FINDING + MODIFIER) or (
                "for" in words[end + 1 : end + 3]  # "negative study for fracture"
            ):
                kind = NEGATION
        yield start, end, kind


def join_headings(words: list[str], entities: list[Entity]) -> None:
    """Let what a heading names be as it is called after it: "consolidation: no consolidation"."""
    named: dict[tuple[str, ...], str] = {}
    for entity in reversed(entities):
        name = tuple(words[entity.start : entity.end])
        if entity.kind in HEADS and words[entity.end : entity.end + 1] == [":"]:
            entity.status = named.get(name, entity.status)
        named.setdefault(name, entity.status)
