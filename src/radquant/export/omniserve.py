"""QServe's checkpoints, as OmniServe's server reads them.

Read from mit-han-lab/omniserve at 02b2925aa6fa3b92b06316a1524b7f38922cd9c8: the layout from
`omniserve/modeling/layers/quantized_linear/w4a8_linear.py`, held against the kernels that read it
(`kernels/csrc/qgemm/w4a8_per_group/gemm_cuda.cu`), names and limits from
`omniserve/modeling/models/llama_w4a8_unpad.py`. Tensors of a linear layer:

    qweight    int8    [out, in / 2]: two uint4 to a byte, in tiles of 32 × 32, see `pack_weight`
    s1_scales  float16 [out]
    in groups of 128, progressive:
      s2_scales  int8    [in / 128, out]: group scales, in the order of `pack_groups`
      s2_zeros   int8    the same: −zero·scale modulo 256
    per channel:
      s1_szeros  float16 [out]: zero·scale

Queries, keys and values, and gate and up, are stored apart; the server joins them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.export.source import (
    Source,
    head_size,
    in_dtype,
    layer_widths,
    older_config,
    open_source,
    write_export,
)
from radquant.families.lookup import check_dtype
from radquant.files import atomic_directory
from radquant.packed.formats import Settings
from radquant.packed.grid import QuantizedWeight
from radquant.settings.recipe import WHOLE_ROW

SERVER = "OmniServe"
LAYOUT = "omniserve"
GROUP_SIZE = 128  # G of the per-group kernel
TILE = 32  # channels of a tile, on both sides
# Inputs come in steps of 128 through a pipeline, of which two are filled before the first is used,
# or in three steps of 64. A layer must have as many.
INPUT_STEP, FEWEST_INPUTS = 128, 256
# Outputs of a joined layer that a thread block computes: 64, and 128 in the per-channel kernel.
OUTPUT_STEP = {GROUP_SIZE: 64, WHOLE_ROW: 128}
HEAD_SIZE = 128  # the only one that the decoding attention is compiled for
LOADING = (
    "This is a checkpoint for OmniServe (QServe): start its server with this directory as --model "
    "and --quant-path, --group-size {group_size}, --precision w4a8kv4 and --kv-quant-granularity "
    "fine_grained. It was not run there by the program that wrote it."
)


def pack_weight(integers: Tensor) -> Tensor:
    """uint4 integers, [out, in] uint8 -> [out, in / 2] int8.

    Each tile of 32 × 32 is 512 bytes, 16 for each of a warp's 32 threads. These bytes are what the
    thread needs for its INT8 tensor-core products. Let a·16 + b·8 + c be the output and d·16 + e·4
    + f the input inside a tile. The byte is then ((((c·4 + e)·2 + d)·2 + b)·4 + f. a = 0 is in the
    low half of it, a = 1 in the high one.
    """
    out, inputs = integers.shape
    tiles = integers.reshape(out // TILE, 2, 2, 8, inputs // TILE, 2, 4, 4)  # N a b c K d e f
    low, high = tiles.permute(1, 0, 4, 3, 6, 5, 2, 7)  # each N K c e d b f
    return (low | high << 4).reshape(out, inputs // 2).view(torch.int8)


def pack_groups(values: Tensor) -> Tensor:
    """Bytes of each group, [out, groups] uint8 -> [groups, out] int8.

    Of 32 output channels those that share a remainder modulo 8 lie together: 0, 8, 16, 24, 1, 9 …
    """
    out, groups = values.shape
    ordered = values.T.reshape(groups, out // TILE, 4, 8).transpose(-2, -1)
    return ordered.reshape(groups, out).contiguous().view(torch.int8)


def pack_linear(weight: QuantizedWeight) -> dict[str, Tensor]:
    """The tensors of one linear layer, by suffix."""
    packed = {"qweight": pack_weight(weight.integers)}
    if weight.channel_scales is not None:
        offsets = 0 - weight.zeros * weight.scales  # uint8 wraps
        return {
            **packed,
            "s1_scales": weight.channel_scales,
            "s2_scales": pack_groups(weight.scales),
            "s2_zeros": pack_groups(offsets),
        }
    scales, zeros = weight.scales[:, 0].float(), weight.zeros[:, 0].float()
    return {**packed, "s1_scales": scales.half(), "s1_szeros": (zeros * scales).half()}


def check_settings(settings: Settings) -> None:
    """Raise UserError if the server has no kernel for weights stored so."""
    if settings.bits != 4:
        raise UserError(f"{SERVER}'s W4A8 kernels take weights of 4 bits, not {settings.bits}")
    if settings.group_size not in OUTPUT_STEP:
        raise UserError(
            f"{SERVER} takes groups of {GROUP_SIZE} or whole rows (-1), not of "
            f"{settings.group_size}; quantize with group_size {GROUP_SIZE}"
        )
    if settings.group_size == GROUP_SIZE and not settings.progressive:
        raise UserError(
            f"{SERVER} takes groups of {GROUP_SIZE} with progressive scales only; "
            "quantize with progressive"
        )


def check_config(config: Mapping[str, Any], group_size: int) -> None:
    """Raise UserError if the model has a part that the server's has not, or an odd width."""
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rotary.get("rope_type") or rotary.get("type") or "default"
    for wrong, what in (
        (
            head_size(config) != HEAD_SIZE,
            f"attention heads of {head_size(config)} channels; it is compiled for {HEAD_SIZE}",
        ),
        (
            head_size(config) * config["num_attention_heads"] != config["hidden_size"],
            "heads that together are not as wide as the hidden state",
        ),
        (config.get("hidden_act", "silu") != "silu", f"activation {config.get('hidden_act')}"),
        (bool(config.get("mlp_bias")), "biases in the MLP"),
        (kind not in ("default", "linear"), f"rotary scaling {kind!r}; it takes 'linear' or none"),
    ):
        if wrong:
            raise UserError(f"{SERVER} cannot serve models with {what}")
    widths = layer_widths(config)
    for name, (inputs, outputs) in widths.items():
        if inputs % INPUT_STEP or inputs < FEWEST_INPUTS:
            raise UserError(
                f"{SERVER}'s kernels take multiples of {INPUT_STEP} inputs, {FEWEST_INPUTS} at "
                f"least; {name} has {inputs}"
            )
        if outputs % TILE:
            raise UserError(
                f"{SERVER}'s layout takes multiples of {TILE} outputs; {name} has {outputs}"
            )
    step = OUTPUT_STEP[group_size]
    for joined in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("o_proj",)):
        outputs = sum(widths[name][1] for name in joined)
        if outputs % step:
            raise UserError(
                f"{SERVER}'s kernel for group size {group_size} takes multiples of {step} outputs; "
                f"{' and '.join(joined)} have {outputs}"
            )


