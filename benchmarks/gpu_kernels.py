"""Time packed linear layers on an NVIDIA GPU: `python benchmarks/gpu_kernels.py`.

The output is a Markdown table of microseconds for one product. The Triton kernels stand beside
float16 in cuBLAS. They also stand beside AutoAWQ's Triton kernel and Marlin, where `awq` and
`marlin` (IST-DASLab's) can be imported. Weights are cold, as in a model: a CUDA graph multiplies by
copies of the layer in turn, together larger than the L2 cache. First, every kernel is held against
the reference on this device, and the tiles against each other, bit for bit.
"""

import argparse
import copy
import itertools
import statistics
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version

import torch
from torch import Tensor

from radquant.cli import run
from radquant.errors import UserError
from radquant.kernels import triton_layout, triton_linear, triton_model
from radquant.kernels.triton_layout import KMajorWeight, repack
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import pack_columns
from radquant.packed.progressive_linear import ProgressiveLinear

SHAPES = ((4096, 4096), (4096, 14336))  # inputs, outputs
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
GROUP = 128
REPLAYS = 30
Call = Callable[[Tensor], object]
Kernel = tuple[type[PackedLinear], int, Callable[[PackedLinear], Call]]


def random_layer(kind: type[PackedLinear], inputs: int, outputs: int, seed: int) -> PackedLinear:
    """A packed layer of random fields, with weights of about 0.02, on the GPU."""
    generator = torch.Generator().manual_seed(seed)
    layer = kind(inputs, outputs, 4, GROUP)
    fields = torch.randint(0, 16, (inputs, outputs), generator=generator, dtype=torch.int32)
    zeros = torch.randint(5, 11, layer.scales.shape, generator=generator, dtype=torch.int32)
    layer.qweight.copy_(pack_columns(fields, 4))
    layer.qzeros.copy_(pack_columns(zeros, 4))
    if isinstance(layer, ProgressiveLinear):
        layer.scales.copy_(torch.randint(6, 12, layer.scales.shape, generator=generator))
        layer.channel_scales.fill_(0.0005)
    else:
        layer.scales.uniform_(0.003, 0.006, generator=generator)
    return layer.cuda()


def copies_needed(bytes_of_one: int) -> int:
    """How many copies of a layer are twice the L2 cache."""
    return 2 + 2 * torch.cuda.get_device_properties().L2_cache_size // bytes_of_one


def microseconds(calls: list[Call], x: Tensor) -> float:
    """The median time of one of `calls`, which take turns within a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # tiles are chosen, and libraries set up, before recording
        for call in calls:
            call(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call(x)
    graph.replay()
    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1000 * start.elapsed_time(end) / len(calls))
    return statistics.median(times)


def cublas(layer: PackedLinear) -> Call:
    weight = layer.dequantize().half().T.contiguous()
    return lambda x: torch.nn.functional.linear(x, weight)


def given_int8(weight: KMajorWeight) -> Call:
    """The product alone: activations are INT8 already, as after a norm that rounded them."""

    def call(x: Tensor) -> Tensor:
        integers, scales = rounded[x.shape]
        return triton_linear.linear_int8(integers, scales, weight, torch.float16)

    return call


rounded: dict[torch.Size, tuple[Tensor, Tensor]] = {}


def autoawq(layer: PackedLinear) -> Call:
    """As AutoAWQ's WQLinear_GEMM calls its Triton kernels: many tokens by unpacked weights."""
    theirs = import_module("awq.modules.triton.gemm")
    q, s, z = layer.qweight, layer.scales, layer.qzeros

    def call(x: Tensor) -> Tensor:
        if x.shape[0] >= 1024:
            return x @ theirs.awq_dequantize_triton(q, s, z)
        return theirs.awq_gemm_triton(x, q, s, z, split_k_iters=8)

    return call


def marlin(layer: PackedLinear) -> Call:
    """Marlin on random words: its time does not depend on them."""
    module = import_module("marlin")
    theirs = module.Layer(layer.in_features, layer.out_features, GROUP).cuda()
    theirs.B.random_()
    theirs.s.fill_(0.01)
    return lambda x: theirs(x)


def packed(multiply: Callable[[Tensor, KMajorWeight], Tensor]) -> Callable[[PackedLinear], Call]:
    def make(layer: PackedLinear) -> Call:
        weight = repack(layer)
        return lambda x: multiply(x, weight)

    return make


