"""The Triton kernels without a GPU: under the interpreter, and compiled for one."""

import contextlib
import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from radquant.errors import UserError
from radquant.kernels import triton_kernels as kernels
from radquant.kernels import triton_unpack
from radquant.kernels.triton_layout import half_block, repack
from radquant.kernels.triton_linear import TILES, Tile, linear_w4a16, shared_bytes, splits, tiles
from radquant.kernels.triton_model import install
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import pack_columns

REPOSITORY = Path(__file__).parents[1]
HOPPER = GPUTarget("cuda", 90, 32)
SHARED_OF_HOPPER = 227 * 1024  # bytes that a program may have


@pytest.mark.slow
def test_under_the_interpreter() -> None:
    """tests/triton_interpreted.py, which needs a process that imports Triton as interpreter."""
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/triton_interpreted.py"],
        cwd=REPOSITORY,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert re.search(r"\d\d passed", done.stdout)


@pytest.fixture
def compiler_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What ptxas says of the kernels compiled meanwhile; none comes from a cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.knobs.nvidia, "dump_ptxas_log", True)
    return io.StringIO()


def compiled(function: Any, types: dict[str, str], log: io.StringIO, **options: Any) -> Any:
    """`function` compiled for an H100 or H200. types: of its arguments; the others, constants, and
    the compiler's options are in `options`. Pointers and sizes are multiples of 16."""
    names = function.arg_names
    constants = {name: value for name, value in options.items() if name in names}
    flags = {name: value for name, value in options.items() if name not in names}
    signature = {name: types.get(name, "constexpr") for name in names}
    aligned = [n for n in names if types.get(n, "").startswith("*") or (n in "NK" and n in types)]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(function, signature, constants, attributes)
    with contextlib.redirect_stdout(log):
        return triton.compile(source, target=HOPPER, options=flags)


def product_for_hopper(
    x: str, tile: Tile, log: io.StringIO, group_size: int = 128, **options: Any
) -> Any:
    pointers = {"x_ptr": x, "tiles_ptr": "u8", "words_ptr": "i32", "bias_ptr": "fp16"}
    pointers |= {"token_scales_ptr": "fp32", "channel_scales_ptr": "fp32"}
    pointers["out_ptr"] = options.pop("out_ptr", "fp16" if x == "i8" else x)
    types = {name: f"*{kind}" for name, kind in pointers.items()}
    types |= dict.fromkeys(("M", "N", "K", "blocks", "last_group"), "i32")
    constants: dict[str, Any] = {
        "GROUP": group_size,
        "HALF": half_block(group_size),
        "SPLITS": 1,
        "PROGRESSIVE": False,
        "BIAS": True,
        "EVEN": True,
        "ASSEMBLY": True,
        "BN": tile.outputs,
        "BM": tile.tokens,
    }
    flags = {"num_warps": tile.warps, "num_stages": tile.stages}
    return compiled(kernels.product, types, log, **{**constants, **flags, **options})


def spilled(log: io.StringIO) -> list[int]:
    """Bytes of registers that each compiled kernel keeps in memory."""
    return [int(number) for number in re.findall(r"(\d+) bytes spill stores", log.getvalue())]


EVERY_TILE = sorted({tile for size in TILES for tile in tiles(size, False)})
CASES: list[tuple[str, Tile, dict[str, Any]]] = [
    *(("bf16", tile, {}) for tile in EVERY_TILE),
    *(("i8", tile, {}) for tile in EVERY_TILE if tile.tokens > 16),
    *(("i8", tile, {"PROGRESSIVE": True}) for tile in (TILES[16][0], *tiles(512, True)[-2:])),
    ("fp16", TILES[16][0], {"SPLITS": 8, "out_ptr": "fp32", "EVEN": False}),
    ("fp16", TILES[128][0], {"group_size": 64}),
    ("i8", TILES[128][0], {"group_size": 32}),
]


@pytest.mark.parametrize(("x", "tile", "options"), CASES)
def test_products_for_hopper(
    x: str, tile: Tile, options: dict[str, Any], compiler_log: io.StringIO
) -> None:
    """Compiles, keeps all in registers, uses Hopper's matrix instruction with weights from
    registers, and needs no more shared memory than tiles are sorted out by."""
    kernel = product_for_hopper(x, tile, compiler_log, **options)
    assert spilled(compiler_log) == [0]
    products = re.findall(
        r"wgmma\.mma_async\.sync\.aligned\S+ +\{[^{}]*\}, *(.)", kernel.asm["ptx"]
    )
    assert products
    assert set(products) == {"{"}  # the first operand is a list of registers, no descriptor
    # The assembly takes four bytes of one output: so many neighbouring inputs does a thread hold.
    layouts = re.findall(r"elementwise_inline_asm.*-> (.*?) loc", kernel.asm["ttgir"])
    assert len(layouts) == (2 if x == "i8" else 0)
    assert all(re.search(r"opIdx = 0, parent = #mma, kWidth = 4\}", text) for text in layouts)
    half = half_block(options.get("group_size", 128))
    estimate = shared_bytes(tile, half, 1 if x == "i8" else 2)
    assert kernel.metadata.shared <= estimate <= SHARED_OF_HOPPER


