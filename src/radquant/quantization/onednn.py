"""Which library multiplies float32 matrices on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from radquant.finite import largest_of

# Relative error of a float32 product: rounding gives about 5e-7 here, bfloat16 inputs 2e-3.
FLOAT32_ERROR = 5e-6
CHECKED_SHAPES = ((1, 576, 1536), (20, 1536, 576), (300, 576, 576))


@contextmanager
def onednn_products() -> Iterator[None]:
    """Multiply float32 matrices by oneDNN meanwhile, if it keeps float32's precision here.

    PyTorch multiplies them by MKL, which takes half of what AMD's processors with AVX-512 can do.
    It uses oneDNN instead only if bfloat16 is allowed inside. oneDNN makes use of that where the
    processor has matrix units for it (AMX), and computes in float32 elsewhere. So it is allowed,
    the error is measured, and it is forbidden again where precision was lost.

    For work on few shapes, as in quantization: oneDNN compiles and keeps a kernel for each shape.
    In generation every new token makes new shapes, which costs more time and memory than it saves.
    """
    # Of the CPU alone; a GPU keeps its own.
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "bf16"
        if not largest_product_error() <= FLOAT32_ERROR:
            settings.fp32_precision = "ieee"
        yield
    finally:
        settings.fp32_precision = before


@contextmanager
def rounded_products(allowed: bool = True) -> Iterator[None]:
    """Round the factors of float32 products to bfloat16 meanwhile, where that is much faster.

    It is on processors with AMX, through oneDNN; sums stay in float32. Elsewhere nothing changes.
    allowed: or nothing changes anywhere. To be used within `onednn_products`. It holds for all
    threads of the process.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    try:
        if allowed and torch.cpu.get_capabilities().get("amx_bf16", False):
            settings.fp32_precision = "bf16"
        yield
    finally:
        settings.fp32_precision = before


def largest_product_error() -> float:
    """The largest relative error of float32 products of a few shapes, against float64."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for rows, inner, columns in CHECKED_SHAPES:
        a = torch.randn(rows, inner, generator=generator)
        b = torch.randn(inner, columns, generator=generator)
        exact = a.double() @ b.double()
        errors.append(((a @ b).double() - exact).norm().item() / exact.norm().item())
    return largest_of(errors)
