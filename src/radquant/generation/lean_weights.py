"""The weights of a decoder layer as this package's own decoder multiplies by them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from radquant.generation.lean_rounding import Inputs
from radquant.kernels import cpu
from radquant.kernels.rounding import Rounding
from radquant.packed.linear import PackedLinear, ValueLinear

BLOCK = 16  # output channels that lie together
# Linear layers of a decoder layer that read the same.
PRODUCTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


@dataclass
class Part:
    """A weight as the kernels read it (`kernels/cpp/linear.h`)."""

    data: Tensor  # [bytes] uint8
    kind: int
    out: int
    group: int
    bias: Tensor | None  # [out]
    input: int  # how activations enter
    rounding: Rounding | None  # of those that enter as integers


def parts_of(layer: Any, name: str, inputs: Inputs, plain: int) -> list[list[Part]]:
    """What a decoder layer of this name multiplies by, of each of its products."""
    return [
        joined([packed(layer.get_submodule(n), inputs.of(f"{name}.{n}"), plain) for n in names])
        for names in PRODUCTS
    ]


def packed(
    linear: nn.Linear | PackedLinear | ValueLinear, rounding: Rounding | None, plain: int
) -> Part:
    """rounding: of the input. plain: how it enters if it stays as it is."""
    entering = plain if rounding is None else cpu.INTEGERS
    if isinstance(linear, PackedLinear):
        group = linear.group_size if rounding is None else rounding.cut(linear.group_size)
        data, kind = cpu.repack_packed(linear, group)
    else:
        data, kind = cpu.repack_dense(linear.weight)
        group = linear.in_features
    return Part(data, kind, linear.out_features, group, linear.bias, entering, rounding)


def joined(parts: list[Part]) -> list[Part]:
    """The parts, those that follow each other without a gap as one: fewer, longer products."""
    done = parts[:1]
    for part in parts[1:]:
        last = done[-1]
        if not go_together(last, part) or last.out % BLOCK:
            done.append(part)
            continue
        both = [each.bias for each in (last, part) if each.bias is not None]
        bias = torch.cat(both) if both else None
        data = torch.cat([last.data, part.data])
        done[-1] = replace(last, data=data, out=last.out + part.out, bias=bias)
    return done


def go_together(one: Part, other: Part) -> bool:
    """Whether the bytes of two weights are those of one, and both read the same."""
    if (one.bias is None) != (other.bias is None):
        return False
    if one.rounding is not None and other.rounding is not None:
        ranges, others = one.rounding.ranges, other.rounding.ranges
        if ranges is not None and others is not None and not torch.equal(ranges, others):
            return False
    return (one.kind, one.group, one.input) == (other.kind, other.group, other.input)
