"""Answers that are written side by side, while others join and leave.

This is what serving asks of an engine. Nothing here needs PyTorch.
"""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(eq=False)
class Row:
    """An answer that is being written."""

    ids: list[int]  # of its prompt, the checkpoint's stored prefix included
    count: int  # most tokens of the answer
    written: list[int] = field(default_factory=list)


class RunningBatch(Protocol):
    """Rows that an engine writes side by side; none changes another's tokens.

    It is called by one thread.
    """

    def bytes_for(self, tokens: int) -> int:
        """What keys and values of a sequence of so many tokens take."""

    def join(self, row: Row) -> None:
        """Take a row in; its prompt is read in the steps that follow.

        Raises UserError, and takes nothing in, if the engine cannot run a row of this length.
        """

    def step(self) -> tuple[list[Row], dict[Row, Exception]]:
        """Go on; the rows that got a token, and those that failed, which have left.

        A step reads a bounded number of tokens of prompts, so that no long prompt holds up the rows
        that are being written.
        """

    def leave(self, row: Row) -> None:
        """Free what a row holds, also one that is not there any more."""
