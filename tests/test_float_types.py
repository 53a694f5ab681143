"""The floating-point number types against compressed-tensors' own code, value by value."""

import pytest
import torch
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.compressors.naive_quantized.base import FloatQuantizationCompressor
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import (
    calculate_qparams,
    compute_dynamic_scales_and_zp,
    generate_gparam,
)
from torch import Tensor

from radquant.packed import float4
from radquant.packed.types import fp8, mxfp4, nvfp4
from radquant.runtime.activations import Grid, quantize_activations
from radquant.runtime.float_values import static_scale
from radquant.runtime.kv_cache import quantize_states
from radquant.settings.precision import Activations, KVCache, activations_of, kv_cache_of
from radquant.settings.recipe import Recipe

RECIPE = Recipe()
EVERY_HALF = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
FINITE = EVERY_HALF[EVERY_HALF.isfinite()].float()
E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
SCHEMES = {
    name: preset_name_to_scheme(name, ["Linear"])
    for name in ("MXFP4A16", "NVFP4A16", "FP8_DYNAMIC")
}


@pytest.fixture(autouse=True)
def uncompiled():
    """Their rounding to E2M1 is compiled with a C++ compiler, which takes long."""
    with torch._dynamo.config.patch(disable=True):
        yield


def same_bits(one: Tensor, other: Tensor) -> bool:
    assert one.dtype == other.dtype == torch.float32
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def test_every_mxfp4_value():
    """All codes with all scales; theirs are exact although they compute in bfloat16."""
    codes = torch.arange(16, dtype=torch.uint8).repeat(255, 2)  # [scales, 32]
    stored = torch.arange(255, dtype=torch.uint8)[:, None]
    theirs = MXFP4PackedCompressor.decompress(
        {"weight_packed": float4.pack_codes(codes), "weight_scale": stored}, SCHEMES["MXFP4A16"]
    )["weight"].float()
    scale = mxfp4.scales_of(stored)
    assert torch.equal(float4.unpack_codes(float4.pack_codes(codes)), codes)
    ours = mxfp4.values(codes, scale, torch.zeros(()))
    inside = slice(2, 252)  # bfloat16 has neither 6·2^127 nor, on a CPU, half of 2^−127
    assert same_bits(ours[inside], theirs[inside])
    assert torch.equal(mxfp4.stored_scales(scale[inside]), stored[inside])
    assert scale[0] == 2.0**-127
    assert mxfp4.scales_of(torch.tensor([255], dtype=torch.uint8)).isnan()


def test_every_nvfp4_value():
    codes = torch.arange(16, dtype=torch.uint8).repeat(127, 1)  # [scales, 16]
    stored = E4M3[:127, None]
    for number in (1.0, 2688 / 0.37, 1536 / 0.1234567, 3.1e-5, 7.7e7):
        shared = torch.tensor([number])
        theirs = NVFP4PackedCompressor.decompress(
            {
                "weight_packed": float4.pack_codes(codes),
                "weight_scale": stored,
                "weight_global_scale": shared,
            },
            SCHEMES["NVFP4A16"],
        )["weight"]
        scale = nvfp4.scales_of(stored, shared)
        ours = nvfp4.values(codes, scale, torch.zeros(()))
        assert same_bits(ours, theirs)
        back = nvfp4.stored_scales(scale, shared)
        assert torch.equal(back[1:].view(torch.uint8), stored[1:].view(torch.uint8))


def test_every_fp8_value():
    codes = torch.arange(256, dtype=torch.uint8)
    codes = codes[~E4M3.float().isnan()].repeat(4, 1)
    scale = torch.tensor([[1.0], [2.1e-4], [0.3], [7e-10]])
    theirs = FloatQuantizationCompressor.decompress(
        {"weight": codes.view(torch.float8_e4m3fn), "weight_scale": scale}, SCHEMES["FP8_DYNAMIC"]
    )["weight"]
    assert same_bits(fp8.values(codes, scale, torch.zeros(())), theirs)


