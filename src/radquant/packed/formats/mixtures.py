"""Names of layers as patterns, for formats that say the bits of some layers by name.

Readers match them in two ways. compressed-tensors, GPTQModel and transformers match layers one by
one under their own names. vLLM matches those that it fuses under the fused one's name, which the
patterns know, too. What stands before "layers" differs between programs and is left open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from radquant.settings.recipe import WHOLE_ROW, Recipe

# The layers that serving engines fuse, under the name of the first.
FUSED = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj"}


def split(layer: str) -> tuple[str, int, str]:
    """`model.layers.3.mlp.up_proj` as (layers, 3, mlp.up_proj)."""
    found = re.fullmatch(r"(?:.*\.)?(\w+)\.(\d+)\.(.+)", layer)
    assert found is not None
    return found[1], int(found[2]), found[3]


def patterns(layers: Iterable[str]) -> list[str]:
    """Regular expressions that match these linear layers of numbered decoder layers, each from its
    beginning to its end, and no others.

    layers: names such as `model.layers.3.mlp.up_proj`. There is one expression for each kind.
    """
    numbers: dict[tuple[str, str], list[int]] = {}
    for layer in layers:
        parent, number, inside = split(layer)
        numbers.setdefault((parent, inside), []).append(number)
    made = []
    for (parent, inside), which in sorted(numbers.items()):
        path, dot, last = inside.rpartition(".")
        name = f"(?:{last}|{FUSED[last]})" if last in FUSED else re.escape(last)
        listed = "|".join(map(str, sorted(which)))
        made.append(rf".*\b{parent}\.(?:{listed})\.{re.escape(path + dot)}{name}$")
    return made


def by_recipe(recipes: Mapping[str, Recipe]) -> list[tuple[Recipe, list[str]]]:
    """The layers of each recipe, by their names: first those of the recipe that most have."""
    layers: dict[Recipe, list[str]] = {}
    for name, recipe in recipes.items():
        layers.setdefault(recipe, []).append(name)
    return sorted(
        layers.items(), key=lambda each: (-len(each[1]), each[0].bits, each[0].group_size)
    )


def layers_in_words(layers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which linear layers have how many bits in which groups, one line for each kind of numbers. An
    example is '8 bits in groups of 64: mlp.down_proj of 0, 11, 29; self_attn.o_proj of 0'.

    layers: their records in quantization.json. Of the commonest kind only the count is told.
    """
    found: dict[tuple[int, int], dict[str, list[int]]] = {}
    for record in layers:
        _, number, inside = split(record["name"])
        kind = (record["bits"], record["group_size"])
        found.setdefault(kind, {}).setdefault(inside, []).append(number)
    counts = {kind: sum(map(len, places.values())) for kind, places in found.items()}
    usual = max(sorted(counts), key=lambda kind: counts[kind])
    lines = []
    for kind, of_kind in sorted(found.items(), key=lambda each: (each[0] != usual, each[0])):
        bits, size = kind
        groups = "whole rows" if size == WHOLE_ROW else f"groups of {size}"
        places = [f"{name} of {', '.join(map(str, n))}" for name, n in sorted(of_kind.items())]
        which = "; ".join(places)
        if kind == usual:
            others = "the other " * (len(found) > 1)
            which = f"{others}{counts[kind]} linear layers"
        lines.append(f"{bits} bits in {groups}: {which}")
    return lines
