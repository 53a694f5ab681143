"""Which engines a name in the settings stands for, and what they say before any work starts.

Nothing here needs PyTorch: each engine is asked by the names of `generation.engines.kind.Engine`.
"""

from collections.abc import Mapping
from typing import Any

from radquant import registry

# This is no engine. It stands for the first of these that can run what is asked.
AUTO = "auto"
ORDER = ("lean", "transformers")


def names() -> list[str]:
    """All that `compute.engine` and --engine may say."""
    return [AUTO, *registry.ENGINES]


def meant(name: str) -> tuple[str, ...]:
    """The engines that `name` may stand for, the first choice first."""
    return ORDER if name == AUTO else (name,)


def check_configuration(config: Mapping[str, Any]) -> None:
    """Raise UserError unless the engines of `config`, with every default in, can do what it asks.

    auto is not asked: its last engine runs everything.
    """
    precisions = config.get("precisions", {}).values()
    names = [config["compute"]["engine"], *(each.get("engine") for each in precisions)]
    for name in dict.fromkeys(names):
        if name not in (AUTO, None):
            registry.load_kind(registry.ENGINES, name).check_configuration(config)


def environment(name: str, device: str) -> str | None:
    """The environment, `envs/NAME.txt`, that engine `name` runs in; None for this package's own.

    device: "cpu" or "cuda"; also "auto" for engines of this environment.
    """
    if name == AUTO:  # all of its engines run here
        return None
    found: str | None = registry.load_kind(registry.ENGINES, name).environment(device)
    return found


def timed(name: str) -> bool:
    """Whether the speed of engine `name` can be measured."""
    return name == AUTO or bool(registry.load_kind(registry.ENGINES, name).TIMED)


def scoring(name: str) -> str:
    """The engine that scores the references where `name` writes the reports."""
    if name == AUTO or registry.load_kind(registry.ENGINES, name).SCORES:
        return name
    return AUTO


def scores_beside(name: str, device: str) -> bool:
    """Whether the references are scored by the very process in which `name` writes the reports."""
    return scoring(name) == name and environment(name, device) is None
