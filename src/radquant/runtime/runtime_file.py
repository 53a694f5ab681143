"""What a checkpoint brings for run time beside its weights: static ranges, a prefix, rotations.

Tensors lie in `radquant.runtime`, a safetensors file away from the weights, so that tools which
read the weights' format are not disturbed. Some checkpoints compute something else without them, as
their inputs are rotated at run time. They have a `quant_method` of their own, so that no other tool
loads them and writes nonsense.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from radquant.errors import UserError
from radquant.failures import loading
from radquant.finite import first_not_finite, is_finite
from radquant.runtime.activations import Grid, levels
from radquant.settings.precision import Activations, activations_of, as_values

# The name does not end in .safetensors, as some tools read every such file of a directory as
# weights.
FILE = "radquant.runtime"
OWN_METHOD = "radquant"
SCALE, ZERO = "input_scale", "input_zero_point"
PREFIX_IDS = "prefix.ids"


@dataclass(frozen=True)
class StoredPrefix:
    """Tokens that stand before every text, as the keys and values of each decoder layer."""

    ids: tuple[int, ...]
    keys: list[Tensor]  # [1, key heads, tokens, head_dim] each
    values: list[Tensor]


@dataclass(frozen=True)
class Runtime:
    """What a checkpoint brings for run time."""

    rotate_keys: bool = False
    activations: Activations | None = None  # of the static ranges
    static: dict[str, Grid] = field(default_factory=dict)  # by the linear layer's name
    prefix: StoredPrefix | None = None
    # Fixed scales of keys and values by decoder layer, from beside the weights.
    cache_scales: Mapping[int, tuple[float, float]] = field(default_factory=dict)


def behind_prefix(prefix: Sequence[int], ids: Sequence[int]) -> list[int]:
    """The tokens of a text behind a stored prefix, which are not doubled where both meet.

    A prefix ends with what texts begin with (BOS), if they all begin with it.
    """
    return [*prefix, *(ids[1:] if prefix and ids[:1] == list(prefix[-1:]) else ids)]


def announce(weights: Mapping[str, Any], online: tuple[str, ...] | None) -> dict[str, Any]:
    """The `quantization_config` for config.json.

    weights: that of the weights' format. online: None for a model that is not rotated; then any
    tool may read it as what its format says.
    """
    if online is None:
        return dict(weights)
    return {
        "quant_method": OWN_METHOD,
        "online_hadamard": list(online),
        "rotate_keys": True,
        "weights": dict(weights),
    }


def weights_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a `quantization_config` that says how the weights are stored."""
    if config.get("quant_method") != OWN_METHOD:
        return config
    weights: Mapping[str, Any] = config["weights"]
    return weights


def grid_tensors(name: str, grid: Grid) -> dict[str, Tensor]:
    """A linear layer's static range, [1] or [groups] float32 each.

    Copies: layers that share an input share its range, which goes into the file for each of them.
    """
    return {
        f"{name}.{SCALE}": grid.scale.float().clone(),
        f"{name}.{ZERO}": grid.zero.float().clone(),
    }


def prefix_tensors(layer: int, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
    return {f"prefix.{layer}.key": keys, f"prefix.{layer}.value": values}


def metadata(activations: Activations | None) -> dict[str, str]:
    """For the header of the tensors' file."""
    return {"format": "pt", "activations": json.dumps(as_values(activations))}


def read_runtime(directory: Path, config: Mapping[str, Any]) -> Runtime:
    """What the checkpoint in `directory`, with this `quantization_config`, brings."""
    own = config if config.get("quant_method") == OWN_METHOD else {}
    rotate_keys = bool(own.get("rotate_keys"))
    path = directory / FILE
    if not path.is_file():
        return Runtime(rotate_keys)
    with loading(path, "quantize again"), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata() or {}
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise UserError(f"{path}: {name} holds {first_not_finite(tensor)}; quantize again")
    try:
        activations = activations_of(json.loads(about.get("activations", "null")))
    except ValueError:
        raise UserError(f"{path} is damaged; quantize again") from None
    layers = len([name for name in tensors if re.fullmatch(r"prefix\.\d+\.key", name)])
    ranges = [name.removesuffix(f".{SCALE}") for name in tensors if name.endswith(f".{SCALE}")]
    known = {f"{name}.{kind}" for name in ranges for kind in (SCALE, ZERO)}
    if layers:
        known |= {PREFIX_IDS}
        known |= {f"prefix.{n}.{kind}" for n in range(layers) for kind in ("key", "value")}
    odd = sorted(known ^ tensors.keys())
    if odd:
        said = "lacks" if odd[0] in known else "has an unknown tensor"
        raise UserError(f"{path} {said} {odd[0]}; quantize again")
    if ranges and activations is None:
        raise UserError(f"{path} has ranges without their settings; quantize again")
    static = {
        name: Grid(tensors[f"{name}.{SCALE}"], tensors[f"{name}.{ZERO}"], *levels(activations))
        for name in ranges
        if activations is not None
    }
    prefix = None
    if layers:
        prefix = StoredPrefix(
            tuple(tensors[PREFIX_IDS].tolist()),
            [tensors[f"prefix.{layer}.key"] for layer in range(layers)],
            [tensors[f"prefix.{layer}.value"] for layer in range(layers)],
        )
    return Runtime(rotate_keys, activations, static, prefix)


def online_rotations(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Ends of the names of the linear layers whose input is rotated at run time."""
    own = config.get("quant_method") == OWN_METHOD
    return tuple(config.get("online_hadamard", ())) if own else ()
