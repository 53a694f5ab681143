"""What a measure is: one module of this folder, its section of `scoring`, its line in the registry.

A measure scores texts against references by what not every machine has: data, a model, or packages
in an environment of their own. So it is off unless its section says where that is; then a job of
its own writes `measures/{measure}/{system}.parquet`, whose columns join the report's rulers. Its
module is imported to check a configuration: what is heavy is imported in functions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from radquant.scoring.metrics.kind import About

Pairs = Sequence[tuple[str, str]]  # (reference, output)


@dataclass(frozen=True)
class Loaded:
    """A measure that is ready. `measure(pairs)` yields the columns' values of each (reference,
    output), in their order; no text is blank, unless `blank` is None."""

    identity: str  # data, weights and versions: two with equal identities score alike
    measure: Callable[[Pairs], Iterator[tuple[float, ...]]]
    # The value of a pair with a blank text. None if `measure` takes such pairs, too.
    blank: tuple[float, ...] | None


@runtime_checkable
class Measure(Protocol):
    """The names that a module needs; `settings` are its own section of `scoring`."""

    @property
    def ABOUT(self) -> About:
        """What it is called and where it is shown; its columns are floats."""

    @property
    def ENVIRONMENT(self) -> str | None:
        """A file of envs/ without its .txt, None for the main environment."""

    def on(self, settings: Mapping[str, Any]) -> bool:
        """Say whether the settings ask for it."""

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise UserError where the settings will not do; nothing is loaded."""

    def load(self, settings: Mapping[str, Any], threads: int) -> Loaded:
        """Load it, for `threads` CPU threads; raises UserError where something is missing."""
