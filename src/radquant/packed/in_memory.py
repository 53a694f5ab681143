"""Packed layers as they lie in memory, whatever format they were stored in."""

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.packed import packing
from radquant.packed.formats import Settings, field_bits, stored_format
from radquant.packed.grid import QuantizedWeight
from radquant.packed.linear import PackedLinear, QuantizedLinear, ValueLinear
from radquant.packed.progressive_linear import ProgressiveLinear
from radquant.settings.precision import INT


def packed_tensors(weight: QuantizedWeight, bits: int) -> dict[str, Tensor]:
    """The tensors of `packed.linear.PackedLinear`, or of its subclass for progressive scales,
    which has `channel_scales`, too."""
    order = None
    if weight.group_index is not None:
        order = input_order(weight.group_index, weight.scales.shape[1])
    integers = weight.integers if order is None else weight.integers[:, order.long()]
    rows = QuantizedWeight(integers, weight.scales, weight.zeros)
    packed = packing.pack(rows, field_bits(bits))
    if weight.channel_scales is not None:
        packed["channel_scales"] = weight.channel_scales
    return packed if order is None else packed | {"order": order}


def input_order(index: Tensor, groups: int) -> Tensor | None:
    """The input channels of the first group, then of the second …, [in] int32; None: as they are.

    Raises UserError unless all groups are of one size.
    """
    counts = torch.bincount(index.long().clamp(min=0), minlength=groups)
    if len(counts) != groups or int(index.min()) < 0 or len(counts.unique()) != 1:
        raise UserError(f"its group index does not make {groups} groups of one size")
    order = index.argsort(stable=True).to(torch.int32)
    return None if torch.equal(order, torch.arange(len(order), dtype=torch.int32)) else order


def packed_layer(
    tensors: dict[str, Tensor], settings: Settings, inputs: int, outputs: int, bias: bool = False
) -> PackedLinear:
    """The linear layer that holds tensors in memory's form; its bias, if any, is yet to be set."""
    kind = ProgressiveLinear if settings.progressive else PackedLinear
    layer = kind(
        inputs, outputs, field_bits(settings.bits), settings.group_size, bias, "order" in tensors
    )
    if not settings.progressive:
        tensors = tensors | {"scales": in_float16(tensors["scales"])}
    layer.load_state_dict(tensors, strict=False, assign=True)
    return layer


def quantized_layer(
    tensors: dict[str, Tensor],
    settings: Settings,
    inputs: int,
    outputs: int,
    bias: bool = False,
    dtype: torch.dtype = torch.float32,
) -> QuantizedLinear:
    """The linear layer of a stored layer's tensors; its bias, if any, is yet to be set.

    dtype: of the values of a format without a kernel.
    """
    form = stored_format(settings.format)
    if form.VALUES or settings.type != INT:
        values = form.unpack(tensors, settings).dequantize()
        if values.shape != (outputs, inputs):
            raise UserError(f"it has shape {list(values.shape)}, not {[outputs, inputs]}")
        layer: QuantizedLinear = ValueLinear(values.to(dtype), bias)
    else:
        layer = packed_layer(form.in_memory(tensors, settings), settings, inputs, outputs, bias)
    layer.keep_input_scale(tensors)
    layer.keeps_input = settings.keeps_inputs
    return layer


def in_float16(scales: Tensor) -> Tensor:
    """The same scales, in float16 if it holds them exactly: the kernels read no other.

    Other programs store those of a bfloat16 model in bfloat16, of which float16 holds the usual.
    """
    half = scales.half()
    return half if torch.equal(half.float(), scales.float()) else scales
