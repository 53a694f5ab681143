"""Packed layouts, against their definitions and against PyTorch's own int4 kernel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radquant.packed.formats import (
    compressed_tensors,
    gptq,
    settings_for,
    settings_of,
    stored_format,
)
from radquant.packed.grid import QuantizedWeight, quantize
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import (
    pack,
    pack_bits,
    pack_columns,
    unpack,
    unpack_bits,
    unpack_columns,
)
from radquant.settings.recipe import Recipe


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


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([2, 3, 4, 8]), st.lists(st.integers(0, 255), min_size=1, max_size=70))
def test_words_are_one_stream_of_bits(bits: int, values: list[int]) -> None:
    values = [value % 2**bits for value in values]
    words = pack_bits(torch.tensor([values]), bits)[0].tolist()
    stream = sum(value << (place * bits) for place, value in enumerate(values))
    read = sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(words))
    assert read == stream
    assert len(words) == -(-len(values) * bits // 32)
    back = unpack_bits(torch.tensor([words], dtype=torch.int32), bits, len(values))
    assert back[0].tolist() == values


def test_three_bits_straddle_words_as_in_autogptq() -> None:
    """AutoGPTQ's own loop over ten values, one that is cut, ten values, one that is cut, ten."""
    values = [(5 * place + 3) % 8 for place in range(32)]
    words = [0, 0, 0]
    for place in range(10):
        words[0] |= values[place] << (3 * place)
        words[1] |= values[11 + place] << (3 * place + 1)
        words[2] |= values[22 + place] << (3 * place + 2)
    words[0] |= (values[10] << 30) & 0xFFFFFFFF
    words[1] |= values[10] >> 2 & 1
    words[1] |= (values[21] << 31) & 0xFFFFFFFF
    words[2] |= values[21] >> 1 & 3
    packed = pack_bits(torch.tensor(values), 3).tolist()
    assert [word & 0xFFFFFFFF for word in packed] == words


def known_weight(bits: int = 4) -> QuantizedWeight:
    """32 outputs, 64 inputs in two groups; zeros from 1."""
    out, channel = torch.arange(32)[:, None], torch.arange(64)
    zeros = 1 + (out + torch.arange(2)) % (2**bits - 1)
    return QuantizedWeight(
        ((3 * out + channel) % 2**bits).to(torch.uint8),
        torch.full((32, 2), 0.5, dtype=torch.float16),
        zeros.to(torch.uint8),
    )


def test_gptq_packs_along_the_inputs() -> None:
    weight = known_weight()
    packed = gptq.pack(weight, Recipe(method="rtn", bits=4, group_size=32))
    assert {name: tuple(tensor.shape) for name, tensor in packed.items()} == {
        "qweight": (8, 32),
        "qzeros": (2, 4),
        "scales": (2, 32),
        "g_idx": (64,),
    }
    for out, channel in ((0, 0), (5, 9), (31, 63)):
        field = packed["qweight"][channel // 8, out].item() >> (4 * (channel % 8)) & 15
        assert field == (3 * out + channel) % 16
        field = packed["qzeros"][channel // 32, out // 8].item() >> (4 * (out % 8)) & 15
        assert field == 1 + (out + channel // 32) % 15
    assert packed["g_idx"].tolist() == [0] * 32 + [1] * 32


def test_gptq_version_1_stores_zeros_less_one() -> None:
    recipe = Recipe(method="rtn", bits=4, group_size=32, zero_point=False)
    first = gptq.pack(known_weight(), recipe)
    second = gptq.pack(known_weight(), Recipe(method="rtn", bits=4, group_size=32))
    assert torch.equal(second["qzeros"] - first["qzeros"], torch.full((2, 4), 0x11111111))
    settings = settings_of(gptq.config(recipe, []))
    assert torch.equal(gptq.unpack(first, settings).zeros, known_weight().zeros)


def test_compressed_tensors_packs_weights_by_row_and_zeros_by_column() -> None:
    packed = compressed_tensors.pack(known_weight(), Recipe(method="rtn", bits=4, group_size=32))
    assert packed["weight_packed"].shape == (32, 8)
    assert packed["weight_zero_point"].shape == (4, 2)
    assert packed["weight_shape"].tolist() == [32, 64]
    for out, channel in ((0, 0), (5, 9), (31, 63)):
        # It speaks of signed values, stored with 8 added: (q − 8) + 8.
        field = packed["weight_packed"][out, channel // 8].item() >> (4 * (channel % 8)) & 15
        assert field == (3 * out + channel) % 16
        field = packed["weight_zero_point"][out // 8, channel // 32].item() >> (4 * (out % 8)) & 15
        assert field == 1 + (out + channel // 32) % 15


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, -1])
def test_compressed_tensors_own_code_reads_and_writes_the_same(
    bits: int, symmetric: bool, group_size: int
) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    torch.manual_seed(bits)
    recipe = Recipe("rtn", bits, group_size, zero_point=not symmetric)
    weight = quantize(torch.randn(40, 96), recipe)
    form = stored_format("compressed-tensors")
    config = QuantizationConfig.model_validate(form.config(recipe, ["lm_head"]))
    scheme = config.config_groups["group_0"]
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    packed = form.pack(weight, recipe)
    assert set(compressor.compression_param_names(scheme)) == packed.keys()
    exact = packed | {"weight_scale": packed["weight_scale"].float()}
    assert torch.equal(compressor.decompress(exact, scheme)["weight"], weight.dequantize())
    plain = {
        "weight": weight.dequantize(),
        "weight_scale": weight.scales.float(),
        "weight_zero_point": (weight.zeros.int() - 2 ** (bits - 1)).to(torch.int8),
    }
    theirs = compressor.compress(plain, scheme)
    read = form.unpack(theirs, settings_for(recipe, form))
    assert torch.equal(read.integers, weight.integers)
    assert torch.equal(read.zeros, weight.zeros)
