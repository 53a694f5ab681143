"""The CPU kernels against exact products of the weights that the packed integers stand for."""

import ctypes
import errno
import itertools
import mmap
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import store, tiny_llama
from tiny_reports import model_and_splits, run_script

from radquant.checkpoints.loading import load
from radquant.files import read_json
from radquant.kernels import cpu, int4pack
from radquant.kernels.choice import use_kernels
from radquant.kernels.rounding import rounding_of
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import pack_columns
from radquant.runtime.activations import Grid, grid_of_range, quantize_activations
from radquant.settings.precision import Activations

pytestmark = pytest.mark.skipif(
    cpu.unavailable() is not None and os.environ.get("CI") != "true",
    reason=f"the CPU kernels: {cpu.unavailable()}",
)
DEFAULT = settings(max_examples=40, deadline=None)


def random_layer(
    inputs: int, outputs: int, group_size: int, bits: int = 4, bias: bool = False, seed: int = 0
) -> PackedLinear:
    torch.manual_seed(seed)
    layer = PackedLinear(inputs, outputs, bits, group_size, bias)
    for words in (layer.qweight, layer.qzeros):
        words.random_(-(2**31), 2**31)
    layer.scales.uniform_(0.001, 0.05)
    if bias:
        layer.bias.normal_()
    return layer


def relative_error(y: torch.Tensor, exact: torch.Tensor, terms: torch.Tensor) -> float:
    """The largest error, relative to the sum of the magnitudes of what was added up."""
    return float(((y.double() - exact).abs() / terms.clamp(min=1e-30)).max())


