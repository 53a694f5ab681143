"""The Triton kernels under Triton's interpreter: a process of its own runs these, with
TRITON_INTERPRET=1 (tests/test_triton_kernels.py).

Everything in float16 or float32: the interpreter computes wrongly in bfloat16.
"""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_product import int8_forward
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from radquant.errors import UserError
from radquant.kernels import triton_layout, triton_linear, triton_model
from radquant.kernels.triton_layout import repack
from radquant.kernels.triton_linear import (
    Tile,
    linear_int8,
    linear_w4a8,
    linear_w4a16,
    quantize_by_token,
)
from radquant.kernels.triton_model import BY_TOKEN, install
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import pack_columns
from radquant.packed.progressive_linear import ProgressiveLinear
from radquant.runtime.activations import attach, grid_of_range, quantize_activations
from radquant.settings.precision import Activations

GROUPS = st.sampled_from([32, 64, 96, 128, -1])


def random_layer(
    inputs: int,
    outputs: int,
    group_size: int,
    bias: bool = False,
    ordered: bool = False,
    progressive: bool = False,
    seed: int = 0,
) -> PackedLinear:
    """A layer with every field and zero point of 4 bits."""
    generator = torch.Generator().manual_seed(seed)

    def integers(rows: int, low: int, high: int) -> Tensor:
        size = (rows, outputs)
        return torch.randint(low, high, size, generator=generator, dtype=torch.int32)

    kind = ProgressiveLinear if progressive else PackedLinear
    layer = kind(inputs, outputs, 4, group_size, bias, ordered)
    groups = inputs // layer.group_size
    fields, zeros = integers(inputs, 0, 16), integers(groups, 0, 16)
    if isinstance(layer, ProgressiveLinear):
        # (field − zero)·scale must be INT8: 15·8 is, and 16 needs a zero in the middle.
        layer.scales.copy_(integers(groups, 1, 9))
        middle = integers(groups, 0, 2).bool()
        layer.scales[middle], zeros[middle] = 16, 8
        fields.clamp_(max=15)
        layer.channel_scales.copy_(torch.rand(outputs, generator=generator) * 0.01 + 1e-4)
    else:
        layer.scales.copy_(torch.rand(layer.scales.shape, generator=generator) * 0.1 + 1e-3)
    layer.qweight.copy_(pack_columns(fields, 4))
    layer.qzeros.copy_(pack_columns(zeros, 4))
    if layer.bias is not None:
        layer.bias.copy_(torch.randn(outputs, generator=generator))
    if layer.order is not None:
        layer.order.copy_(torch.randperm(inputs, generator=generator))
    return layer


def exact(x: Tensor, layer: PackedLinear) -> tuple[Tensor, Tensor]:
    """x·W + bias, and the sum of what was added in absolute value, both float64."""
    weight = layer.dequantize().double()
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
    x = x.double()
    return x @ weight + bias.double(), x.abs() @ weight.abs() + bias.double().abs()


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Inputs, outputs and group size of a layer that the kernels take."""
    group_size = draw(GROUPS)
    unit = 32 if group_size == -1 else group_size
    inputs = unit * draw(st.integers(1, max(1, 640 // unit)))
    return inputs, 8 * draw(st.integers(1, 20)), group_size


@settings(max_examples=20, deadline=None)
@given(shapes(), st.integers(1, 70), st.booleans(), st.booleans(), st.integers(0, 99))
def test_w4a16(
    shape: tuple[int, int, int], tokens: int, bias: bool, ordered: bool, seed: int
) -> None:
    layer = random_layer(*shape, bias, ordered, seed=seed)
    x = torch.randn(tokens, layer.in_features, generator=torch.Generator().manual_seed(seed)).half()
    expected, size = exact(x, layer)
    # FP32 sums of at most 640 products; the result, and its sum with the bias, rounded to float16.
    bound = 2e-6 * size + 2**-11 * (2 * expected.abs() + size * bias) + 1e-7
    y = linear_w4a16(x, repack(layer))
    assert y.dtype == torch.float16
    assert ((y.double() - expected).abs() <= bound).all()


@settings(max_examples=15, deadline=None)
@given(shapes(), st.integers(1, 70), st.booleans(), st.integers(0, 99))
def test_w4a8(shape: tuple[int, int, int], tokens: int, ordered: bool, seed: int) -> None:
    """In float32, on the grid of the simulated activations."""
    layer = random_layer(*shape, True, ordered, seed=seed)
    x = torch.randn(tokens, layer.in_features, generator=torch.Generator().manual_seed(seed))
    expected, size = exact(quantize_activations(x[None], BY_TOKEN)[0], layer)
    y = linear_w4a8(x, repack(layer))
    assert ((y.double() - expected).abs() <= 1e-6 * size).all()


@settings(max_examples=10, deadline=None)
@given(shapes(), st.integers(1, 70), st.integers(0, 99))
def test_integer_sums_are_exact(shape: tuple[int, int, int], tokens: int, seed: int) -> None:
    """With scales of 1 all is whole, below 2^24, and equal to the product in int64."""
    layer = random_layer(*shape, seed=seed)
    layer.scales.fill_(1)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-127, 128, (tokens, layer.in_features), generator=generator).to(torch.int8)
    y = linear_int8(x, torch.ones(tokens), repack(layer), torch.float32)
    assert torch.equal(y.long(), x.long() @ layer.rows().long())


@settings(max_examples=10, deadline=None)
@given(shapes(), st.integers(1, 70), st.booleans(), st.integers(0, 99))
def test_progressive(shape: tuple[int, int, int], tokens: int, bias: bool, seed: int) -> None:
    """Bit for bit the reference's product in integers, with its epilogue."""
    layer = random_layer(*shape, bias, progressive=True, seed=seed)
    assert isinstance(layer, ProgressiveLinear)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-127, 128, (tokens, layer.in_features), generator=generator).to(torch.int8)
    scales = torch.rand(tokens, generator=generator)
    y = linear_int8(x, scales, repack(layer), torch.float16)
    assert torch.equal(y, int8_forward(layer, x, scales))


