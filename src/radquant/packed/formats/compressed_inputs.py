"""What compressed-tensors says of a layer's inputs and of keys and values, and stores for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from radquant.errors import UserError
from radquant.packed.formats.kind import Settings, Stored, refuse_unapplied, whole
from radquant.settings.precision import (
    DYNAMIC,
    FP8,
    GROUP,
    INT,
    MXFP4,
    NVFP4,
    STATIC,
    TENSOR,
    TOKEN,
    Activations,
    KVCache,
)

FLOATS = ("float32", "bfloat16", "float16")
OF_VALUES = frozenset(
    {"num_bits", "type", "symmetric", "strategy", "group_size", "block_structure", "dynamic"}
    | {"observer", "observer_kwargs", "scale_dtype", "zp_dtype", "actorder"}
)


def is_float(weights: Mapping[str, Any]) -> bool:
    return weights.get("type") == "float"


def read_activations(inputs: Mapping[str, Any] | None) -> Activations | None:
    """What is said of the rounding of inputs.

    The grid of symmetric integers is this program's, ±127 and a scale of the largest magnitude over
    127, as in vLLM. compressed-tensors' own simulation takes 127.5.
    """
    if not inputs:
        return None
    refuse_unapplied(inputs, OF_VALUES, "quantization_config, input_activations,")
    bits, strategy, dynamic = (
        whole(inputs, "num_bits"),
        inputs.get("strategy"),
        inputs.get("dynamic"),
    )
    group, symmetric = inputs.get("group_size"), bool(inputs.get("symmetric", True))
    if inputs.get("type", "int") == INT and bits in (4, 8):
        if dynamic is True and strategy in (TOKEN, TENSOR):
            return Activations(bits=bits, granularity=strategy, symmetric=symmetric)
        if dynamic is True and strategy == GROUP:
            size = whole(inputs, "group_size")
            return Activations(bits=bits, granularity=GROUP, group_size=size, symmetric=symmetric)
        if not dynamic and strategy == TENSOR:
            return Activations(bits=bits, granularity=TENSOR, range=STATIC, symmetric=symmetric)
    if is_float(inputs) and inputs.get("symmetric", True):
        if bits == 8 and strategy == "token" and dynamic is True:
            return Activations(type=FP8, bits=8, granularity=TOKEN)
        if bits == 8 and strategy == "tensor":
            return Activations(
                type=FP8, bits=8, granularity=TENSOR, range=DYNAMIC if dynamic else STATIC
            )
        if bits == 8 and strategy == "group" and dynamic is True:
            return Activations(
                type=FP8, bits=8, granularity=GROUP, group_size=whole(inputs, "group_size")
            )
        if bits == 4 and strategy == "group" and group == 32 and dynamic is True:
            return Activations(type=MXFP4, bits=4)
        if bits == 4 and strategy == "tensor_group" and group == 16 and dynamic == "local":
            return Activations(type=NVFP4, bits=4, range=STATIC)
    raise UserError(
        f"activations of {bits} bits of type {inputs.get('type')} by {strategy}, "
        f"dynamic: {dynamic}, are not known; take a checkpoint whose weights alone are quantized"
    )


def read_cache(scheme: Mapping[str, Any] | None) -> KVCache | None:
    """What is said of keys and values: E4M3 with one scale a layer."""
    if not scheme:
        return None
    refuse_unapplied(scheme, OF_VALUES, "quantization_config, kv_cache_scheme,")
    bits, strategy = whole(scheme, "num_bits"), scheme.get("strategy", "tensor")
    if is_float(scheme) and bits == 8 and strategy == "tensor" and not scheme.get("dynamic"):
        return KVCache(type=FP8, bits=8, granularity=TENSOR)
    raise UserError(
        f"a cache of {bits} bits of type {scheme.get('type')} by {strategy} is not known; "
        "one of 8-bit floating point by tensor is"
    )


def of_inputs(settings: Settings) -> dict[str, Stored]:
    """What of a static range of its inputs lies beside a layer's weights."""
    activations = settings.activations
    if activations is None or settings.keeps_inputs or activations.range != STATIC:
        return {}
    if activations.type == NVFP4:
        return {"input_global_scale": one_number()}
    if activations.type == FP8:
        return {"input_scale": one_number()}
    zero = Stored((1,), also=((), (1, 1)), optional=activations.symmetric, dtypes=("int8",))
    return {"input_scale": one_number(), "input_zero_point": zero}


def one_number() -> Stored:
    return Stored((1,), also=((), (1, 1)), floating=True, dtypes=FLOATS)