def fold_norms(tensors: dict[str, Tensor], source: Source, keep_norms: bool) -> dict[str, Tensor]:
    """Do without norms' weights: the server's loader skips every tensor with "norm" in its name.

    The final norm is folded into the head, which gets a tensor of its own. The head is not
    quantized, and the server does not tie it to the embedding. Norms before quantized layers must
    be 1, as rotation leaves them. keep_norms: for a server whose loader was mended.
    """
    head = source.plain.get("lm_head.weight") or source.plain["model.embed_tokens.weight"]
    weight = head.load().float()
    if not keep_norms:
        for name in sorted(tensors):
            if name.endswith("layernorm.weight") and not bool((tensors[name] == 1).all()):
                raise UserError(
                    f"{name} is not 1 and {SERVER}'s loader skips norms; quantize with rotation, "
                    "which folds norms into linear layers, or see docs/qserve.md on --keep-norms"
                )
        norm = tensors["model.norm.weight"]
        weight = weight * source.plain["model.norm.weight"].load().float()
        tensors["model.norm.weight"] = torch.ones_like(norm)
    tensors["lm_head.weight"] = weight.half()
    if not torch.isfinite(tensors["lm_head.weight"]).all():
        raise UserError("the head with the final norm folded into it overflows float16")
    return tensors


def export_omniserve(directory: Path, output: Path, keep_norms: bool = False) -> None:
    """Write the checkpoint in `directory` as one for OmniServe. All of it is in memory at once."""
    source = open_source(directory, LAYOUT, SERVER)
    check_dtype(directory, source.config, "float16")
    check_settings(source.settings)
    group_size = source.settings.group_size
    check_config(source.config, group_size)
    tensors = fold_norms(in_dtype(source, torch.float16), source, keep_norms)
    for name in source.layers:
        weight = source.weight(name)
        if weight.group_index is not None:
            raise UserError(f"{SERVER} has no groups in order of activation; leave desc_act out")
        tensors |= {f"{name}.{key}": value for key, value in pack_linear(weight).items()}
    config = {**older_config(source.config, torch.float16), "tie_word_embeddings": False}
    with atomic_directory(output) as part:
        # Pickled, as their own converter leaves it.
        torch.save(tensors, part / "pytorch_model.bin")
        write_export(source, part, config, LOADING.format(group_size=group_size))
