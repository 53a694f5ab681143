"""Hadamard rotations that leave a model's function unchanged (QuaRot, Ashkboos et al. 2024,
arXiv:2404.00456): activations lose their outlying channels and are easier to round.

Let Q be orthogonal. A linear layer that reads x·Q instead of x then needs the weights W·Q, and one
that is to write y·Q the weights Qᵀ·W. Three places are rotated:

* the residual stream, from the embedding to the head. Norms divide by a length, which Q leaves
  alone, once their own weights are folded into the layers that read them. Where a norm with weights
  stands between a layer and the stream (Gemma 2 and 3), this cannot be folded. The inputs of the
  layers that read the stream are then rotated when the model runs.
* the values, head by head, folded into the layers that make and read them.
* the input of the layer behind the MLP's activation function, when the model runs.

Keys are rotated in the cache (`kv_cache`).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from radquant.families.architectures import Architecture, Group, Norm, O, Rows
from radquant.families.inspection import linear_of, of_layer, row_range
from radquant.finite import relative_change
from radquant.runtime.hadamard import rotate, rotate_heads, rotate_input, signs

SIGN_SEED = 0  # of the residual stream's rotation diag(signs)·H


@dataclass(frozen=True)
class Rotation:
    """Where a model is rotated."""

    signs: Tensor | None  # [hidden] of the residual stream's rotation; None: it is left alone
    online: tuple[str, ...]  # linear layers of a decoder layer whose input is rotated at run time
    head_dim: int


def plan_rotation(architecture: Architecture, config: Any, head_dim: int) -> Rotation:
    """How a model of this architecture is rotated.

    What other parts than the embedding put into the residual stream (images) would have to be
    rotated, too: it is left alone in such models.
    """
    folded = bool(architecture.writers) and "vision_config" not in config
    width = config.get_text_config().hidden_size
    online = [
        name
        for group in architecture.groups
        if not (folded and isinstance(group.source, Norm)) and not reads_heads(group, head_dim)
        for name in group.linears
    ]
    return Rotation(signs(width, SIGN_SEED) if folded else None, tuple(online), head_dim)


def reads_heads(group: Group, head_dim: int) -> bool:
    """Whether a group's input is made of attention heads, whose values are made by known rows."""
    source = group.source
    return group.linears == (O,) and isinstance(source, Rows) and head_dim > 0 and not source.gated


def rotated_architecture(architecture: Architecture, rotation: Rotation) -> Architecture:
    """The table of the rotated model: no scale can be folded through what happens at run time."""
    groups = tuple(
        replace(group, source=None) if group.linears[0] in rotation.online else group
        for group in architecture.groups
    )
    return replace(architecture, groups=groups)


def rotate_residual(x: Tensor, rotation: Rotation, inverse: bool = False) -> Tensor:
    """States of the residual stream, [..., hidden], in the rotated model, or back."""
    if rotation.signs is None:
        return x
    return rotate(x, inverse, rotation.signs.to(x.device))


def rotate_layer(layer: nn.Module, architecture: Architecture, rotation: Rotation) -> None:
    """Rotate a decoder layer with float32 weights, in place."""
    architecture = of_layer(layer, architecture)
    for group in architecture.groups:
        linears = [linear_of(layer, name) for name in group.linears]
        if group.linears[0] in rotation.online:
            for linear in linears:
                linear.weight.copy_(rotate(linear.weight))
                linear.register_forward_pre_hook(rotate_input)
        elif isinstance(group.source, Norm):
            fold_norm(layer, group.source, linears)
            for linear in linears:
                linear.weight.copy_(rotate_residual(linear.weight, rotation))
        else:
            assert isinstance(group.source, Rows)
            rotate_values(layer, group.source, rotation.head_dim)
            for linear in linears:
                linear.weight.copy_(rotate_heads(linear.weight, rotation.head_dim))
    for name in architecture.writers:
        rotate_outputs(linear_of(layer, name), rotation)


def fold_norm(layer: nn.Module, norm: Norm, linears: list[nn.Linear]) -> None:
    """Move a norm's weights into the linear layers that read it."""
    weight = layer.get_submodule(norm.name).weight
    assert isinstance(weight, Tensor)
    for linear in linears:
        linear.weight.mul_(weight + norm.offset)
    weight.fill_(1 - norm.offset)


def rotate_values(layer: nn.Module, source: Rows, head_dim: int) -> None:
    """Rotate what makes the values, head by head."""
    linear, rows = linear_of(layer, source.linear), row_range(layer, source)
    linear.weight[rows] = rotate_heads(linear.weight[rows].T, head_dim).T
    if linear.bias is not None:
        linear.bias[rows] = rotate_heads(linear.bias[rows], head_dim)


def rotate_outputs(linear: nn.Linear, rotation: Rotation) -> None:
    """Let a linear layer write into the rotated residual stream."""
    linear.weight.copy_(rotate_residual(linear.weight.T, rotation).T)
    if linear.bias is not None:
        linear.bias.copy_(rotate_residual(linear.bias, rotation))


def head_of_rotated(head: Tensor, norm: Tensor, final: Norm, rotation: Rotation) -> Tensor:
    """The head's weights, [vocabulary, hidden], for the rotated stream behind a norm without any.

    norm: the weights of the final norm, [hidden] float32, which are folded into the head.
    """
    return rotate_residual(head.float() * (norm + final.offset), rotation)


@torch.inference_mode()
def change_by_rotation(expected: Tensor, got: Tensor, rotation: Rotation) -> float:
    """The relative difference of a rotated layer's output from what the original's would be."""
    return relative_change(got, rotate_residual(expected, rotation))
