"""How fast packed products are, as ratios to a bfloat16 `nn.Linear` of the same shape.

One thread, by CPU time. Each call gets the next of as many equal weights as fill several times the
processor's cache. A model's next layer is never the one that is still there. `--compare` adds
PyTorch's own 4-bit product.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from radquant.kernels import cpu
from radquant.packed.linear import PackedLinear

SHAPES = {"smollm2": [(576, 576), (576, 1536), (1536, 576)], "1b": [(2048, 2048), (2048, 8192)]}
ROWS = [1, 2, 4, 8, 16, 32, 64, 256]
COLD_BYTES = 160_000_000  # of weights in turn
LEAST_SECONDS = 0.15  # of a timing; the best of five is taken


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--shapes", choices=sorted(SHAPES), nargs="+", default=sorted(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compare", action="store_true", help="PyTorch's own 4-bit product, too")
    return parser.parse_args()


def random_layer(inputs: int, outputs: int, group_size: int) -> PackedLinear:
    layer = PackedLinear(inputs, outputs, 4, group_size)
    for words in (layer.qweight, layer.qzeros):
        words.random_(-(2**31), 2**31 - 1)
    layer.scales.uniform_(0.001, 0.01)
    return layer


def seconds(layers: list[Callable[[Tensor], Tensor]], x: Tensor) -> float:
    """CPU seconds of a layer's call, layers in turn: the best of five rounds."""
    for layer in layers[:2]:
        layer(x)
    rounds, place = [], 0
    for _ in range(5):
        count, start = 0, time.process_time()
        while (passed := time.process_time() - start) < LEAST_SECONDS or count < 3:
            layers[place % len(layers)](x)
            place, count = place + 1, count + 1
        rounds.append(passed / count)
    return min(rounds)


def copies(make: Callable[[], Callable[[Tensor], Tensor]], size: int) -> list:
    return [make() for _ in range(max(2, min(2000, COLD_BYTES // size)))]


def int4pack(inputs: int, outputs: int, group_size: int) -> Callable[[Tensor], Tensor]:
    """PyTorch's product, made for bfloat16."""
    integers = torch.randint(0, 16, (outputs, inputs), dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(integers, 1)
    scales = torch.rand(inputs // group_size, outputs, 2).bfloat16()
    return lambda x: torch._weight_int4pack_mm_for_cpu(x, packed, group_size, scales)


def kernel(inputs: int, outputs: int, group_size: int, entering: int) -> Callable:
    return cpu.KernelLinear(random_layer(inputs, outputs, group_size), entering)


def dense(inputs: int, outputs: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight = torch.randn(outputs, inputs, dtype=dtype)
    return lambda x: torch.nn.functional.linear(x, weight)


def own_dense(inputs: int, outputs: int) -> Callable[[Tensor], Tensor]:
    data, kind = cpu.repack_dense(torch.randn(outputs, inputs).bfloat16())
    return lambda x: torch.ops.radquant.linear(x, data, kind, outputs, inputs, cpu.FLOATS, None)


@torch.inference_mode()
def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    reason = cpu.unavailable()
    if reason:
        raise SystemExit(f"error: the CPU kernels cannot be measured here: {reason}")
    group = args.group_size
    columns = ["W4A8", "W4A16", "W4A16, float32", "bfloat16 weights, float32", "float32 nn.Linear"]
    columns += ["PyTorch's int4"] * args.compare
    print(f"{cpu.level()}, {args.threads} thread(s), groups of {group}\n")
    print("| in × out | rows | bf16 nn.Linear, µs | " + " | ".join(columns) + " |")
    print("|---|---:|---:|" + "---:|" * len(columns))
    for inputs, outputs in [shape for name in args.shapes for shape in SHAPES[name]]:
        size = inputs * outputs
        half = copies(lambda i=inputs, o=outputs: dense(i, o, torch.bfloat16), 2 * size)
        full = copies(lambda i=inputs, o=outputs: dense(i, o, torch.float32), 4 * size)
        own = copies(lambda i=inputs, o=outputs: own_dense(i, o), 2 * size)
        packed = copies(lambda i=inputs, o=outputs: kernel(i, o, group, cpu.FLOATS), size // 2)
        theirs = []
        if args.compare:
            theirs = copies(lambda i=inputs, o=outputs: int4pack(i, o, group), size // 2)
        for rows in args.rows:
            x = torch.randn(rows, inputs)
            y = x.bfloat16()
            base = seconds(half, y)
            ratios = []
            for entering, values in ((cpu.INTEGERS, x), (cpu.FLOATS, y), (cpu.FLOATS, x)):
                for layer in packed:
                    layer.input = entering
                ratios.append(base / seconds(packed, values))
            ratios.append(base / seconds(own, x))
            ratios.append(base / seconds(full, x))
            if theirs:
                ratios.append(base / seconds(theirs, y))
            row = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {inputs} × {outputs} | {rows} | {base * 1e6:.0f} | {row} |", flush=True)


if __name__ == "__main__":
    main()
