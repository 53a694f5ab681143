"""reporting.md: the items of reporting checklists, filled in from the run or named as open."""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.reporting.checklist_facts import (
    NOT_A_DEVICE,
    Answer,
    data_answers,
    model_answers,
    study_answers,
)
from radquant.reporting.checklist_items import CHECKLISTS, Checklist, Item
from radquant.reporting.checklist_results import measure_answers, result_answers
from radquant.reporting.formatting import bullets, escape, prose, table
from radquant.reporting.leak import leak_statement

Summary = Mapping[str, Any]
OPEN = "OPEN"


def answers(summary: Summary) -> dict[str, Answer]:
    """Return all answers by the keys that `checklist_items` names."""
    return {
        **study_answers(summary),
        **data_answers(summary),
        **model_answers(summary),
        **measure_answers(summary),
        **result_answers(summary),
    }


def reporting_page(summary: Summary) -> str:
    """Return reporting.md; every number of it is in `summary`. It holds no report text."""
    found = answers(summary)
    name = escape(summary["config"]["model"]["name"])
    parts = [
        f"# What a paper on this run of {name} has to report",
        prose(
            f"Items that the run can fill in are filled in. {OPEN} marks what the authors have to "
            "write. Some texts come from the section study of the configuration. The checklists "
            "themselves decide; their items are shortened here. Check every item before you "
            "hand it in."
        ),
        f"**{prose(NOT_A_DEVICE)}**",
        table(["checklist", "items", "filled in", f"with an {OPEN} part"], list(_counts(found))),
        *_flow(summary),
        *_leak(summary),
        *(_list(checklist, found) for checklist in CHECKLISTS),
    ]
    return "\n\n".join(parts) + "\n"


def _counts(found: Mapping[str, Answer]) -> Iterator[list[str]]:
    for checklist in CHECKLISTS:
        still = sum(bool(_joined(item, found).missing) for item in checklist.items)
        total = len(checklist.items)
        yield [checklist.name, str(total), str(total - still), str(still)]


def _flow(summary: Summary) -> Iterator[str]:
    cleaning, quality = summary["cleaning"], summary["quality"]
    yield "## Flow of reports"
    rows = [
        [escape(str(step["step"])), f"{step['removed']:,}", f"{step['left']:,}"]
        for step in cleaning["steps"]
    ]
    rows += [
        ["training split", "", f"{cleaning['train']:,}"],
        ["evaluation split", "", f"{cleaning['eval']:,}"],
        ["written and scored", "", f"{quality['reports']:,}"],
    ]
    yield table(["step", "removed", "left"], rows)


def _leak(summary: Summary) -> Iterator[str]:
    facts, missing = leak_statement(summary["config"])
    yield "## Is the corpus in the model's training data?"
    yield prose(*filter(None, [escape(facts), _open(escape(missing))]))


def _list(checklist: Checklist, found: Mapping[str, Answer]) -> str:
    lines = [_line(item, _joined(item, found)) for item in checklist.items]
    return "\n\n".join([f"## {checklist.name}", prose(f"{checklist.source}."), bullets(*lines)])


def _joined(item: Item, found: Mapping[str, Answer]) -> Answer:
    facts = " ".join(filter(None, (found[key].facts for key in item.answers)))
    missing = "; ".join(filter(None, (found[key].missing for key in item.answers)))
    return Answer(facts, missing)


def _line(item: Item, answer: Answer) -> str:
    said = " ".join(filter(None, [answer.facts, _open(answer.missing)]))
    return f"**{item.number}** {item.section}: {item.name}. {said}"


def _open(missing: str) -> str:
    return f"**{OPEN}: {missing}.**" if missing else ""