@pytest.mark.parametrize("factor", [1.0, 0.75, 0.3])
def test_rounding_of_every_half_precision_number(factor: float):
    """All float16 numbers, every tie among them, become the bytes that they write."""
    one = torch.ones(())
    values = FINITE.unflatten(0, (-1, 32)) * factor
    scale = torch.full((len(values), 1), 127.0)
    theirs = NVFP4PackedCompressor.compress(
        {
            "weight": values,
            "weight_scale": torch.ones(len(values), 2),
            "weight_global_scale": torch.ones(1),
        },
        SCHEMES["NVFP4A16"],
    )["weight_packed"]
    assert torch.equal(float4.pack_codes(nvfp4.nearest(values, one, one, RECIPE)), theirs)
    assert torch.equal(float4.pack_codes(mxfp4.nearest(values, one, one, RECIPE)), theirs)
    theirs = FloatQuantizationCompressor.compress(
        {"weight": values, "weight_scale": torch.ones_like(scale)}, SCHEMES["FP8_DYNAMIC"]
    )["weight"]
    ours = fp8.nearest(values, one, one, RECIPE).to(torch.uint8)
    assert torch.equal(ours, theirs.view(torch.uint8))
    assert float(fp8.code_values(ours).max()) == 448  # and no NaN


def weights(rows: int, group: int) -> Tensor:
    """Groups of very different size, a group of zeros among them, [rows, 8, group]."""
    torch.manual_seed(0)
    groups = torch.randn(rows, 8, group) * torch.logspace(-4, 0, 8)[:, None]
    groups[0, 3] = 0
    return groups


def squared_error(groups: Tensor, kind, grid: tuple[Tensor, Tensor]) -> Tensor:
    scale, zero = (each[..., None] for each in grid)
    return (kind.values(kind.nearest(groups, scale, zero, RECIPE), scale, zero) - groups).square()


def test_mxfp4_scales_beat_the_specifications_and_theirs():
    groups = weights(512, 32)
    scale, zero = mxfp4.find_grid(groups, RECIPE)
    largest = groups.abs().amax(-1)
    assert torch.equal(mxfp4.scales_of(mxfp4.stored_scales(scale)), scale)
    ours = squared_error(groups, mxfp4, (scale, zero)).sum(-1)
    floor = torch.exp2((largest.log2().floor() - 2).clamp(-120, 124))
    assert bool((ours <= squared_error(groups, mxfp4, (floor, zero)).sum(-1)).all())
    qparams, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), SCHEMES["MXFP4A16"].weights)
    qparams = qparams.clamp(2.0**-120)
    theirs = squared_error(groups, mxfp4, (qparams, zero)).sum(-1)
    assert bool((ours <= theirs).all())
    assert float(ours.sum()) < float(theirs.sum())


def test_nvfp4_takes_the_better_of_two_block_scales():
    groups = weights(512, 16)
    shared = nvfp4.outer(groups, RECIPE)
    scale, zero = nvfp4.find_grid(groups, RECIPE, outer=shared)
    assert bool((shared == shared[0]).all())
    assert torch.equal(nvfp4.scales_of(nvfp4.stored_scales(scale, shared), shared), scale)
    ours = squared_error(groups, nvfp4, (scale, zero)).sum(-1)
    at_six = nvfp4.find_grid(groups, RECIPE, keep=0.99999, outer=shared)
    assert bool((ours <= squared_error(groups, nvfp4, at_six).sum(-1) * 1.0001 + 1e-20).all())
    scheme, least, most = SCHEMES["NVFP4A16"].weights, groups.amin(-1), groups.amax(-1)
    theirs = generate_gparam(least.min(), most.max())
    local, _ = calculate_qparams(least, most, scheme, theirs)
    plain = squared_error(groups, nvfp4, (local / theirs, zero)).sum()
    assert float(ours.sum()) < 0.96 * float(plain)


