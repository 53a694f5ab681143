"""AutoAWQ's GEMM layout, against its definition and against PyTorch's own int4 kernel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radquant.kernels.reference import PackedLinear
from radquant.quantization.grid import Recipe, quantize
from radquant.quantization.packing import pack, pack_columns, unpack, unpack_columns


def test_the_published_nibble_order() -> None:
    words = pack_columns(torch.arange(8)[None], 4)
    assert words.item() == 0x75316420


def test_eight_bit_order() -> None:
    words = pack_columns(torch.tensor([[0, 1, 2, 3]]), 8)
    assert words.item() == 0x03010200


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([4, 8]), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**31))
def test_packing_loses_nothing(bits: int, rows: int, words: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(0, 2**bits, (rows, words * 32 // bits), generator=generator)
    packed = pack_columns(integers, bits)
    assert packed.shape == (rows, words)
    assert packed.dtype == torch.int32
    assert torch.equal(unpack_columns(packed, bits).long(), integers)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_packed_layer_multiplies_by_the_quantized_weights(
    bits: int, zero_point: bool, group_size: int
) -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(48, 256), torch.randn(3, 5, 256)
    recipe = Recipe("rtn", bits, group_size, zero_point)
    quantized = quantize(weight, recipe)
    packed = pack(quantized, bits)
    assert torch.equal(unpack(packed, bits).dequantize(), quantized.dequantize())
    layer = PackedLinear(256, 48, bits, group_size)
    layer.load_state_dict(packed)
    assert torch.equal(layer.dequantize().T, quantized.dequantize())
    expected = torch.nn.functional.linear(x, quantized.dequantize())
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-4)


def test_equals_pytorchs_int4_kernel() -> None:
    torch.manual_seed(2)
    out, width, group = 32, 128, 32
    quantized = quantize(torch.randn(out, width), Recipe("rtn", 4, group))
    layer = PackedLinear(width, out, 4, group)
    layer.load_state_dict(pack(quantized, 4))
    x = torch.randn(8, width).bfloat16()
    weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(quantized.integers.int(), 1)
    scales, zeros = quantized.scales.float().T, quantized.zeros.float().T
    scales_and_zeros = torch.stack([scales, (8 - zeros) * scales], -1).bfloat16().contiguous()
    theirs = torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight, group, scales_and_zeros)
    torch.testing.assert_close(layer(x).float(), theirs.float(), rtol=0.05, atol=0.15)
