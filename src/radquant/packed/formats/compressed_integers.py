"""The integers of compressed-tensors: what `compressed_tensors` asks for them.

Tensors of a packed linear layer (compressed-tensors, `compressors/pack_quantized`):

    weight_packed      int32   [out, ceil(in·bits / 32)]
    weight_scale       float16 [out, groups]
    weight_zero_point  int32   [ceil(out·bits / 32), groups]; asymmetric grids only
    weight_shape       int64   [2]: out, in
    weight_g_idx       int32   [in]; only where groups were formed in order of activation, which
                               the package's later versions and vLLM refuse: read, never written

In `int-quantized` (and `naive-quantized`) nothing is packed:

    weight              int8    [out, in]
    weight_scale        a float [out, groups], [1] where the whole tensor shares it
    weight_zero_point   int8    likewise; asymmetric grids only

It speaks of signed integers q − 2^(bits − 1) and of their zeros. But it stores them with that
offset added back, which is this program's own range. For bits that do not divide 32 its versions
differ: 0.17 leaves the rest of a word empty, 0.20 fills it. So 3 bits are not written, and are read
only as the newer ones store them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats import other_programs
from radquant.packed.formats.compressed_inputs import of_inputs
from radquant.packed.formats.kind import (
    WORDS,
    Settings,
    Stored,
    Table,
    groups_of,
    refuse_unapplied,
    stream_value,
    stream_values,
    whole,
    words_for,
)
from radquant.settings.recipe import WHOLE_ROW, Recipe, uses_gptq_rounding

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

PACKED, UNPACKED = "pack-quantized", "int-quantized"
VLLM_BITS = (4, 8)
IN_ORDER = ("group", "dynamic", True)  # actorder of groups that are no runs of channels
OF_WEIGHTS = frozenset(
    {"num_bits", "type", "symmetric", "strategy", "group_size", "actorder", "observer"}
    | {"observer_kwargs", "scale_dtype", "zp_dtype"}
)


def config_group(recipe: Recipe) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """The format's name and what is said of weights and of inputs, as llm-compressor writes it."""
    whole_row = recipe.group_size == WHOLE_ROW
    weights = {
        "num_bits": recipe.bits,
        "type": "int",
        "symmetric": not recipe.zero_point,
        "strategy": "channel" if whole_row else "group",
        "group_size": None if whole_row else recipe.group_size,
        "dynamic": False,
        "actorder": "weight" if uses_gptq_rounding(recipe) else None,
    }
    return PACKED, weights, None


def pack(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    """A symmetric grid's zeros go without saying."""
    import torch

    from radquant.packed.packing import pack_bits

    packed = {
        "weight_packed": pack_bits(weight.integers, recipe.bits),
        "weight_scale": weight.scales.contiguous(),
        "weight_shape": torch.tensor(weight.integers.shape),
    }
    if recipe.zero_point:
        packed["weight_zero_point"] = pack_bits(weight.zeros.T, recipe.bits).T.contiguous()
    return packed


def read_weights(weights: Mapping[str, Any], name: str) -> Settings:
    """What a group of layers says of integer weights; UserError if they are none that are known.

    name: of the format.
    """
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "tensor")
    if weights.get("type", "int") != "int" or strategy not in ("group", "channel", "tensor"):
        raise UserError(
            f"compressed-tensors weights of type {weights.get('type')} by {strategy} cannot be "
            "read; integers by group, channel or tensor can"
        )
    refuse_unapplied(weights, OF_WEIGHTS, "quantization_config, weights,")
    order = weights.get("actorder")
    if order not in (None, False, "weight", "static", *IN_ORDER):
        raise UserError(f"quantization_config says actorder: {order!r}, which is not known")
    return Settings(
        name,
        whole(weights, "num_bits"),
        whole(weights, "group_size") if strategy == "group" else WHOLE_ROW,
        symmetric=bool(weights.get("symmetric", True)),
        in_order_of_activation=order in IN_ORDER,
    )


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    groups, bits = groups_of(settings, inputs), settings.bits
    if settings.layout:
        return unpacked_tensors(settings, inputs, outputs)
    zeros = {"weight_zero_point": Stored((words_for(outputs, bits), groups), dtypes=WORDS)}
    return {
        "weight_packed": Stored((outputs, words_for(inputs, bits)), dtypes=WORDS),
        "weight_scale": Stored((outputs, groups), also=by_tensor(groups), floating=True),
        "weight_g_idx": Stored((inputs,), optional=not settings.in_order_of_activation),
        **({} if settings.symmetric else zeros),
        "weight_shape": Stored((2,), values=(outputs, inputs)),
        **of_inputs(settings),
    }


