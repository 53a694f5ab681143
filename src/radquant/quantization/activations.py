"""Activations quantized at run time: symmetric, dynamic, one scale per tensor.

"Per tensor" means the input of one linear layer for one sequence and one forward call: the scale
comes from that sequence's real tokens alone. A scale over a whole batch would make a report's
output depend on the reports it happens to be batched with, and on their padding.

This is simulated: values are rounded to the grid and multiplied in floating point, so it shows what
low-bit activations do to the output and says nothing about speed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from radquant.errors import UserError


@dataclass
class ActivationQuantization:
    """What the hooks share: which tokens are real, and which layers have quantized so far."""

    bits: int
    real_tokens: Tensor | None = None  # [batch, tokens] bool; None: all of them
    touched: set[str] = field(default_factory=set)


def quantize_activations(x: Tensor, bits: int, real_tokens: Tensor | None = None) -> Tensor:
    """Round `x` to 2·(2^(bits−1) − 1) + 1 levels about 0, one scale per sequence.

    x: [batch, tokens, channels]; real_tokens: [batch, tokens] bool, the tokens that the scale is
    taken over. Returns the rounded values in x's dtype.
    """
    largest = 2 ** (bits - 1) - 1
    magnitude = x.abs().amax(-1)  # [batch, tokens]
    if real_tokens is not None:
        magnitude = magnitude.masked_fill(~real_tokens, 0)
    scale = magnitude.amax(-1).float().clamp(min=1e-12)[:, None, None] / largest
    return ((x.float() / scale).round_().clamp_(-largest, largest) * scale).to(x.dtype)


def attach(model: nn.Module, linears: Mapping[str, nn.Module], bits: int) -> ActivationQuantization:
    """Quantize the input of each of `linears` (name -> module of `model`) from now on.

    `model` is a Hugging Face causal language model whose decoder gets `attention_mask` by keyword.
    """
    state = ActivationQuantization(bits)

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

    def quantize_input(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            state.touched.add(name)
            return (quantize_activations(args[0], bits, state.real_tokens), *args[1:])

        return hook

    decoder = model.base_model
    assert isinstance(decoder, nn.Module)
    decoder.register_forward_pre_hook(note_mask, with_kwargs=True)
    for name, linear in linears.items():
        linear.register_forward_pre_hook(quantize_input(name))
    return state


@torch.inference_mode()
def probe(model: nn.Module, state: ActivationQuantization) -> int:
    """Run one token through `model` and return how many layers quantized their input."""
    state.touched.clear()
    device = next(model.parameters()).device
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device))
    return len(state.touched)
