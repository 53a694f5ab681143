"""SmoothQuant (Xiao et al. 2023, arXiv:2211.10438) and SmoothAttention (QServe, Lin et al. 2024,
arXiv:2405.04532): outlying channels of activations and keys, moved where rounding hurts less."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.families.architectures import K, Q
from radquant.families.inspection import linears

STRENGTH = 0.5  # the papers' alpha


def smooth_scale(
    weights: Sequence[Tensor], largest: Tensor, channels: Tensor, source_width: int
) -> Tensor:
    """SmoothQuant's scale of each source channel: max|X|^α / max|W|^(1−α), [source_width] float32.

    weights: the [out, in] weights that share the input. largest: max|X| of each input channel.
    channels: the source channel of each input channel.
    """
    weight = torch.stack([each.abs().amax(0) for each in weights]).amax(0)
    activation, weight = (
        torch.zeros(source_width, device=each.device).scatter_reduce_(0, channels, each, "amax")
        for each in (largest, weight)
    )
    scale = activation.clamp(min=1e-5) ** STRENGTH / weight.clamp(min=1e-5) ** (1 - STRENGTH)
    return scale.clamp(min=1e-4)


def key_maker(layer: nn.Module) -> nn.Linear:
    """The linear layer that makes a decoder layer's keys before their position is put in.

    Raises UserError where keys are no layer's own output.
    """
    found = linears(layer)
    if K not in found or Q not in found:
        raise UserError(
            "smooth_attention needs queries and keys that are made by layers of their own, which "
            "this architecture has not; leave it out"
        )
    attention = layer.get_submodule("self_attn")
    if hasattr(attention, "k_norm"):
        raise UserError(
            "smooth_attention is not known for models that normalize their keys (their scale is "
            "the norm's); leave it out"
        )
    return found[K]


def key_scale(largest: Tensor, head_dim: int) -> Tensor:
    """The power of two that each key channel is divided by, [kv_heads · head_dim] float32.

    largest: [kv_heads · head_dim], over tokens the largest length of each channel's pair. Rotary
    position embedding turns channels i and i + head_dim/2 into each other, so they share a scale
    (QServe, section 5.2). Powers of two make the division exact in every number format.
    """
    pairs = largest.unflatten(0, (-1, 2, head_dim // 2))
    scale = pairs.amax(1, keepdim=True).expand_as(pairs).clamp(min=1e-5) ** STRENGTH
    return torch.exp2(torch.log2(scale).round()).flatten()


def pair_lengths(keys: Tensor, head_dim: int) -> Tensor:
    """√(k_i² + k_{i + head_dim/2}²), which no position changes: the largest over tokens,
    [kv_heads · head_dim]; keys: [..., kv_heads · head_dim]."""
    pairs = keys.flatten(0, -2).float().unflatten(-1, (-1, 2, head_dim // 2))
    lengths = pairs.norm(dim=2, keepdim=True).expand_as(pairs)
    return lengths.flatten(1).amax(0)


def divide_keys(layer: nn.Module, scale: Tensor, head_dim: int) -> None:
    """Divide the keys by `scale` and multiply the queries that meet them by it, in the weights."""
    found = linears(layer)
    queries, keys = found[Q], found[K]
    groups = queries.out_features // keys.out_features
    expanded = scale.unflatten(0, (-1, head_dim)).repeat_interleave(groups, dim=0).flatten()
    for linear, factor in ((queries, expanded), (keys, 1 / scale)):
        linear.weight.mul_(factor[:, None])
        if linear.bias is not None:
            linear.bias.mul_(factor)
