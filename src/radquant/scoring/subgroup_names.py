"""The findings by which reports can be divided into subgroups."""

from collections.abc import Mapping
from typing import Any

from radquant.errors import UserError
from radquant.scoring.finding_terms import CANONICAL

ANY = "any"  # whether the reference states any finding at all


def check_subgroups(divisions: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError for a finding that is not known; `divisions` are settings, by name."""
    for name, division in divisions.items():
        finding = division["finding"]
        if finding is not None and finding not in (ANY, *CANONICAL):
            raise UserError(
                f"config: statistics.subgroups.{name}.finding is {finding!r}, which is not known; "
                f"use {ANY} or one of {', '.join(CANONICAL)}"
            )