def by_tensor(groups: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of one number for the whole tensor, where rows are no groups."""
    return ((1,), (), (1, 1)) if groups == 1 else ()


def unpacked_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    groups = groups_of(settings, inputs)
    one = ((outputs,), *by_tensor(groups)) if groups == 1 else ()
    zeros = {"weight_zero_point": Stored((outputs, groups), also=one, dtypes=("int8",))}
    return {
        "weight": Stored((outputs, inputs), dtypes=("int8",)),
        "weight_scale": Stored((outputs, groups), also=one, floating=True),
        "weight_g_idx": Stored((inputs,), optional=not settings.in_order_of_activation),
        **({} if settings.symmetric else zeros),
        **of_inputs(settings),
    }


def unpack_bytes(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    """Of `int-quantized`: signed integers of up to 8 bits, one in a byte."""
    import torch

    from radquant.packed.grid import QuantizedWeight

    half = 2 ** (settings.bits - 1)
    signed = tensors["weight"].to(torch.int16)
    if int(signed.min()) < -half or int(signed.max()) >= half:
        raise UserError(f"its weight has integers that are none of {settings.bits} bits")
    rows = len(signed)
    scales = per_row(tensors["weight_scale"], rows)
    zeros = torch.full(scales.shape, half, dtype=torch.int16, device=scales.device)
    if not settings.symmetric:
        zeros = per_row(tensors["weight_zero_point"], rows).to(torch.int16) + half
    if int(zeros.min()) < 0 or int(zeros.max()) >= 2 * half:
        raise UserError(f"its weight_zero_point has integers that are none of {settings.bits} bits")
    return QuantizedWeight(
        (signed + half).to(torch.uint8),
        scales,
        zeros.to(torch.uint8),
        tensors.get("weight_g_idx"),
    )


def per_row(stored: Tensor, rows: int) -> Tensor:
    """Scales or zeros of groups, of rows or of a whole tensor: [rows, groups]."""
    one_each = stored.reshape(rows if stored.numel() > 1 else 1, -1)
    return one_each.expand(rows, -1).contiguous()


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    import torch

    from radquant.packed.grid import QuantizedWeight
    from radquant.packed.packing import WORD, unpack_bits

    if settings.layout:
        return unpack_bytes(tensors, settings)
    bits, (outputs, inputs) = settings.bits, tensors["weight_shape"].tolist()
    words = tensors["weight_packed"].shape[-1]
    if words != math.ceil(inputs * bits / WORD):
        raise UserError(
            f"{words} words cannot be read as {inputs} integers of {bits} bits; the checkpoint is "
            "damaged, or padded as in an older version of compressed-tensors"
        )
    scales = per_row(tensors["weight_scale"], outputs)
    if settings.symmetric:
        zeros = torch.full(scales.shape, 2 ** (bits - 1), dtype=torch.uint8, device=scales.device)
    else:
        zeros = unpack_bits(tensors["weight_zero_point"].T.contiguous(), bits, outputs).T
    return QuantizedWeight(
        unpack_bits(tensors["weight_packed"], bits, inputs),
        scales.contiguous(),
        zeros.contiguous(),
        tensors.get("weight_g_idx"),
    )


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    bits, (out, groups) = recipe.bits, packed["weight_scale"].shape
    integers = [stream_values(row, bits) for row in packed["weight_packed"].tolist()]
    if not recipe.zero_point:
        return integers, [[2 ** (bits - 1)] * groups for _ in range(out)]
    columns = packed["weight_zero_point"].T.tolist()
    zeros = [[stream_value(column, place, bits) for column in columns] for place in range(out)]
    return integers, zeros


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    """Words that follow "vLLM cannot …"."""
    if settings.layout and settings.activations is None:
        return f"multiply by integers in bytes (format {settings.layout}) with inputs as they are"
    if settings.layout and not settings.symmetric:
        return "read 8-bit integers with zero points; use a symmetric grid"
    lacking = other_programs.vllm_lacks_bits(settings, VLLM_BITS, on_cpu)
    return lacking or other_programs.vllm_lacks_order(settings)


def loading(settings: Settings, dtype: str) -> list[str]:
    """The model card's paragraphs on loading."""
    kind = "" if settings.symmetric else " of the Hopper kind, for 8 bits with zero points"
    hindrance = other_programs.vllm_hindrance(settings)
    return [
        other_programs.transformers_text("the package compressed-tensors:", dtype),
        other_programs.vllm_text(settings, dtype, hindrance, f"on a GPU{kind}"),
    ]