@pytest.mark.parametrize("kind", [fp8, mxfp4, nvfp4])
def test_zeros_and_extremes_keep_finite(kind):
    for size in (0.0, 1e-30, 1e-8, 1.0, 1e4, 1e30):
        groups = torch.randn(4, 2, 32 if kind is mxfp4 else 16) * size
        outer = kind.outer(groups, RECIPE)
        scale, zero = (each[..., None] for each in kind.find_grid(groups, RECIPE, outer=outer))
        assert bool((scale > 0).all())
        assert bool(scale.isfinite().all())
        rounded = kind.values(kind.nearest(groups, scale, zero, RECIPE), scale, zero)
        assert bool(rounded.isfinite().all())
        if size > 1e-20:
            assert float((rounded - groups).double().norm() / groups.double().norm()) < 0.15


@pytest.mark.parametrize(
    ("scheme", "given"),
    [
        ("FP8_DYNAMIC", {"type": "fp8"}),
        ("FP8", {"type": "fp8", "granularity": "tensor", "range": "static"}),
        ("FP8_BLOCK", {"type": "fp8", "granularity": "group", "group_size": 128}),
        ("MXFP4", {"type": "mxfp4"}),
        ("NVFP4", {"type": "nvfp4", "range": "static"}),
    ],
)
def test_activations_are_rounded_as_theirs(scheme: str, given: dict):
    settings = activations_of(given)
    args = preset_name_to_scheme(scheme, ["Linear"]).input_activations
    torch.manual_seed(1)
    x = torch.randn(2, 40, 256) * torch.logspace(-3, 2, 40)[:, None]
    x[0, 3, :64] = 0
    x[1, 2] = 0
    seen = x[:, :35]  # what comes later may be larger than all of calibration
    scale = static_scale(seen.flatten(0, 1), settings.type) if "range" in given else None
    static = None if scale is None else Grid(scale, torch.zeros(1), 0, 0)
    if scheme == "FP8":
        theirs = fake_quantize(x, scale, None, args)
        assert torch.equal(scale, calculate_qparams(seen.min(), seen.max(), args)[0])
    else:
        shared = None if scale is None else generate_gparam(seen.min(), seen.max())
        theirs_scale, _ = compute_dynamic_scales_and_zp(x, args, None, shared)
        theirs = torch.stack(
            [
                fake_quantize(one, of_one, None, args, global_scale=shared)
                for one, of_one in zip(x, theirs_scale, strict=True)
            ]
        )
    assert same_bits(quantize_activations(x, settings, static=static) + 0.0, theirs + 0.0)


@pytest.mark.parametrize("kind", ["fp8", "nvfp4"])
def test_a_dynamic_scale_of_a_tensor_is_of_its_real_tokens(kind: str):
    settings = Activations(type=kind, **({"granularity": "tensor"} if kind == "fp8" else {}))
    x = torch.randn(2, 6, 32)
    real = torch.ones(2, 6, dtype=torch.bool)
    real[0, :2] = False
    padded = x.masked_fill(~real[..., None], 1e6)
    alone = quantize_activations(x[:1, 2:], settings)
    assert torch.equal(quantize_activations(padded, settings, real)[:1, 2:], alone)
    assert float((alone - x[:1, 2:]).norm() / x[:1, 2:].norm()) < 0.12


def test_keys_and_values_in_eight_bits():
    """By tensor as vLLM's cache: one fixed scale. By head with a scale of each token's own."""
    x = torch.randn(2, 3, 5, 64) * 100
    fixed = kv_cache_of({"type": "fp8", "granularity": "tensor"})
    assert torch.equal(
        quantize_states(x, fixed), x.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    )
    halves = quantize_states(x, fixed, 0.5)
    assert torch.equal(halves, (x * 2).clamp(-448, 448).to(torch.float8_e4m3fn).float() / 2)
    own = quantize_states(x, KVCache(type="fp8"))
    scale = x.abs().amax(-1, keepdim=True) / 448
    assert torch.equal(own, (x / scale).to(torch.float8_e4m3fn).float() * scale)
    for kind in ("mxfp4", "nvfp4"):
        rounded = quantize_states(x, KVCache(type=kind))
        assert 0.05 < float((rounded - x).norm() / x.norm()) < 0.13
