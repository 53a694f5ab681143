"""What was checked of each checkpoint: folded away where all of it holds, unfolded where not."""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.reporting.formatting import bullets, escape, fold, listed

Records = Mapping[str, Mapping[str, Any]]
SHOWN_BROKEN = 5  # checks of a checkpoint, of those that do not hold


def self_checks(records: Records) -> list[str]:
    """Return the blocks of report.md. records: by checkpoint, as the summary has them."""
    failed = sum(map(_failed, records.values()))
    notes = [note for name, record in records.items() for note in _notes(name, record)]
    return fold(f"Self-checks: {_outcome(records, failed)}", bullets(*notes), unfolded=failed > 0)


def _outcome(records: Records, failed: int) -> str:
    """'all 240 passed', '2 of 240 failed'; whose weights nobody compared is always told."""
    total = sum(map(_count, records.values()))
    left = [name for name, record in records.items() if record["verification"] is None]
    apart = f"the weights of {listed(left)} were not compared with the original's" if left else ""
    if not total:
        return apart
    told = f"{failed:,} of {total:,} failed" if failed else f"all {total:,} passed"
    return f"{told}, but {apart}" if apart else told


def _answers(record: Mapping[str, Any]) -> list[bool]:
    """The checks that a checkpoint's own record answers with yes or no."""
    return [value for value in record["checks"].values() if isinstance(value, bool)]


def _count(record: Mapping[str, Any]) -> int:
    found = record["verification"] or {"checks": 0}
    return int(found["checks"]) + len(_answers(record))


def _failed(record: Mapping[str, Any]) -> int:
    found = record["verification"] or {"broken": []}
    return len(found["broken"]) + _answers(record).count(False)


def _notes(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    told = ", ".join(
        f"{key.replace('_', ' ')} {in_words(value)}" for key, value in record["checks"].items()
    )
    if told:
        yield f"{escape(name)}: {escape(told)}."
    found = record["verification"]
    if found is None:
        yield f"{escape(name)}: its weights were not compared with the original's."
    elif found["broken"]:
        yield _broken(name, found["broken"])
    else:
        count = f"{found['checks']:,}"
        yield f"{escape(name)}: all {count} checks of its weights against the original's hold."


def _broken(name: str, broken: list[Mapping[str, Any]]) -> str:
    shown = "; ".join(
        f"{each['layer']}: {each['what']} is {_measured(each['measured'])}, at most "
        f"{_measured(each['bound'])}"
        for each in broken[:SHOWN_BROKEN]
    )
    more = len(broken) - SHOWN_BROKEN
    rest = f"; {more:,} more checks are broken" if more > 0 else ""
    return f"**{escape(name)} is broken:** {escape(shown)}{rest}."


def _measured(value: float | None) -> str:
    return "no finite number" if value is None else f"{value:.3g}"


def in_words(value: Any) -> str:
    """'yes' or 'no', a number with two digits that count, or the text itself."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2g}" if isinstance(value, float) else str(value)
