"""Names of layers as patterns, for formats that say the bits of some layers by name.

Readers match them in two ways: layers one by one under their own names (compressed-tensors,
GPTQModel, transformers), or those that they fuse under the fused one's name (vLLM), which the
patterns know, too. What stands before "layers" differs between programs and is left open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from radquant.settings.recipe import Recipe

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


def by_bits(recipes: Mapping[str, Recipe]) -> list[tuple[Recipe, list[str]]]:
    """The layers of each recipe, by their names: first those of the recipe that most have."""
    layers: dict[Recipe, list[str]] = {}
    for name, recipe in recipes.items():
        layers.setdefault(recipe, []).append(name)
    return sorted(layers.items(), key=lambda each: (-len(each[1]), each[0].bits))


def layers_in_words(layers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which linear layers have how many bits, one line for each number of bits but the commonest:
    '8 bits: mlp.down_proj of 0, 11, 29; self_attn.o_proj of 0'.

    layers: their records in quantization.json.
    """
    found: dict[int, dict[str, list[int]]] = {}
    for record in layers:
        _, number, inside = split(record["name"])
        found.setdefault(record["bits"], {}).setdefault(inside, []).append(number)
    counts = {bits: sum(map(len, kinds.values())) for bits, kinds in found.items()}
    usual = max(sorted(counts), key=lambda bits: counts[bits])
    lines = [f"{usual} bits: all other linear layers of the decoder ({counts[usual]})"]
    for bits, kinds in sorted(found.items()):
        if bits != usual:
            places = [f"{kind} of {', '.join(map(str, n))}" for kind, n in sorted(kinds.items())]
            lines.append(f"{bits} bits: {'; '.join(places)}")
    return lines