def available() -> dict[str, Kernel]:
    """Name -> kind of layer, bits a weight, and what makes a call of a layer."""
    found = {
        "cuBLAS fp16": (PackedLinear, 16, cublas),
        "W4A16": (PackedLinear, 4, packed(triton_linear.linear_w4a16)),
        "W4A8": (PackedLinear, 4, packed(triton_linear.linear_w4a8)),
        "W4A8, x INT8": (PackedLinear, 4, lambda layer: given_int8(repack(layer))),
        "QoQ W4A8, x INT8": (ProgressiveLinear, 4, lambda layer: given_int8(repack(layer))),
    }
    others = [("AutoAWQ", "awq.modules.triton.gemm", autoawq), ("Marlin", "marlin", marlin)]
    for name, package, make in others:
        try:
            import_module(package)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            found[name] = (PackedLinear, 4, make)
    return found


def check(inputs: int, outputs: int) -> None:
    """Raise UserError unless all kernels are right here; say which tiles give other bits."""
    for kind, by_int8 in itertools.product((PackedLinear, ProgressiveLinear), (False, True)):
        layer = random_layer(kind, inputs, outputs, 0)
        weight = repack(layer)
        for dtype in triton_linear.FLOATS:
            triton_model.check(f"[{inputs}, {outputs}]", layer, weight, by_int8, dtype)
        whole = by_int8 and kind is ProgressiveLinear
        for tokens in (5, 300):
            x, scales = torch.randn(tokens, inputs, device="cuda").half(), None
            if by_int8:
                x, scales = triton_linear.quantize_by_token(x, None, 0.0, False)
            arguments = (weight.tiles, weight.scale_zero, weight.channel_scales, None, GROUP)
            results = {
                tile: triton_linear.product(x, scales, *arguments, torch.float16, tile)
                for tile in fitting_tiles(whole, x)
            }
            first = next(iter(results.values()))
            different = [tile for tile, y in results.items() if not torch.equal(y, first)]
            if different:
                name = f"{kind.__name__}, {x.dtype}, {tokens} tokens"
                print(f"{name}: other bits than from {next(iter(results))}: {different}\n")


def fitting_tiles(whole: bool, x: Tensor) -> list[triton_linear.Tile]:
    """Every tile that this device has the shared memory for."""
    found = set(itertools.chain(*triton_linear.TILES.values()))
    found |= set(triton_linear.WHOLE_TILES if whole else ())
    half, limit = triton_layout.half_block(GROUP), triton_linear.shared_limit(x.device)
    needed = {t: triton_linear.shared_bytes(t, half, x.element_size()) for t in found}
    return sorted(tile for tile, size in needed.items() if size <= limit)


def table(names: dict[str, Kernel], inputs: int, outputs: int, tokens: list[int]) -> list[str]:
    """Lines of Markdown: microseconds, and in brackets how many times as fast as cuBLAS."""
    times: dict[str, list[float]] = {}
    for name, (kind, bits, make) in names.items():
        count = copies_needed(inputs * outputs * bits // 8)
        layer = random_layer(kind, inputs, outputs, 0)
        calls = [make(copy.deepcopy(layer)) for _ in range(count)]
        times[name] = []
        for m in tokens:
            x = torch.randn(m, inputs, device="cuda").half()
            rounded[x.shape] = triton_linear.quantize_by_token(x, None, 0.0, False)
            times[name].append(microseconds(calls, x))
        del calls
        torch.cuda.empty_cache()
    lines = [
        f"{inputs} inputs, {outputs} outputs, groups of {GROUP}; µs (times as fast as cuBLAS)",
        "",
        f"| tokens | {' | '.join(names)} |",
        f"| ---: |{' ---: |' * len(names)}",
    ]
    for row, m in enumerate(tokens):
        base = times["cuBLAS fp16"][row]
        cells = [f"{t[row]:.1f} ({base / t[row]:.2f})" for t in times.values()]
        lines.append(f"| {m} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError(
            "this benchmark needs an NVIDIA GPU and PyTorch's CUDA build; see docs/gpu.md for "
            "what is checked without one"
        )
    device = torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, triton {version('triton')}\n")
    names = available()
    for inputs, outputs in SHAPES:
        check(inputs, outputs)
        print("\n".join(table(names, inputs, outputs, arguments.tokens)), flush=True)
    print("Chosen tiles:\n")
    for key, tile in triton_linear.measured.items():
        print(f"- {key[1]}, {key[2]} tokens, tiles of {tuple(key[3])}: {tile}")


if __name__ == "__main__":
    run(main)