def products(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x @ weight and |x| @ |weight| in float64."""
    return x.double() @ weight.double(), x.double().abs() @ weight.double().abs()


def magnitudes(layer: PackedLinear, x: torch.Tensor) -> torch.Tensor:
    """What is added up inside: q·x and zero·x, each times the scale."""
    largest = (2**layer.bits) * layer.scales.double().repeat_interleave(layer.group_size, 0)
    return x.double().abs() @ largest


layers = st.builds(
    lambda groups, group, outputs, bits, bias, seed: random_layer(
        groups * group, outputs * 8, group, bits, bias, seed
    ),
    groups=st.integers(1, 5),
    group=st.sampled_from([8, 32, 64, 128]),
    outputs=st.integers(1, 9),
    bits=st.sampled_from([4, 8]),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
rows = st.one_of(st.integers(1, 40), st.sampled_from([64, 100, 257, 512]))


def values(rows: int, inputs: int, strided: bool) -> torch.Tensor:
    """Activations of very different size, lying apart from each other if asked."""
    x = torch.randn(rows, inputs) * torch.exp(2 * torch.randn(inputs))
    return torch.stack([x, torch.full_like(x, torch.nan)], 1)[:, 0] if strided else x


@DEFAULT
@given(layer=layers, rows=rows, strided=st.booleans())
def test_float32(layer: PackedLinear, rows: int, strided: bool) -> None:
    x = values(rows, layer.in_features, strided)
    exact = x.double() @ layer.rows().double()
    y = cpu.KernelLinear(layer)(x)
    if layer.bias is not None:
        exact = exact + layer.bias.double()
    assert y.dtype == torch.float32
    assert relative_error(y, exact, magnitudes(layer, x) + exact.abs()) < 2e-6


def spread(rows: int, inputs: int, widest: int, seed: int) -> torch.Tensor:
    """Activations between 2^-widest and 2^widest, of both signs, some next to a power of 2."""
    made = torch.Generator().manual_seed(seed)
    exponents = torch.randint(-widest, widest + 1, (rows, inputs), generator=made)
    fractions = torch.rand(rows, inputs, generator=made) + 1
    fractions[torch.rand(rows, inputs, generator=made) < 0.1] = 1
    fractions[torch.rand(rows, inputs, generator=made) < 0.1] = 2 - 2**-23  # the last before one
    signs = torch.randint(0, 2, (rows, inputs), generator=made) * 2 - 1
    return torch.ldexp(fractions, exponents) * signs


@DEFAULT
@given(
    rows=st.integers(1, 20),
    bits=st.sampled_from([4, 8]),
    widest=st.sampled_from([0, 3, 20, 125]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_float32_comes_through_the_identity(
    rows: int, bits: int, widest: int, dtype: torch.dtype, seed: int
) -> None:
    """No value loses more than half a step, of which its group's largest has 0x7f7f7f or half that.

    From the smallest float32s to the largest; groups below 2^-100 have one step.
    """
    layer = PackedLinear(128, 128, bits, 64)
    layer.qweight.copy_(pack_columns(torch.eye(128, dtype=torch.int32), bits))
    layer.qzeros.zero_()
    layer.scales.fill_(1)
    x = spread(rows, 128, widest, seed)
    x[:, :40] *= 2**-20  # far from the group's largest
    x[:, 64:] *= 2**-10
    x = x.to(dtype).float()
    largest = x.abs().unflatten(1, (2, 64)).amax(2).clamp(min=2**-100).double()
    entering = cpu.BFLOATS if dtype == torch.bfloat16 else cpu.FLOATS
    y = cpu.KernelLinear(layer, entering)(x)
    off = (y.double() - x.double()).abs().unflatten(1, (2, 64)).amax(2)
    assert (off <= largest / 0x7F7F7F).all()


@DEFAULT
@given(
    inputs=st.sampled_from([576, 1536]),
    group=st.sampled_from([32, 64]),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 1000),
)
def test_fixed_point_is_closer_than_sums_of_floats(
    inputs: int, group: int, bits: int, seed: int
) -> None:
    """For inputs of like size; docs/engines.md says how far it is for others."""
    if not cpu.level().startswith("avx512"):
        pytest.skip("there is no fixed point with AVX2")
    layer = random_layer(inputs, 64, group, bits, seed=seed)
    x = torch.randn(32, inputs)
    exact = x.double() @ layer.rows().double()
    ours, theirs = (y.double() - exact for y in (cpu.KernelLinear(layer)(x), x @ layer.rows()))
    assert ours.norm() < theirs.norm()


@DEFAULT
@given(seed=st.integers(0, 1000), bits=st.sampled_from([4, 8]), rows=st.integers(1, 30))
def test_float32_sums_of_whole_numbers_are_exact(seed: int, bits: int, rows: int) -> None:
    layer = random_layer(128, 48, 64, bits, seed=seed)
    layer.scales.fill_(1)
    x = torch.randint(-300, 301, (rows, 128)).float()
    assert torch.equal(cpu.KernelLinear(layer)(x), (x.double() @ layer.rows().double()).float())


@DEFAULT
@given(layer=layers, rows=rows)
def test_bfloat16_comes_and_goes_and_is_summed_in_float32(layer: PackedLinear, rows: int) -> None:
    x = values(rows, layer.in_features, strided=False).bfloat16()
    exact = x.double() @ layer.rows().double()
    if layer.bias is not None:
        exact = exact + layer.bias.double()
    y = cpu.KernelLinear(layer)(x)
    assert y.dtype == torch.bfloat16
    rounding = 2**-8 * exact.abs()
    assert ((y.double() - exact).abs() <= rounding + 4e-6 * magnitudes(layer, x)).all()


@DEFAULT
@given(layer=layers, rows=rows, strided=st.booleans())
def test_int8_activations_are_those_that_are_simulated(
    layer: PackedLinear, rows: int, strided: bool
) -> None:
    x = values(rows, layer.in_features, strided)
    rounded = quantize_activations(x[None], Activations(bits=8))[0]
    exact = rounded.double() @ layer.rows().double()
    y = cpu.KernelLinear(layer, cpu.INTEGERS)(x)
    if layer.bias is not None:
        exact = exact + layer.bias.double()
    assert relative_error(y, exact, magnitudes(layer, rounded) + exact.abs()) < 1e-6


def some_grid(layer: PackedLinear, rounding: Activations, seed: int) -> Grid:
    made = torch.Generator().manual_seed(seed)
    by_group = rounding.granularity == "group"
    count = layer.in_features // rounding.group_size if by_group else 1
    low, high = (torch.rand(count, generator=made) * 9 for _ in range(2))
    return grid_of_range(-low, high, rounding)


@DEFAULT
@given(
    layer=layers,
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    bits=st.sampled_from([4, 8]),
    how=st.sampled_from(
        [("token", "dynamic"), *itertools.product(("tensor", "group"), ("dynamic", "static"))]
    ),
    symmetric=st.booleans(),
    keep=st.sampled_from([1.0, 0.7]),
    shift=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_int8_products_of_every_rounding(
    layer: PackedLinear,
    lengths: list[int],
    bits: int,
    how: tuple[str, str],
    symmetric: bool,
    keep: float,
    shift: float,
    seed: int,
) -> None:
    """Of sequences behind each other, each as if it were alone; 4 bits are exact in 8."""
    size = 8 if layer.in_features % 16 else 16
    rounding = Activations(
        bits=bits,
        granularity=how[0],
        range=how[1],
        symmetric=symmetric,
        group_size=size,
        clip_ratio=keep if how[1] == "dynamic" else 1.0,
    )
    static = some_grid(layer, rounding, seed) if how[1] == "static" else None
    numbers = rounding_of(rounding, static)
    x = values(sum(lengths), layer.in_features, False) + shift
    parts = [quantize_activations(p[None], rounding, None, static)[0] for p in x.split(lengths)]
    rounded = torch.cat(parts)
    kernel = cpu.KernelLinear(layer, cpu.INTEGERS, numbers)
    of_rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    y = kernel(x, of_rows)
    exact = rounded.double() @ layer.rows().double()
    if layer.bias is not None:
        exact = exact + layer.bias.double()
    assert relative_error(y, exact, magnitudes(layer, rounded) + exact.abs()) < 1e-6
    alone = [kernel(p, torch.zeros(len(p), dtype=torch.long)) for p in x.split(lengths)]
    assert torch.equal(torch.cat(alone), y)


@pytest.mark.parametrize("granularity", ["token", "tensor", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_int8_of_a_value_that_is_not_finite(granularity: str, symmetric: bool, bad: float) -> None:
    """It spoils its own token, or its own sequence, and no other."""
    rounding = Activations(bits=8, granularity=granularity, symmetric=symmetric, group_size=32)
    x = torch.randn(4, 64)
    x[1, 40] = bad
    kernel = cpu.KernelLinear(random_layer(64, 32, 32), cpu.INTEGERS, rounding_of(rounding))
    spoilt = ~kernel(x, torch.tensor([0, 0, 1, 1])).isfinite()
    expected = [granularity == "tensor", True, False, False]
    assert spoilt.any(1).tolist() == spoilt.all(1).tolist() == expected


@DEFAULT
@given(seed=st.integers(0, 1000), bits=st.sampled_from([4, 8]), rows=st.integers(1, 30))
def test_int8_sums_are_exact(seed: int, bits: int, rows: int) -> None:
    """With scales of 1 all that is left are whole numbers, which float32 holds exactly."""
    layer = random_layer(128, 48, 64, bits, seed=seed)
    layer.scales.fill_(1)
    x = torch.randint(-127, 128, (rows, 128)).float()
    x[:, 0] = 127  # so that a token's scale is 1
    y = cpu.KernelLinear(layer, cpu.INTEGERS)(x)
    assert torch.equal(y, (x.double() @ layer.rows().double()).float())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [8, 24, 64, 192, 512])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_largest_integers_do_not_overflow(bits: int, group: int, symmetric: bool) -> None:
    """Sums of a few products are kept in 16 bits with AVX2, and all are exact up to 512 inputs."""
    inputs = max(192, group)
    layer = random_layer(inputs, 48, group, bits)
    layer.qweight.fill_(-1)  # all weights are the largest
    layer.qzeros.fill_(0)
    layer.scales.fill_(1)
    x = torch.tensor([1.0, -1.0]).repeat_interleave(9)[:, None].repeat(1, inputs)
    x[:, ::7] *= -1
    how = Activations(bits=8, symmetric=symmetric)
    y = cpu.KernelLinear(layer, cpu.INTEGERS, rounding_of(how))(x)
    rounded = quantize_activations(x[None], how, None, None)[0]
    exact = rounded.double() @ layer.rows().double()
    assert relative_error(y, exact, magnitudes(layer, rounded)) < 1e-6


@DEFAULT
@given(
    rows=rows,
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 70),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    entering=st.sampled_from([cpu.FLOATS, cpu.BFLOATS]),
)
def test_dense_weights(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, entering: int
) -> None:
    weight = torch.randn(outputs, inputs * 8, dtype=dtype)
    x = torch.randn(rows, inputs * 8)
    data, kind = cpu.repack_dense(weight.float())
    assert kind == {torch.bfloat16: cpu.BF16, torch.float16: cpu.F16, torch.float32: cpu.F32}[dtype]
    y = torch.ops.radquant.linear(x, data, kind, outputs, inputs * 8, entering, None)
    entered = x.bfloat16() if entering == cpu.BFLOATS else x
    exact, terms = products(entered.float(), weight.T.float())
    assert relative_error(y, exact, terms) < 2e-6


DENSE = pytest.mark.parametrize(
    ("dtype", "entering"),
    [
        (torch.bfloat16, cpu.BFLOATS),
        (torch.bfloat16, cpu.FLOATS),
        (torch.float16, cpu.FLOATS),
        (torch.float16, cpu.BFLOATS),
        (torch.float32, cpu.FLOATS),
    ],
)


@pytest.mark.parametrize("entering", [cpu.FLOATS, cpu.BFLOATS, cpu.INTEGERS])
@pytest.mark.parametrize("group", [8, 32, 64, 96])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_does_not_depend_on_the_others_nor_on_threads(
    bits: int, group: int, entering: int
) -> None:
    """AMX takes five rows or more of bfloat16, and others compute in its order."""
    layer = cpu.KernelLinear(random_layer(192, 200, group, bits), entering)
    x = torch.randn(150, 192) * torch.randn(150, 192).exp()
    x[::3] *= 2**-120  # products without a float's full precision
    x[::5] *= 2**-128
    assert_rows_are_alone(layer, x)


@pytest.mark.parametrize(
    ("entering", "inputs"),
    [(cpu.FLOATS, 3072), (cpu.BFLOATS, 3072), (cpu.BFLOATS, 4672), (cpu.INTEGERS, 8768)],
)
@pytest.mark.parametrize("group", [32, 64, 0])
def test_a_row_does_not_depend_on_stretches_of_rows_or_inputs(
    entering: int, inputs: int, group: int
) -> None:
    """With AMX, 128 rows and 8,192 bytes of each, or a whole group, are multiplied at once.

    With AVX2 128 rows and 768 inputs of floats, or a whole group.
    """
    layer = cpu.KernelLinear(random_layer(inputs, 200, group or inputs), entering)
    x = torch.randn(150, inputs)
    x[::3] *= 2**-120
    assert_rows_are_alone(layer, x)


@pytest.mark.parametrize("outputs", [32, 40, 48, 200])
@DENSE
def test_dense_weights_in_stretches_of_rows_and_inputs(
    outputs: int, dtype: torch.dtype, entering: int
) -> None:
    """With AMX, 256 rows and 2,048 inputs are multiplied at once, 512 inputs after 512.

    Of floats 768 inputs, and of float16 weights 256 after 256. With AVX2 128 rows and 768 inputs.
    """
    weight, x = torch.randn(outputs, 4704).to(dtype), torch.randn(300, 4704)
    x = x.bfloat16().float() if entering == cpu.BFLOATS else x
    data, kind = cpu.repack_dense(weight.float())
    given = (data, kind, outputs, 4704, entering, None)
    assert_rows_are_alone(lambda rows: torch.ops.radquant.linear(rows, *given), x)
    exact, terms = products(x, weight.T.float())
    assert relative_error(torch.ops.radquant.linear(x, *given), exact, terms) < 2e-6


@DENSE
def test_a_last_stretch_of_few_dense_rows(dtype: torch.dtype, entering: int) -> None:
    """With AMX, 1,800 rows are seven stretches of 256 rows and one of 8."""
    x = torch.randn(1800, 2144)
    data, kind = cpu.repack_dense(torch.randn(40, 2144).to(dtype).float())
    given = (data, kind, 40, 2144, entering, None)
    together = torch.ops.radquant.linear(x, *given)
    assert torch.equal(together[-40:], torch.ops.radquant.linear(x[-40:], *given))


@pytest.mark.parametrize("entering", [cpu.FLOATS, cpu.BFLOATS, cpu.INTEGERS])
def test_a_last_stretch_of_few_rows(entering: int) -> None:
    """With AMX, 400 rows are three stretches of 128 rows and one of 16."""
    layer, x = cpu.KernelLinear(random_layer(8768, 40, 32), entering), torch.randn(400, 8768)
    assert torch.equal(layer(x)[-40:], layer(x[-40:]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("largest", [1, 2**-13])
def test_floats_are_multiplied_in_full(dtype: torch.dtype, largest: float) -> None:
    """With AMX floats are three bfloat16 each, and float16 weights two. None may be left out."""
    weight = (torch.randn(48, 96) * largest).to(dtype)  # small ones lack float16's full precision
    x = torch.diag(torch.randn(96) * torch.randn(96).exp())
    data, kind = cpu.repack_dense(weight.float())
    y = torch.ops.radquant.linear(x, data, kind, 48, 96, cpu.FLOATS, None)
    exact = x.double() @ weight.T.double()
    assert ((y.double() - exact).abs() <= 2**-22 * exact.abs()).all()


def assert_rows_are_alone(product: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    alone = torch.cat([product(row[None]) for row in x])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for count in (2, 3, 4, 5, 12, 15, 16, 17, 31, 32, 33, 47, 49, 130, 257, 273, len(x)):
                assert torch.equal(product(x[:count]), alone[:count])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("inputs", [32, 40, 96, 3200])
@pytest.mark.parametrize("outputs", [8, 16, 40, 200])
@DENSE
def test_a_dense_row_does_not_depend_on_the_others_nor_on_threads(
    inputs: int, outputs: int, dtype: torch.dtype, entering: int
) -> None:
    """AMX adds up bfloat16 in its own order, for any number of rows."""
    data, kind = cpu.repack_dense(torch.randn(outputs, inputs).to(dtype).float())
    x = torch.randn(150, inputs)
    x[::3] *= 2**-120
    x[::5] *= 2**-128
    given = (data, kind, outputs, inputs, entering, None)
    assert_rows_are_alone(lambda rows: torch.ops.radquant.linear(rows, *given), x)


def test_rows_in_order_of_activation() -> None:
    layer = random_layer(64, 32, 32)
    layer.order = torch.randperm(64).int()
    x = torch.randn(5, 64)
    torch.testing.assert_close(cpu.KernelLinear(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


# Infinity of either sign, and NaN: the usual one, and those whose bits are the largest.
NOT_FINITE = pytest.mark.parametrize("bad", [0x7F800000, -0x800000, 0x7FC00000, 0x7FFFFFFF, -1])


@NOT_FINITE
@pytest.mark.parametrize("entering", [cpu.FLOATS, cpu.BFLOATS, cpu.INTEGERS])
@pytest.mark.parametrize("rows", [2, 20])
def test_a_value_that_is_not_finite_is_not_hidden(bad: int, entering: int, rows: int) -> None:
    x = torch.randn(rows, 64)
    x.view(torch.int32)[0, 3] = bad
    y = cpu.KernelLinear(random_layer(64, 32, 32), entering)(x)
    assert not y[0].isfinite().any()
    assert y[1:].isfinite().all()


@NOT_FINITE
@pytest.mark.parametrize("rows", [2, 20])
@DENSE
def test_a_value_that_is_not_finite_is_not_hidden_by_dense_weights(
    bad: int, rows: int, dtype: torch.dtype, entering: int
) -> None:
    x = torch.randn(rows, 64)
    x.view(torch.int32)[0, 3] = bad
    data, kind = cpu.repack_dense(torch.randn(32, 64).to(dtype).float())
    y = torch.ops.radquant.linear(x, data, kind, 32, 64, entering, None)
    assert not y[0].isfinite().any()
    assert y[1:].isfinite().all()


def test_zeros_and_no_rows() -> None:
    layer = cpu.KernelLinear(random_layer(64, 32, 32), cpu.INTEGERS)
    assert torch.equal(layer(torch.zeros(3, 64)), torch.zeros(3, 32))
    assert layer(torch.zeros(0, 64)).shape == (0, 32)
    assert layer(torch.randn(2, 3, 64)).shape == (2, 3, 32)


def test_what_does_not_fit_is_refused() -> None:
    layer = cpu.KernelLinear(random_layer(64, 32, 32))
    multiply = torch.ops.radquant.linear
    x = torch.randn(2, 64)
    with pytest.raises(RuntimeError, match="not the bytes"):
        multiply(x, layer.weight_bytes, cpu.W4, 48, 32, cpu.FLOATS, None)
    with pytest.raises(RuntimeError, match="do not fit"):
        multiply(x[:, :40], layer.weight_bytes, cpu.W4, 32, 32, cpu.FLOATS, None)
    with pytest.raises(RuntimeError, match="unknown kind or input"):
        multiply(x, layer.weight_bytes, cpu.W4, 32, 32, 3, None)
    with pytest.raises(RuntimeError, match="float32 or bfloat16"):
        multiply(x.half(), layer.weight_bytes, cpu.W4, 32, 32, cpu.FLOATS, None)
    with pytest.raises(RuntimeError, match="no integers"):
        multiply(x, torch.zeros(8192, dtype=torch.uint8), cpu.F32, 32, 64, cpu.INTEGERS, None)


def test_operators_can_be_traced() -> None:
    layer = cpu.KernelLinear(random_layer(64, 32, 32, bias=True))
    samples = (torch.randn(2, 64), layer.weight_bytes, cpu.W4, 32, 32, cpu.FLOATS, layer.bias)
    torch.library.opcheck(
        torch.ops.radquant.linear.default,
        samples,
        test_utils=("test_schema", "test_faketensor"),
    )


def guarded(size: int) -> tuple[torch.Tensor, mmap.mmap]:
    """`size` bytes that end where a page begins that must not be touched."""
    page = mmap.PAGESIZE
    length = -(-size // page) * page
    area = mmap.mmap(-1, length + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + length), page, 0) == 0
    return torch.frombuffer(area, dtype=torch.uint8, count=size, offset=length - size), area


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("entering", [cpu.FLOATS, cpu.BFLOATS, cpu.INTEGERS])
def test_nothing_behind_weights_and_activations_is_read(bits: int, entering: int) -> None:
    layer = cpu.KernelLinear(random_layer(192, 40, 64, bits), entering)
    expected_of = {}
    for rows in (1, 2, 5, 12, 13, 16, 17, 33):
        x = torch.randn(rows, 192)
        expected_of[rows] = (x, layer(x))
    weights, _ = guarded(layer.weight_bytes.numel())
    weights.copy_(layer.weight_bytes)
    layer.weight_bytes = weights
    for rows, (x, expected) in expected_of.items():
        place, _ = guarded(rows * 192 * 4)
        behind = place.view(torch.float32).view(rows, 192)
        behind.copy_(x)
        assert torch.equal(layer(behind), expected)


@pytest.mark.parametrize("inputs", [96, 2144])
@pytest.mark.parametrize("outputs", [24, 40, 48])
@DENSE
def test_nothing_behind_dense_weights_is_read(
    inputs: int, outputs: int, dtype: torch.dtype, entering: int
) -> None:
    data, kind = cpu.repack_dense(torch.randn(outputs, inputs).to(dtype).float())
    weights, _ = guarded(data.numel())
    weights.copy_(data)
    for rows in (1, 16, 17, 33):
        x = torch.randn(rows, inputs)
        expected, y = (
            torch.ops.radquant.linear(x, given, kind, outputs, inputs, entering, None)
            for given in (data, weights)
        )
        assert torch.equal(y, expected)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["avx2", "avx512-vnni"])
def test_older_processors_compute_the_same(level: str, tmp_path: Path) -> None:
    """The same tests with fewer instructions, as RADQUANT_CPU_LEVEL allows."""
    chosen = "float32 or bfloat16_comes or int8 or dense or row_does or finite or behind"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [__file__, "-k", chosen, "--basetemp", str(tmp_path / "tests")]
    environment = {**os.environ, "RADQUANT_CPU_LEVEL": level}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


PRODUCTS = """
import sys, torch
from test_cpu_kernels import random_layer
from radquant.kernels import cpu
assert cpu.unavailable() is None
torch.set_num_threads(int(sys.argv[2]))
torch.manual_seed(3)
made = {}
for bits in (4, 8):
    for group in (32, 64, 96, 128, 384):
        for outputs in (8, 40, 200):
            for entering in (cpu.FLOATS, cpu.INTEGERS):
                layer = cpu.KernelLinear(random_layer(384, outputs, group, bits), entering)
                for rows in (1, 15, 16, 17, 31, 32, 33, 70, 1100):
                    x = torch.randn(rows, 384) * torch.randn(rows, 1).exp()
                    made[bits, group, outputs, entering, rows] = layer(x)
    for entering in (cpu.FLOATS, cpu.INTEGERS):
        for group in (32, 64, 8576):
            layer = cpu.KernelLinear(random_layer(8576, 200, group, bits), entering)
            made[bits, group, entering, "in stretches"] = layer(torch.randn(300, 8576))
torch.save([cpu.level(), made], sys.argv[1])
"""


@pytest.mark.slow
def test_tiles_of_amx_give_the_same_bits(tmp_path: Path) -> None:
    if not cpu.level().endswith("amx"):
        pytest.skip("the processor has no AMX")
    found = {}
    for level, threads in (("", 1), ("", 2), ("avx512-vnni-bf16", 1)):
        saved = tmp_path / f"{level}-{threads}.pt"
        environment = {**os.environ, "RADQUANT_CPU_LEVEL": level}
        subprocess.run(
            [sys.executable, "-c", PRODUCTS, str(saved), str(threads)],
            env=environment,
            cwd=Path(__file__).parent,
            check=True,
        )
        found[level, threads] = torch.load(saved)
    (used, tiles), (_, shared), (old, lines) = found.values()
    assert used == cpu.level()
    assert old == "avx512-vnni-bf16"
    for name, expected in lines.items():
        assert torch.equal(tiles[name], expected), name
        assert torch.equal(shared[name], expected), name


@pytest.mark.slow
def test_address_sanitizer_finds_nothing(tmp_path: Path) -> None:
    """Every kind, input and number of rows once, in a library compiled to watch its memory.

    AMX's tiles are loops there, so they are watched. Processors without AMX run that code, too,
    if they have AVX-512's products of bfloat16.
    """
    cxx = cpu.compiler()
    assert cxx is not None
    names = ("linear.cpp", "linear_amx.cpp", "linear_avx512.cpp", "linear_avx2.cpp")
    names += ("rounding.cpp", "ops.cpp")
    sources = [cpu.SOURCES / name for name in names]
    library = tmp_path / "watched.so"
    tiles = ["-include", str(Path(__file__).with_name("tiles_in_software.h"))]
    cpu.build(cxx, sources, library, [*cpu.FLAGS, "-O1", "-g", "-fsanitize=address", *tiles])
    runtime = subprocess.run(
        [cxx, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    program = Path(__file__).with_name("watched_kernels.py")
    for level in ("", "avx2"):
        done = subprocess.run(
            [sys.executable, str(program), str(library)],
            env={
                **os.environ,
                "LD_PRELOAD": runtime,
                "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
                "RADQUANT_CPU_LEVEL": level,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "all products done" in done.stdout


# ------------------------------------------------------------------------- without a compiler


@DEFAULT
@given(
    groups=st.integers(1, 4),
    group=st.sampled_from(int4pack.GROUPS),
    outputs=st.integers(1, 5),
    bias=st.booleans(),
    rows=rows,
    strided=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_pytorchs_product(
    groups: int, group: int, outputs: int, bias: bool, rows: int, strided: bool, seed: int
) -> None:
    layer = random_layer(groups * group, outputs * 16, group, 4, bias, seed)
    assert int4pack.fits(layer)
    x = values(rows, layer.in_features, strided).bfloat16()
    exact = x.double() @ layer.rows().double()
    # Of q − 8 and of 8 − zero, each with a scale that is rounded, and then the weight itself.
    terms = magnitudes(layer, x) * 2
    if layer.bias is not None:
        exact = exact + layer.bias.double()
        terms = terms + layer.bias.double().abs()
    assert relative_error(int4pack.Int4PackLinear(layer)(x), exact, terms) < 2**-8


@pytest.mark.parametrize("changed", [{"group_size": 16}, {"outputs": 24}, {"bits": 8}])
def test_what_pytorch_does_not_take(changed: dict[str, int]) -> None:
    asked = {"inputs": 64, "outputs": 32, "group_size": 32, "bits": 4} | changed
    assert not int4pack.fits(random_layer(**asked))


@pytest.mark.parametrize(
    ("dtype", "kernel", "said"),
    [
        (torch.bfloat16, "PyTorch int4pack", "PyTorch's own 4-bit product: there is no C++ comp"),
        (torch.float32, "reference", "the slow reference: there is no C++ compiler"),
    ],
)
@torch.inference_mode()
def test_without_a_compiler(
    dtype: torch.dtype,
    kernel: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = tiny_llama(tmp_path / "original", hidden_size=64, intermediate_size=128)
    loaded = load(store(original, tmp_path / "rtn", "--method", "rtn"), dtype=dtype)
    ids = torch.arange(12)[None]
    expected = loaded.model(ids).logits
    monkeypatch.setenv("CXX", "no-such-compiler")
    cpu.unavailable.cache_clear()
    try:
        use_kernels(loaded)
    finally:
        monkeypatch.undo()
        cpu.unavailable.cache_clear()
    assert loaded.kernel == kernel
    assert said in capsys.readouterr().err
    found = loaded.model(ids).logits
    assert (found - expected).norm() < 0.05 * expected.norm()
    assert (dtype == torch.float32) == torch.equal(found, expected)


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The kernels are looked for anew, now and afterwards."""
    cpu.unavailable.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    cpu.unavailable.cache_clear()


PLACES = ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME", "HOME")


@pytest.mark.parametrize("variable", PLACES)
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/dev/null", "Not a directory|File exists"),
        ("/dev/null/below", "Not a directory"),
        ("/proc/nothing", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("/sys", "Read-only file system|Permission denied|Operation not permitted"),
    ],
)
def test_a_place_where_nothing_can_be_kept(
    not_loaded: pytest.MonkeyPatch, variable: str, place: str, said: str
) -> None:
    for name in PLACES[: PLACES.index(variable)]:
        not_loaded.delenv(name, raising=False)
    not_loaded.setenv(variable, place)
    reason = cpu.unavailable()
    assert reason is not None
    assert re.search(rf"cannot be built or loaded, ({said}) \(.*set TORCH_EXTENSIONS_DIR", reason)


