"""Precisions that are ruined, so that a reader of single reports learns nothing more from them."""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.fitness import BROKEN
from radquant.reporting.formatting import points
from radquant.reporting.judgement import WORSE
from radquant.settings.run import ORIGINAL

# A precision has collapsed below this share of the original's score. Most outputs are more than
# this share of them.
COLLAPSED, MOST = 0.5, 0.5
# Of the reasons that fitness gives, these are enough by themselves. The others must hold for most
# of the outputs, with the number that fitness counted.
RUINS = (BROKEN, "language", "the same output")
RUINS_IF_MOST = {"nothing seen in the outputs": "blind", "degenerate outputs": "faulty"}


def ruined(quality: Mapping[str, Any]) -> dict[str, str]:
    """Return the ruined precisions, each with one sentence that says why, without a capital.

    quality: the summary's. A precision is ruined if its checkpoint or most of its outputs are
    broken, as fitness judges it. It also is if it is worse and scores less than half of what the
    original scores. What is wrong with the original too ruins no precision.
    """
    fitness, primary = quality["fitness"], quality["settings"]["primary"]
    usual = {reason["kind"] for reason in fitness["reasons"]}
    found = {}
    for name, row in quality["differences"][primary].items():
        for reason in fitness["precisions"][name]:
            if reason["kind"] not in usual and _ruins(reason["kind"], fitness["facts"], name):
                found[name] = reason["sentence"]
                break
        else:
            before, now = (quality["systems"][each][primary] for each in (ORIGINAL, name))
            if row["state"] == WORSE and now < COLLAPSED * before:
                found[name] = (
                    f"{name} scores {points(now)} where the original scores {points(before)}."
                )
    return found


def _ruins(kind: str, facts: Mapping[str, Any], name: str) -> bool:
    if kind in RUINS_IF_MOST:
        return bool(facts["systems"][name][RUINS_IF_MOST[kind]] > MOST * facts["reports"])
    return kind in RUINS
