"""Names of layers as patterns, for formats that say the bits of some layers by name.

Readers match them in two ways: layers one by one under their own names (compressed-tensors,
GPTQModel, transformers), or those that they fuse under the fused one's name (vLLM), which the
patterns know, too. What stands before "layers" differs between programs and is left open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from radquant.settings.recipe import Recipe

# The layers that serving engines fuse, under the name of the first.
FUSED = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj"}


def patterns(layers: Iterable[str]) -> list[str]:
    """Regular expressions that match these linear layers of numbered decoder layers, each from its
    beginning to its end, and no others.

    layers: names such as `model.layers.3.mlp.up_proj`. There is one expression for each kind.
    """
    numbers: dict[tuple[str, str], list[int]] = {}
    for layer in layers:
        found = re.fullmatch(r"(?:.*\.)?(\w+)\.(\d+)\.(.+)", layer)
        assert found is not None
        numbers.setdefault((found[1], found[3]), []).append(int(found[2]))
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
