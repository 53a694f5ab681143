"""Activations quantized at run time: the input of every packed linear layer, rounded to a grid.

A dynamic scale comes from the values themselves. They are those of one sequence in one forward call
("tensor"), of one token, or of a group of one token's channels. It never spans a batch, and padding
has no part in it. A report's output must not depend on the reports that it is batched with. A
static range was found on the calibration set and lies in the checkpoint.

This is simulated: values are rounded to the grid and multiplied in floating point. So it shows what
low-bit activations do to the output and says nothing about speed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from radquant.errors import UserError
from radquant.packed.linear import QuantizedLinear
from radquant.packed.types.fp8 import LARGEST as LARGEST_FP8
from radquant.runtime.float_values import largest_to_global, round_values
from radquant.runtime.layer_names import quantized_layers
from radquant.settings.precision import GROUP, INT, NVFP4, STATIC, TENSOR, Activations

TINY = 1e-12  # the least range, so that a tensor of zeros has a scale


@dataclass(frozen=True)
class Grid:
    """Where values are rounded to: (q − zero)·scale for integers q in [low, high].

    Of a floating-point type only `scale` counts: FP8's scale, or NVFP4's global scale.
    """

    scale: Tensor
    zero: Tensor
    low: int
    high: int


def on_device(grid: Grid, device: torch.device) -> Grid:
    return replace(grid, scale=grid.scale.to(device), zero=grid.zero.to(device))


@dataclass
class ActivationQuantization:
    """What the hooks share: which tokens are real, and which layers have quantized so far."""

    settings: Activations
    names: tuple[str, ...] = ()  # of the layers whose input is quantized
    static: Mapping[str, Grid] | None = None  # by layer, of static ranges
    real_tokens: Tensor | None = None  # [batch, tokens] bool; None: all of them
    touched: set[str] = field(default_factory=set)
    hooks: list[RemovableHandle] = field(default_factory=list)

    def remove(self) -> None:
        """Quantize nothing any more."""
        for hook in self.hooks:
            hook.remove()


def levels(settings: Activations) -> tuple[int, int]:
    """The least and the largest integer of a grid.

    Symmetric: 2·(2^(bits−1) − 1) + 1 levels about 0. Otherwise 2^bits levels from 0 on.
    """
    largest: int = 2 ** (settings.bits - 1) - 1 if settings.symmetric else 2**settings.bits - 1
    return (-largest if settings.symmetric else 0), largest


def grid_of_range(low: Tensor, high: Tensor, settings: Activations) -> Grid:
    """The grid that covers [low, high], which is stretched to hold 0; its zero is an integer."""
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    least, largest = levels(settings)
    if settings.symmetric:
        scale = torch.maximum(-low, high).clamp(min=TINY) / largest
        return Grid(scale, torch.zeros_like(scale), least, largest)
    scale = (high - low).clamp(min=TINY) / largest
    return Grid(scale, (-low / scale).round(), least, largest)


def round_to(x: Tensor, grid: Grid) -> Tensor:
    """The nearest points of a grid that broadcasts over x, in x's dtype."""
    integers = (x.float() / grid.scale).round_().add_(grid.zero).clamp_(grid.low, grid.high)
    return integers.sub_(grid.zero).mul_(grid.scale).to(x.dtype)