def test_other_kernels_for_hopper(compiler_log: io.StringIO) -> None:
    for sums, progressive in (("fp32", False), ("i32", True)):
        types = {"parts_ptr": f"*{sums}", "bias_ptr": "*fp16", "out_ptr": "*fp16"}
        types |= {"token_scales_ptr": "*fp32", "channel_scales_ptr": "*fp32"}
        types |= {"M": "i32", "N": "i32"}
        constants = {"SPLITS": 8, "INT8": True, "PROGRESSIVE": progressive, "BIAS": True, "BN": 256}
        compiled(kernels.add_splits, types, compiler_log, **constants)
    types = {"x_ptr": "*bf16", "weight_ptr": "*bf16", "out_ptr": "*i8", "scales_ptr": "*fp32"}
    types |= {"K": "i32", "eps": "fp32"}
    for norm, block, warps in (("none", 4096, 4), ("gemma", 16384, 16), ("llama", 4096, 4)):
        compiled(kernels.quantize, types, compiler_log, NORM=norm, BLOCK=block, num_warps=warps)
    assert spilled(compiler_log) == [0] * 5


def run_assembly(text: str, registers: dict[str, int]) -> int:
    """$0 after the few instructions of PTX that the kernels use; others raise KeyError."""
    operations = {
        "and.b32": lambda a, b: a & b,
        "or.b32": lambda a, b: a | b,
        "xor.b32": lambda a, b: a ^ b,
        "shr.u32": lambda a, b: a >> b,
        "sub.u32": lambda a, b: a - b,
        "mul.lo.u32": lambda a, b: a * b,
    }
    for line in text.strip().strip("{}").split(";"):
        if not line.strip() or ".reg" in line:
            continue
        name, operands = line.strip().split(" ", 1)
        target, *sources = (word.strip() for word in operands.split(","))
        values = [registers[s] if s in registers else int(s, 0) for s in sources]
        registers[target] = operations[name](*values) & 0xFFFFFFFF
    return registers["$0"]


def signed_bytes(word: int) -> list[int]:
    return [byte - 256 if byte > 127 else byte for byte in word.to_bytes(4, "little")]


@pytest.mark.parametrize("high", [False, True])
def test_assembly_of_int8_weights(high: bool) -> None:
    """Every field with every zero point (and scale), the other nibble full or empty.

    Four bytes of different fields stand together, so that one that borrowed from the next would
    show.
    """
    plain = (triton_unpack.HIGH_MINUS_ZERO if high else triton_unpack.LOW_MINUS_ZERO).value
    scaled = (triton_unpack.HIGH_SCALED if high else triton_unpack.LOW_SCALED).value
    for zero, start, other in itertools.product(range(16), range(16), (0, 15)):
        fields = [start, 15 - start, (start + 7) % 16, 0]
        word = bytes((f << 4 | other) if high else (other << 4 | f) for f in fields)
        packed = int.from_bytes(word, "little")
        y = run_assembly(plain, {"$1": packed, "$2": zero * 0x01010101})
        assert signed_bytes(y) == [f - zero for f in fields]
        for scale in range(1, 18):
            levels = [(f - zero) * scale for f in fields]
            zeros = zero * scale * 0x01010101
            registers = {"$1": packed, "$2": scale, "$6": zeros & 0x7F7F7F7F}
            registers["$10"] = ~zeros & 0x80808080
            # Levels beyond INT8 do not occur; here they wrap, as the product of bytes does.
            wrapped = [(level + 128) % 256 - 128 for level in levels]
            assert signed_bytes(run_assembly(scaled, registers)) == wrapped


def test_layout_by_hand() -> None:
    """Inputs 0 and 64 of the first output in the first byte; what is left over is empty."""
    layer = PackedLinear(192, 8, 4, 64)
    fields = torch.zeros(192, 8, dtype=torch.int32)
    fields[0, 0], fields[64, 0], fields[1, 5], fields[129, 7] = 3, 9, 15, 4
    layer.qweight.copy_(pack_columns(fields, 4))
    zeros = torch.tensor([[8] * 8, [7] * 8, [0, 1, 2, 3, 4, 5, 6, 15]], dtype=torch.int32)
    layer.qzeros.copy_(pack_columns(zeros, 4))
    layer.scales.copy_(torch.tensor([1.0, -2.0, 0.5])[:, None].expand(3, 8))
    packed = repack(layer)
    assert packed.tiles.shape == (2, 8, 64)
    assert packed.tiles[0, 0, 0] == 0x93
    assert packed.tiles[0, 5, 1] == 0x0F
    assert packed.tiles[1, 7, 1] == 0x04
    assert int(packed.tiles.count_nonzero()) == 3
    assert torch.equal(packed.scale_zero >> 16, zeros)
    halves = (packed.scale_zero & 0xFFFF).to(torch.int16).view(torch.float16)
    assert torch.equal(halves, layer.scales)


@pytest.mark.parametrize(("outputs", "inputs"), [(4096, 4096), (14336, 4096), (576, 1536)])
def test_parts_follow_from_the_shape(outputs: int, inputs: int) -> None:
    """Up to 64 tokens the parts are the same, whatever is batched; many tokens have none."""
    blocks = inputs // 128
    assert len({splits(tokens, outputs, blocks) for tokens in range(1, 65)}) == 1
    assert splits(1, outputs, blocks) > 1
    assert splits(4096, outputs, blocks) == 1
    for tokens in (1, 100, 1000):
        assert splits(tokens, outputs, blocks) <= blocks


def test_no_cuda_device() -> None:
    layer = PackedLinear(64, 8, 4, 32)
    with pytest.raises(UserError, match="need a CUDA device, not cpu"):
        linear_w4a16(torch.zeros(1, 64, dtype=torch.float16), repack(layer))
    with pytest.raises(UserError, match="need a CUDA device, not cpu"):
        install(torch.nn.Sequential(torch.nn.LayerNorm(64), layer))
