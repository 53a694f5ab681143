"""What an annotator is: one module of this folder, and its line in `radquant.registry`.

An annotator finds the entities and relations of a text. Its module is imported to check a
configuration and in the environment that it asks for, so it imports what is heavy in functions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Annotation = dict[str, Any]  # {"text", "entities"}, see `radquant.scoring.records`


@dataclass(frozen=True)
class Loaded:
    """An annotator that is ready. `annotate(texts)` yields (text, annotation), in any order."""

    identity: str  # begins with the annotator's name; two with equal identities annotate alike
    annotate: Callable[[list[str]], Iterator[tuple[str, Annotation]]]
    key: str = ""  # all that decides an annotation, for the cache; "" where none is kept


@runtime_checkable
class Annotator(Protocol):
    """The names that a module needs; `settings` are its own section of `scoring` by SETTINGS."""

    @property
    def MEASURE(self) -> str:
        """What its F1 is called in the report."""

    @property
    def CAVEAT(self) -> str:
        """What a reader of the report must know of it, "" for nothing."""

    @property
    def ENVIRONMENT(self) -> str | None:
        """A file of envs/ without its .txt, None for the main environment."""

    @property
    def QUICK(self) -> bool:
        """Thousands of texts a second: worth neither a cache nor a place in a queue."""

    @property
    def SETTINGS(self) -> tuple[str, ...]:
        """Each a key of scoring: NAME in the configuration, and --NAME-KEY of the script."""

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise UserError where the settings will not do; nothing is loaded."""

    def online(self, settings: Mapping[str, Any]) -> bool:
        """Say whether it fetches anything from the hub."""

    def load(self, settings: Mapping[str, Any], threads: int) -> Loaded:
        """Load it, for `threads` CPU threads; raises UserError where something is missing."""
