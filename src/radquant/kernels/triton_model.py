"""A loaded model's packed layers handed over to the Triton kernels."""

from collections import Counter
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.kernels.triton_layout import KMajorWeight, repack, why_not
from radquant.packed.linear import PackedLinear
from radquant.runtime.activations import quantize_activations
from radquant.runtime.layer_names import quantized_layers
from radquant.settings.precision import Activations, same_rounding

BY_TOKEN = Activations(bits=8)  # the only rounding of activations that the kernels do
TOKENS_CHECKED = (1, 7, 80)  # with parts, with more than one token, and without parts
INSTALL = "install triton (pip install 'radquant[gpu]') or use the reference kernel"


def install(model: nn.Module, activations: Activations | None = None) -> str:
    """Let the Triton kernels multiply by `model`'s packed weights from now on; say what runs.

    model: on a CUDA device, its activations float16 or bfloat16. activations: with BY_TOKEN (and
    any `skip`) the layers round their inputs to INT8 themselves, and nothing else may.
    Layers that the kernels cannot take stay with the reference, which the result says. The stored
    form of the others is freed: they can multiply, and no longer be unpacked or saved. One layer of
    each shape is first held against the reference on the device, with random inputs.

    Raises OSError, with every layer as it was, if Triton cannot keep what it compiles. Raises
    UserError if Triton is missing, on another device, for other activations, or if results are
    wrong on this device. It also does where a layer that should round its input stays with the
    reference.
    """
    try:
        from radquant.kernels import triton_linear
    except ImportError as error:
        raise UserError(f"the GPU kernels need Triton ({error}); {INSTALL}") from error

    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    layers = {name: m for name, m in model.named_modules() if isinstance(m, PackedLinear)}
    reasons = {name: why_not(layer) for name, layer in layers.items()}
    taken = [name for name, reason in reasons.items() if reason is None]
    rounded = rounded_layers(reasons, activations)
    checked = set()
    for name in taken:
        layer, by_int8 = layers[name], name in rounded
        triton_linear.require_device(layer.qweight)
        shape = (layer.in_features, layer.out_features, layer.group_size, type(layer), by_int8)
        if shape not in checked:
            check(name, layer, repack(layer), by_int8, dtype)
            checked.add(shape)
    for name in taken:
        hand_over(layers[name], repack(layers[name]), name in rounded)
    return description(reasons, len(rounded))


def rounded_layers(reasons: dict[str, str | None], activations: Activations | None) -> set[str]:
    """The layers whose inputs become INT8. reasons: why the kernels do not take a layer."""
    if activations is None:
        return set()
    if not same_rounding(activations, Activations(bits=8, skip=activations.skip)):
        raise UserError(
            "the GPU kernels round activations to symmetric INT8 with a dynamic scale for each "
            "token only; leave other settings to the simulation"
        )
    names = quantized_layers(list(reasons), activations)
    for name in names:
        if reasons[name] is not None:
            raise UserError(
                f"the GPU kernels cannot round the input of {name}, which has {reasons[name]}; "
                "leave the activations to the simulation"
            )
    return set(names)


def description(reasons: dict[str, str | None], rounded: int) -> str:
    """What runs, for the report: "triton (W4A8)", and how many layers it is not."""
    left = Counter(reason for reason in reasons.values() if reason is not None)
    taken = len(reasons) - left.total()
    others = [f"{count} layers with {reason}" for reason, count in sorted(left.items())]
    if not taken:
        return f"reference ({', '.join(others)})" if others else "none"
    kinds = [
        f"W4A8 in {rounded} layers" if 0 < rounded < taken else "W4A8" if rounded else "",
        f"W4A16 in {taken - rounded} layers" if 0 < rounded < taken else "",
        "W4A16" if not rounded else "",
    ]
    text = f"triton ({', '.join(kind for kind in kinds if kind)})"
    return f"{text}; reference ({', '.join(others)})" if others else text


def hand_over(layer: PackedLinear, weight: KMajorWeight, by_int8: bool) -> None:
    """Make `layer` multiply by `weight`, and free what it was stored as."""
    from radquant.kernels.triton_linear import linear_w4a8, linear_w4a16

    for name in ("qweight", "qzeros", "scales", "channel_scales"):
        layer._buffers.pop(name, None)
    # As buffers they are moved, and counted, with the model.
    for name in ("tiles", "scale_zero", "channel_scales"):
        layer.register_buffer(name, getattr(weight, name), persistent=False)
    multiply = linear_w4a8 if by_int8 else linear_w4a16

    def forward(layer: Any, x: Tensor) -> Tensor:
        return multiply(
            x,
            KMajorWeight(
                layer.tiles,
                layer.scale_zero,
                layer.group_size,
                layer.in_features,
                layer.channel_scales,
                layer.order,
                layer.bias,
            ),
        )

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]


def check(
    name: str, layer: PackedLinear, weight: KMajorWeight, by_int8: bool, dtype: torch.dtype
) -> None:
    """Raise UserError unless the kernels multiply as the weights say, on the device they are on."""
    from radquant.kernels.triton_linear import linear_w4a8, linear_w4a16

    rows = layer.dequantize().double()
    generator = torch.Generator().manual_seed(0)
    for tokens in TOKENS_CHECKED:
        x = torch.randn(tokens, layer.in_features, generator=generator).to(rows.device, dtype)
        y = (linear_w4a8 if by_int8 else linear_w4a16)(x, weight).double()
        if by_int8:
            x = quantize_activations(x.float()[None], BY_TOKEN)[0]
        expected = x.double() @ rows
        # The bound allows for the sums in FP32, one rounding of the result, and one of its sum with
        # the bias.
        bound = 1e-5 * (x.double().abs() @ rows.abs())
        if layer.bias is not None:
            expected += layer.bias.double()
            bound += layer.bias.double().abs() * torch.finfo(dtype).eps
        bound += expected.abs() * torch.finfo(dtype).eps + torch.finfo(dtype).tiny
        if not bool(((y - expected).abs() <= bound).all()):
            raise UserError(
                f"the Triton kernels multiply {name} wrongly on {rows.device} ({dtype}, "
                f"{tokens} tokens); use the reference kernel here and report the device"
            )
