"""Float32 products stay float32 products, whichever library makes them."""

from itertools import product

import pytest
import torch

from radquant.quantization import onednn


def test_products_keep_float32_precision() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    with onednn.onednn_products():
        a, b = torch.randn(37, 1536), torch.randn(1536, 192)
        product, gram = a @ b, torch.zeros(1536, 1536).addmm_(a.T, a)
    for result, exact in ((product, a.double() @ b.double()), (gram, a.double().T @ a.double())):
        assert (result.double() - exact).norm() / exact.norm() < 2e-6
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize(("tiles", "allowed"), list(product((True, False), repeat=2)))
def test_factors_are_rounded_where_that_is_allowed_and_fast(
    tiles: bool, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = torch.backends.mkldnn.matmul
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": tiles})
    monkeypatch.setattr(onednn, "largest_product_error", lambda: 1.0)  # as of a processor with AMX
    with onednn.onednn_products():
        with onednn.rounded_products(allowed):
            assert settings.fp32_precision == ("bf16" if tiles and allowed else "ieee")
        assert settings.fp32_precision == "ieee"
        with pytest.raises(ZeroDivisionError), onednn.rounded_products():
            raise ZeroDivisionError
        assert settings.fp32_precision == "ieee"


def test_a_loss_of_precision_is_measured_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < onednn.largest_product_error() < onednn.FLOAT32_ERROR
    product = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """What a processor with bfloat16 matrix units does to float32 inputs."""
        if a.dtype == torch.float32:
            return product(a.bfloat16().float(), b.bfloat16().float())
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert onednn.largest_product_error() > onednn.FLOAT32_ERROR
    with onednn.onednn_products():
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