def extremes(x: Tensor, settings: Activations, real_tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The least and the largest of the values that share a scale; they broadcast over x.

    x: [batch, tokens, channels], or [batch, tokens, groups, group_size] by group.
    """
    if settings.granularity != TENSOR:
        return x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    low, high = x.amin(-1), x.amax(-1)  # [batch, tokens]
    if real_tokens is not None:
        low, high = low.masked_fill(~real_tokens, 0), high.masked_fill(~real_tokens, 0)
    return low.amin(-1)[:, None, None], high.amax(-1)[:, None, None]


def by_channel_group(x: Tensor, settings: Activations) -> Tensor:
    """[..., channels] -> [..., groups, group_size] if scales are by group, else as it is."""
    return x.unflatten(-1, (-1, settings.group_size)) if settings.granularity == GROUP else x


def quantize_activations(
    x: Tensor,
    settings: Activations,
    real_tokens: Tensor | None = None,
    static: Grid | None = None,
) -> Tensor:
    """Round x, [batch, tokens, channels], as `settings` say; returns values in x's dtype.

    Towers of some models have one batch of patches, [tokens, channels].
    real_tokens: [batch, tokens] bool, those that a scale over tokens is taken from.
    static: the grid of a static range, scale and zero [1] or [groups].
    """
    if x.dim() == 2:
        return quantize_activations(x[None], settings, real_tokens, static)[0]
    if settings.keep_from is not None:
        kept = x.abs() >= settings.keep_from
        rest = settings.model_copy(update={"keep_from": None})
        return x.where(kept, quantize_activations(x.masked_fill(kept, 0), rest, real_tokens))
    values = by_channel_group(x, settings)
    if settings.type != INT:
        return round_floats(values, settings, real_tokens, static).view(x.shape).to(x.dtype)
    if static is None:
        low, high = extremes(values, settings, real_tokens)
        keep = settings.clip_ratio
        grid = grid_of_range(low * keep, high * keep, settings)
    elif settings.granularity == GROUP:
        grid = Grid(static.scale[:, None], static.zero[:, None], static.low, static.high)
    else:
        grid = static
    return round_to(values, grid).view(x.shape)


def round_floats(
    values: Tensor, settings: Activations, real_tokens: Tensor | None, static: Grid | None
) -> Tensor:
    """Round to a floating-point type, float32; arguments as in `quantize_activations`."""
    values = values.float()
    shared = None if static is None else static.scale
    if shared is None and settings.type == NVFP4:
        low, high = extremes(
            values.flatten(-2), settings.model_copy(update={"granularity": TENSOR}), real_tokens
        )
        shared = largest_to_global(torch.maximum(-low, high))
    elif shared is None and settings.granularity == TENSOR:
        low, high = extremes(values, settings, real_tokens)
        shared = torch.maximum(-low, high)[..., 0] / LARGEST_FP8
    return round_values(values, settings.type, shared)


def check_widths(linears: Mapping[str, nn.Module], settings: Activations) -> None:
    """Raise UserError unless groups of channels fill every layer's input."""
    if settings.granularity != GROUP:
        return
    for name, linear in linears.items():
        width = linear.in_features
        assert isinstance(width, int)
        if width % settings.group_size:
            raise UserError(
                f"activations: group_size {settings.group_size} does not divide the {width} inputs "
                f"of {name}"
            )


def attach(
    model: nn.Module,
    linears: Mapping[str, nn.Module],
    settings: Activations,
    static: Mapping[str, Grid] | None = None,
) -> ActivationQuantization:
    """Quantize the input of each of `linears` (name -> module of `model`) from now on.

    `model` is a Hugging Face causal language model whose decoder gets `attention_mask` by keyword.
    static: the grid of each layer's static range. Skipped layers stay as they are.
    """
    if (settings.range == STATIC) != (static is not None):
        raise ValueError("static ranges are given exactly for settings that are static")
    chosen = quantized_layers(list(linears), settings)
    state = ActivationQuantization(settings, tuple(chosen), static)
    check_widths({name: linears[name] for name in chosen}, settings)

    def note_mask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() != 2:
            raise UserError(
                f"activation quantization needs an attention mask [batch, tokens], not one of "
                f"{mask.dim()} dimensions; use the default cache of generate()"
            )
        state.real_tokens = None if mask is None else mask[:, -tokens.shape[1] :].bool()

    def quantize_input(name: str, grid: Grid | None) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            state.touched.add(name)
            rounded = quantize_activations(args[0], settings, state.real_tokens, grid)
            return (rounded, *args[1:])

        return hook

    decoder = model.base_model
    assert isinstance(decoder, nn.Module)
    state.hooks.append(decoder.register_forward_pre_hook(note_mask, with_kwargs=True))
    for name in chosen:
        grid = static[name] if static is not None else None
        state.hooks.append(linears[name].register_forward_pre_hook(quantize_input(name, grid)))
    return state


@torch.inference_mode()
def probe(model: nn.Module, state: ActivationQuantization) -> int:
    """Run one token through `model` and return how many layers quantized their input.

    Quantized layers answer with zeros: unpacking all of them takes minutes of a large model, and
    gigabytes that the system does not get back.
    """
    state.touched.clear()
    device = next(model.parameters()).device
    layers = [each for each in model.modules() if isinstance(each, QuantizedLinear)]
    for layer in layers:
        layer.forward = partial(zeros_of, layer.out_features)  # type: ignore[method-assign]
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device))
    finally:
        for layer in layers:
            del layer.forward
    return len(state.touched)


def zeros_of(width: int, x: Tensor) -> Tensor:
    return x.new_zeros(*x.shape[:-1], width)
