"""W4A16_AWQ checkpoints in ModelOpt's layout, as TensorRT-LLM's PyTorch backend reads them.

Read from NVIDIA/TensorRT-Model-Optimizer at 5a4242faf4147fb0688bb73e10ca30b8ad3aabb3
(`modelopt/torch/export/quant_utils.py`: pack_int4_in_uint8, process_layer_quant_config, and
`unified_export_hf.py`) and from NVIDIA/TensorRT-LLM (`tensorrt_llm/_torch/modules/linear.py`:
W4A16_AWQ_LinearMethod at 00bbf71, `tensorrt_llm/quantization/functional.py`). Tensors of a linear
layer:

    weight           uint8   [out / 2, in]: row i has output 2i in its low half, 2i + 1 in the high
                             one, as 4-bit two's complements
    weight_scale     float32 [out, in / 128]
    pre_quant_scale  the model's dtype [in]: what the input is multiplied by. Only for layers that
                     the server does not join with others: it reads it there and nowhere else

A weight is its integer, −8 … 7, times its scale. AWQ's scales are folded into our layers already,
so pre_quant_scale is 1.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import radquant
from radquant.errors import UserError
from radquant.export.source import (
    Source,
    in_dtype,
    layer_widths,
    older_config,
    open_source,
    write_export,
)
from radquant.families.lookup import check_dtype, sixteen_bit_dtype
from radquant.files import atomic_directory, write_json
from radquant.packed.formats import HEAD, Settings
from radquant.packed.grid import QuantizedWeight

SERVER = "TensorRT-LLM"
LAYOUT = "modelopt"
GROUP_SIZE = 128
MIDDLE = 8  # the zero of a symmetric grid
OUTPUT_STEP = 64
ALONE = ("o_proj", "down_proj")  # the others are joined: q, k and v; gate and up
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
LOADING = (
    "This is a W4A16_AWQ checkpoint in ModelOpt's layout: `trtllm-serve DIRECTORY`. It was not run "
    "there by the program that wrote it."
)


def pack_weight(integers: Tensor) -> Tensor:
    """0 … 15 with zero 8, [out, in] uint8 -> [out / 2, in] uint8."""
    nibbles = integers ^ MIDDLE  # q − 8 as a 4-bit two's complement
    return nibbles[0::2] | nibbles[1::2] << 4


def pack_linear(name: str, weight: QuantizedWeight, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of one linear layer, by suffix."""
    packed = {"weight": pack_weight(weight.integers), "weight_scale": weight.scales.float()}
    if name.endswith(ALONE):
        packed["pre_quant_scale"] = torch.ones(weight.integers.shape[1], dtype=dtype)
    return packed


def check_settings(settings: Settings) -> None:
    """Raise UserError if the layout cannot hold weights stored so."""
    if settings.bits != 4:
        raise UserError(f"W4A16_AWQ has weights of 4 bits, not {settings.bits}")
    if settings.progressive:
        raise UserError(
            "W4A16_AWQ has no progressive scales; quantize with zero_point false and without "
            "progressive"
        )
    if settings.group_size != GROUP_SIZE:
        raise UserError(
            f"W4A16_AWQ has groups of {GROUP_SIZE}, not of {settings.group_size}; quantize with "
            f"group_size {GROUP_SIZE}"
        )


def check_weight(name: str, weight: QuantizedWeight) -> None:
    if weight.group_index is not None:
        raise UserError(f"{SERVER} has no groups in order of activation; leave desc_act out")
    if not bool((weight.zeros == MIDDLE).all()):
        raise UserError(
            f"{name} has zero points, which W4A16_AWQ has not; quantize with zero_point false"
        )


def server_dtype(source: Source, asked: str | None) -> torch.dtype:
    """The dtype of what is not packed, which the server computes in.

    Raises UserError if the model's activations overflow in the dtype that was asked for.
    """
    if asked:
        check_dtype(source.directory, source.config, asked)
        return DTYPES[asked]
    own = str(source.config.get("dtype") or source.config.get("torch_dtype"))
    return DTYPES["bfloat16" if own == "bfloat16" else sixteen_bit_dtype(source.config)]


def quantization_file() -> dict[str, Any]:
    """What hf_quant_config.json says."""
    return {
        "producer": {"name": "radquant", "version": radquant.__version__},
        "quantization": {
            "quant_algo": "W4A16_AWQ",
            "kv_cache_quant_algo": None,
            "group_size": GROUP_SIZE,
            "has_zero_point": False,
            "pre_quant_scale": True,
            "exclude_modules": [HEAD],
        },
    }


def export_modelopt(directory: Path, output: Path, dtype: str | None = None) -> None:
    """Write the checkpoint in `directory` as W4A16_AWQ. All of it is in memory at once.

    dtype: "float16" or "bfloat16". Without it the checkpoint's own, or float16 for float32, but
    bfloat16 for a model that overflows in float16.
    """
    source = open_source(directory, LAYOUT, SERVER)
    check_settings(source.settings)
    for name, (_, outputs) in layer_widths(source.config).items():
        if outputs % OUTPUT_STEP:
            raise UserError(f"{SERVER} takes multiples of {OUTPUT_STEP} outputs; {name}: {outputs}")
    kind = server_dtype(source, dtype)
    tensors = in_dtype(source, kind)
    for name in source.layers:
        weight = source.weight(name)
        check_weight(name, weight)
        packed = pack_linear(name, weight, kind)
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in packed.items()}
    with atomic_directory(output) as part:
        save_file(tensors, part / "model.safetensors", {"format": "pt"})
        write_json(part / "hf_quant_config.json", quantization_file())
        write_export(source, part, older_config(source.config, kind), LOADING)