def test_a_user_without_a_home(not_loaded: pytest.MonkeyPatch) -> None:
    for name in PLACES:
        not_loaded.delenv(name, raising=False)
    not_loaded.setattr(os, "getuid", lambda: 2**31 - 7)  # no user has it
    assert "there is no home directory" in (cpu.unavailable() or "")


def test_a_disk_that_is_full(not_loaded: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    not_loaded.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    not_loaded.setattr(tempfile, "TemporaryDirectory", full)
    assert "No space left on device; set" in (cpu.unavailable() or "")


def test_a_library_that_is_none(not_loaded: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cxx = cpu.compiler()
    assert cxx is not None
    (tmp_path / cpu.built_library(cxx).name).touch()
    not_loaded.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert "cannot be built or loaded, Could not load this library" in (cpu.unavailable() or "")


def test_generating_falls_back_and_says_why(
    not_loaded: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = model_and_splits(tmp_path)
    not_loaded.setenv("TORCH_EXTENSIONS_DIR", "/dev/null/below")
    run_script("generate", data, tmp_path / "x", "--max-new-tokens", "4", model="checkpoint")
    record = read_json(tmp_path / "x.json")
    assert (record["engine"], record["kernel"]) == ("transformers", "reference")
    lines = [line for line in capsys.readouterr().err.splitlines() if "slow reference" in line]
    assert len(lines) == 1
    assert "Not a directory (/dev/null/below)" in lines[0]
