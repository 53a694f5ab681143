"""Float32 products stay float32 products, whichever library makes them."""

from collections.abc import Iterator

import pytest
import torch

from radquant import compute


@pytest.fixture(autouse=True)
def settings_restored() -> Iterator[None]:
    before, threads = torch.backends.mkldnn.matmul.fp32_precision, torch.get_num_threads()
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before
    torch.set_num_threads(threads)


def test_products_keep_float32_precision() -> None:
    compute.prepare(1)
    assert torch.get_num_threads() == 1
    a, b = torch.randn(37, 1536), torch.randn(1536, 192)
    exact = a.double() @ b.double()
    assert ((a @ b).double() - exact).norm() / exact.norm() < 2e-6
    gram = torch.zeros(1536, 1536).addmm_(a.T, a).double()
    exact = a.double().T @ a.double()
    assert (gram - exact).norm() / exact.norm() < 2e-6


def test_a_loss_of_precision_is_measured_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    assert 0 < compute.largest_product_error() < compute.FLOAT32_ERROR
    product = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """What a processor with bfloat16 matrix units does to float32 inputs."""
        if a.dtype == torch.float32:
            return product(a.bfloat16().float(), b.bfloat16().float())
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert compute.largest_product_error() > compute.FLOAT32_ERROR
    compute.prepare(1)
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