def test_progressive_weights_in_floating_point() -> None:
    layer = random_layer(256, 40, 64, progressive=True)
    x = torch.randn(5, 256, generator=torch.Generator().manual_seed(0)).half()
    expected, size = exact(x, layer)
    y = linear_w4a16(x, repack(layer)).double()
    assert ((y - expected).abs() <= 2e-6 * size + 2**-10 * expected.abs() + 1e-7).all()


EVERY_TILE = itertools.chain(triton_linear.WHOLE_TILES, *triton_linear.TILES.values())
SIZES = sorted({(tile.outputs, tile.tokens) for tile in EVERY_TILE})


@pytest.mark.parametrize(("outputs", "tokens"), SIZES)
def test_every_tile(outputs: int, tokens: int) -> None:
    """On whole numbers, whose sums are exact in any order; over the tile's edges, without parts."""
    tile = Tile(outputs, tokens, 4, 3)
    tokens, outputs = tokens + 3, outputs + 8
    layer = random_layer(320, outputs, 64)
    layer.scales.fill_(0.5)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-9, 10, (tokens, 320), generator=generator).to(torch.int8)
    packed = repack(layer)
    assert triton_linear.splits(tokens, outputs, len(packed.tiles)) == 1
    weights = (packed.tiles, packed.scale_zero, None, None, 64, torch.float32, tile)
    expected = x.float() @ layer.rows()
    assert torch.equal(triton_linear.product(x.half(), None, *weights), expected)
    assert torch.equal(triton_linear.product(x, torch.ones(tokens), *weights), expected)


def test_noncontiguous_inputs_and_leading_dimensions() -> None:
    layer = random_layer(128, 24, 64)
    packed = repack(layer)
    wide = torch.randn(2, 3, 256, generator=torch.Generator().manual_seed(0)).half()
    x = wide[..., ::2].transpose(0, 1)
    assert torch.equal(linear_w4a16(x, packed), linear_w4a16(x.contiguous(), packed))
    assert linear_w4a16(x, packed).shape == linear_w4a8(x, packed).shape == (3, 2, 24)
    assert linear_w4a16(x[0, 0], packed).shape == (24,)
    assert linear_w4a8(x[:0], packed).shape == linear_w4a16(x[:0], packed).shape == (0, 2, 24)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from([torch.float16, torch.float32]),
    st.floats(-8, 4),
    st.integers(0, 99),
)
def test_quantized_tokens(channels: int, dtype: torch.dtype, size: float, seed: int) -> None:
    """The same integers and scales as the simulation's grid, bit for bit."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(4, channels, generator=generator) * 10**size).to(dtype)
    x[1] = 0
    grid = grid_of_range(x.amin(-1, keepdim=True), x.amax(-1, keepdim=True), BY_TOKEN)
    integers, scales = quantize_by_token(x, None, 0.0, False)
    assert torch.equal(scales, grid.scale[:, 0])
    expected = (x.float() / grid.scale).round().clamp(-127, 127)
    assert torch.equal(integers.float(), expected)


def test_ties_are_rounded_to_even() -> None:
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5]])
    integers, _ = quantize_by_token(x, None, 0.0, False)
    assert integers.tolist() == [[127, 0, 2, 2, 0, -2, -126]]


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_nan_is_not_hidden() -> None:
    x = torch.randn(2, 64)
    x[1, 7] = float("nan")
    y = linear_w4a8(x, repack(random_layer(64, 8, 32)))
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("gemma", [False, True])
def test_fused_norm(dtype: torch.dtype, gemma: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = Gemma3RMSNorm(576, 1e-6) if gemma else LlamaRMSNorm(576, 1e-6)
    norm = norm.to(dtype).requires_grad_(False)
    norm.weight.copy_(torch.randn(576, generator=generator))
    x = (3 * torch.randn(9, 576, generator=generator)).to(dtype)
    integers, scales = quantize_by_token(x, norm.weight, 1e-6, gemma)
    expected, expected_scales = quantize_by_token(norm(x), None, 0.0, False)
    # The mean of squares is summed in another order: a last bit of the norm, rarely a level.
    torch.testing.assert_close(scales, expected_scales, rtol=1e-3, atol=0)
    apart = (integers.int() - expected.int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 0.01


def test_operators() -> None:
    """Schema, and the fake kernels with which torch.compile traces."""
    packed = repack(random_layer(64, 24, 32, bias=True))
    x = torch.randn(3, 64).half()
    integers, scales = quantize_by_token(x, None, 0.0, False)
    weights = (packed.tiles, packed.scale_zero, None, packed.bias, 32)
    checks = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(triton_linear.w4a16, (x, *weights), **checks)
    torch.library.opcheck(triton_linear.w4a8, (integers, scales, *weights, torch.float16), **checks)
    torch.library.opcheck(quantize_by_token, (x, None, 0.0, False), **checks)


def packed_llama(dtype: torch.dtype = torch.float16) -> LlamaForCausalLM:
    """A tiny Llama of random weights, whose linear layers but the head are packed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    for place, (name, linear) in enumerate(list(model.model.named_modules())):
        if isinstance(linear, torch.nn.Linear):
            layer = random_layer(linear.in_features, linear.out_features, 32, seed=place)
            layer.scales.mul_(0.2)
            model.model.set_submodule(name, layer)
    return model


