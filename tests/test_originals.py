"""An original model is read tensor by tensor, and is the one that transformers reads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_architectures import tiny_model

from radquant.checkpoints.building import build_original
from radquant.checkpoints.fitting import empty_model, open_config
from radquant.checkpoints.loading import is_as_stored, read_original
from radquant.model_checks import check_model


def tensors(model: Any) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen3_vl"])
def test_an_original_is_what_transformers_reads(kind: str, tmp_path: Path) -> None:
    tiny_model(kind, torch.bfloat16).save_pretrained(tmp_path)
    assert is_as_stored(empty_model(open_config(tmp_path)), check_model(tmp_path), tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        ours = build_original(open_config(tmp_path), tmp_path, dtype)
        found, expected = (
            tensors(ours),
            tensors(read_original(open_config(tmp_path), tmp_path, dtype, False)),
        )
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert tensor.dtype == expected[name].dtype, name
            assert torch.equal(tensor, expected[name]), name


def test_experts_stay_as_transformers_computes_with_them(tmp_path: Path) -> None:
    tiny_model("qwen3_moe").save_pretrained(tmp_path)
    assert not is_as_stored(empty_model(open_config(tmp_path)), check_model(tmp_path), tmp_path)
