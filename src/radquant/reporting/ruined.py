"""Precisions that are ruined, so that a reader of single reports learns nothing more from them."""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.fitness import BROKEN
from radquant.reporting.formatting import points
from radquant.reporting.judgement import WORSE
from radquant.settings.run import ORIGINAL

# Of a score, what is left of the original's.
COLLAPSED = 0.5
# Of the reasons that fitness gives.
RUINS = (
    *(BROKEN, "language", "nothing seen in the outputs", "degenerate outputs"),
    "the same output",
)


def ruined(quality: Mapping[str, Any]) -> dict[str, str]:
    """Return the ruined precisions, each with one sentence that says why, without a capital.

    quality: the summary's. A precision is ruined whose checkpoint or outputs are broken, as fitness
    judges it, or that is worse and scores less than half of what the original scores. What is wrong
    with the original too ruins no precision.
    """
    fitness, primary = quality["fitness"], quality["settings"]["primary"]
    usual = {reason["kind"] for reason in fitness["reasons"]}
    found = {}
    for name, row in quality["differences"][primary].items():
        for reason in fitness["precisions"][name]:
            if reason["kind"] in RUINS and reason["kind"] not in usual:
                found[name] = reason["sentence"]
                break
        else:
            before, now = (quality["systems"][each][primary] for each in (ORIGINAL, name))
            if row["state"] == WORSE and now < COLLAPSED * before:
                found[name] = (
                    f"{name} scores {points(now)} where the original scores {points(before)}."
                )
    return found