def logits(model: torch.nn.Module) -> Tensor:
    ids = torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(3))
    return model(input_ids=ids).logits.float()


def test_installed_in_a_model() -> None:
    model = packed_llama()
    expected = logits(model)
    stored = sum(b.nbytes for b in model.buffers())
    assert install(model) == "triton (W4A16)"
    torch.testing.assert_close(logits(model), expected, rtol=0.02, atol=0.02)
    # What was stored is gone; a group takes 32 bits beside its weights instead of 20.
    assert sum(b.nbytes for b in model.buffers()) < 1.1 * stored


def test_installed_with_activations() -> None:
    model = packed_llama()
    settings = Activations(bits=8, skip=("down_proj",))
    mlp = model.model.layers[1].mlp
    up, down = repack(mlp.up_proj), repack(mlp.down_proj)
    simulated = copy.deepcopy(model)
    names = {n: m for n, m in simulated.named_modules() if isinstance(m, PackedLinear)}
    attach(simulated, names, settings)
    assert install(model, settings) == "triton (W4A8 in 12 layers, W4A16 in 2 layers)"
    torch.testing.assert_close(logits(model), logits(simulated), rtol=0.03, atol=0.03)
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)).half()
    assert torch.equal(mlp.up_proj(x), linear_w4a8(x, up))
    wide = mlp.up_proj(x)
    assert torch.equal(mlp.down_proj(wide), linear_w4a16(wide, down))


def test_what_is_left_to_the_reference() -> None:
    model = packed_llama()
    layer = PackedLinear(64, 64, 8, 32)
    model.model.layers[0].self_attn.q_proj = layer
    with pytest.raises(UserError, match=r"cannot round the input of model\.layers\.0\.self_attn"):
        install(model, BY_TOKEN)
    text = install(model)
    assert text == "triton (W4A16); reference (1 layers with 8-bit fields)"
    assert layer.qweight.shape == (64, 16)
    assert logits(model).isfinite().all()


def test_wrong_products_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layer: PackedLinear) -> triton_layout.KMajorWeight:
        packed = repack(layer)
        packed.tiles[0, 0, 0] ^= 0x10  # one weight, by one level
        return packed

    monkeypatch.setattr(triton_model, "repack", wrong)
    with pytest.raises(UserError, match=r"multiply model.layers.0.self_attn.q_proj wrongly"):
        install(packed_llama())


def test_refusals() -> None:
    with pytest.raises(UserError, match=r"not torch\.float32"):
        install(packed_llama(torch.float32))
    with pytest.raises(UserError, match="symmetric INT8"):
        install(packed_llama(), Activations(bits=8, symmetric=False))
    with pytest.raises(UserError, match="8-bit fields"):
        repack(PackedLinear(64, 8, 8, 32))
    layer = random_layer(64, 8, 32)
    layer.scales = layer.scales.float() + 1e-7
    assert "float16" in str(triton_layout.why_not(layer))
    with pytest.raises(ValueError, match="96 inputs"):
        linear_w4a16(torch.randn(1, 96).half(), repack(random_layer(64, 8, 32)))


def test_a_cache_that_cannot_be_written_leaves_every_layer_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = packed_llama()
    expected, checked = logits(model), []

    def check(name: str, *others: object) -> None:
        checked.append(name)
        if len(checked) > 1:  # the disk is full by then
            raise PermissionError

    monkeypatch.setattr(triton_model, "check", check)
    with pytest.raises(PermissionError):
        install(model)
    assert torch.equal(logits(model), expected)
