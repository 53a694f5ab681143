"""Answers that are written side by side, while others join and leave.

This is what serving asks of an engine. Nothing here needs PyTorch.
"""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the same values draw the same tokens from the same scores."""

    temperature: float  # above 0
    top_p: float  # the likeliest tokens that together reach this probability can be drawn
    seed: int
    answer: int = 0  # number among several answers to one prompt, which are to differ


@dataclass(frozen=True)
class Chance:
    """How likely the model found a token where it stands, whatever it was drawn by."""

    token: int
    logprob: float  # natural logarithm
    likeliest: tuple[tuple[int, float], ...]  # tokens in its place and their logprobs, falling


@dataclass(eq=False)
class Row:
    """An answer that is being written."""

    ids: list[int]  # of its prompt, the checkpoint's stored prefix included
    count: int  # most tokens of the answer
    written: list[int] = field(default_factory=list)
    sampling: Sampling | None = None  # None: the likeliest token is taken
    top: int | None = None  # how many of `Chance.likeliest` are asked for; None: no chances
    echo: bool = False  # whether chances of the prompt's tokens are asked for, too
    chances: list[Chance] = field(default_factory=list)  # of the tokens written
    # Of the prompt's tokens by their place, behind the first and behind a stored prefix.
    prompt_chances: dict[int, Chance] = field(default_factory=dict)


class RunningBatch(Protocol):
    """Rows that an engine writes side by side; none changes another's tokens or chances.

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
