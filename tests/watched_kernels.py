"""Call every product of a library of CPU kernels; run under AddressSanitizer by a test."""

import itertools
import sys
from typing import Any

import torch


def compare(rows: int, inputs: int, *weight: Any) -> None:
    x = torch.randn(rows, inputs)
    together = torch.ops.radquant.linear(x, *weight, None)
    for row in (0, 15, 16, 31, 32, 127, 128, rows - 2, rows - 1):
        alone = torch.ops.radquant.linear(x[row : row + 1], *weight, None)
        if not torch.equal(alone[0], together[row]):
            raise SystemExit(f"row {row} of {rows} depends on the others")


def main() -> None:
    torch.ops.load_library(sys.argv[1])
    call = torch.ops.radquant
    # Sizes at which the last block, the last tile and the last row are cut off.
    for bits, rows, outputs, entering in itertools.product(
        (4, 8), (1, 2, 3, 4, 5, 11, 12, 13, 16, 25, 40), (8, 24, 64), range(3)
    ):
        words = outputs * bits // 32
        qweight = torch.randint(-(2**31), 2**31, (192, words), dtype=torch.int32)
        qzeros = torch.randint(-(2**31), 2**31, (3, words), dtype=torch.int32)
        data = call.repack(qweight, qzeros, torch.rand(3, outputs).half(), bits)
        kind = 0 if bits == 4 else 1
        call.linear(torch.randn(rows, 192), data, kind, outputs, 64, entering, None)
    # Grids of a row, of sequences and of groups; about 0, or with a zero; static or not.
    data = call.repack(
        torch.randint(-(2**31), 2**31, (192, 3), dtype=torch.int32),
        torch.randint(-(2**31), 2**31, (12, 3), dtype=torch.int32),
        *(torch.rand(12, 24).half(), 4),
    )
    for rows, shared, symmetric, static in itertools.product(
        (1, 2, 5, 11, 12, 25), range(3), (0, 1), (False, True)
    ):
        numbers = [shared, -127 if symmetric else 0, 127 if symmetric else 255, symmetric, 32]
        ranges = torch.ones(2, 6 if shared == 2 else 1) if static else None
        more = (numbers, 1.0, ranges, torch.arange(rows) // 2)
        call.linear(torch.randn(rows, 192), data, 0, 24, 16, 2, None, *more)
    for dtype, rows, inputs, outputs, entering in itertools.product(
        (torch.bfloat16, torch.float32, torch.float16),
        *((1, 2, 5, 12, 16, 25, 40), (72, 96), (1, 17, 64), range(2)),
    ):
        data = call.repack_dense(torch.randn(outputs, inputs).to(dtype))
        kind = {torch.bfloat16: 2, torch.float32: 3, torch.float16: 4}[dtype]
        call.linear(torch.randn(rows, inputs), data, kind, outputs, inputs, entering, None)
    # Stretches of rows and of inputs. Each row is the same by itself.
    for bits, entering, group in itertools.product((4, 8), range(3), (32, 64, 2144)):
        words, groups = 200 * bits // 32, 4288 // group
        qweight = torch.randint(-(2**31), 2**31, (4288, words), dtype=torch.int32)
        qzeros = torch.randint(-(2**31), 2**31, (groups, words), dtype=torch.int32)
        data = call.repack(qweight, qzeros, torch.rand(groups, 200).half(), bits)
        kind = 0 if bits == 4 else 1
        compare(131, 4288, data, kind, 200, group, entering)
    for outputs, (dtype, kind, entering, inputs) in itertools.product(
        (24, 48),
        (
            (torch.bfloat16, 2, 1, 4704),
            (torch.bfloat16, 2, 0, 1632),
            (torch.float16, 4, 0, 1632),
        ),
    ):
        data = call.repack_dense(torch.randn(outputs, inputs).to(dtype))
        compare(289, inputs, data, kind, outputs, inputs, entering)
    print("all products done")


if __name__ == "__main__":
    main()
