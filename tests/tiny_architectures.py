"""Tiny random models of each architecture, and AWQ's scales folded into all of their layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import transformers
from tiny_image_models import GEMMA4, QWEN3_5, image_config
from torch import nn

from radquant.families.architectures import Architecture
from radquant.families.inspection import decoder_layers, head_dim_of, linear_of, of_layer
from radquant.quantization.awq import scale_group
from radquant.quantization.calibration_statistics import InputStatistics
from radquant.settings.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(method="awq", bits=4, group_size=32)
# Widths are all different, so that none can be taken for another. Heads are wider than the hidden
# width shared out among them where the architecture allows it, and two value heads serve four.
TEXT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,  # more than the text model's
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": 8, "head_dim": 32}),
    "ministral3": ("Ministral3", {"head_dim": 32}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "qwen2": ("Qwen2", {**SLIDING, "use_sliding_window": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "phi3": ("Phi3", {"sliding_window": 8}),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma2": ("Gemma2", {**SLIDING, "head_dim": 32, "attention_bias": True}),
    "gemma3_text": ("Gemma3Text", {**SLIDING, "head_dim": 32}),
    "gemma3": ("Gemma3", {}),
}
# Of these, whole runs are in test_more_families.py, and images in test_more_images.py.
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_5_text": ("Qwen3_5Text", QWEN3_5),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.1,
            "residual_multiplier": 0.3,
            "logits_scaling": 2.0,
        },
    ),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", SLIDING),
    "cohere": ("Cohere", {"use_qk_norm": True, "logit_scale": 0.25}),
    "cohere2": ("Cohere2", {**SLIDING, "head_dim": 32}),
    "gemma4_text": ("Gemma4Text", GEMMA4),
}
WITH_IMAGES = ("gemma4", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "llava", "internvl", "mistral3")
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {kind: ("", {}) for kind in WITH_IMAGES}
# Whose experts are two tensors of three dimensions in transformers' class.
MIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 32,
            "mlp_only_layers": [],
        },
    ),
}
UNKNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("GPTNeoX", {}),
    "stablelm": ("StableLm", {}),
    "opt": ("OPT", {"ffn_dim": 160, "word_embed_proj_dim": 32}),
}


def tiny_model(kind: str, dtype: torch.dtype = torch.float32, **changed: Any) -> Any:
    """A random model of type `kind` whose norms and biases matter, with values of `dtype`.

    It computes in float32, as the engine does, so that rounding in between hides no error.
    changed: other values of its (text) configuration.
    """
    torch.manual_seed(0)
    name, usual = {**KNOWN, **FURTHER, **SHOWN, **MIXTURES, **UNKNOWN}[kind]
    changed = usual | changed
    if kind == "gemma3":
        inner = transformers.Gemma3TextConfig(**TEXT | KNOWN["gemma3_text"][1] | changed)
        config = transformers.Gemma3Config(
            text_config=inner,
            vision_config=transformers.SiglipVisionConfig(**VISION),
            mm_tokens_per_image=4,
            image_token_index=49,
        )
    elif not name:
        config = image_config(kind, TEXT | changed)
    else:
        config = getattr(transformers, f"{name}Config")(**TEXT | changed)
    auto = transformers.AutoModelForCausalLM if name else transformers.AutoModelForImageTextToText
    model = auto.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:  # channels of very different size, as in real models
                parameter.copy_(torch.exp(torch.randn_like(parameter)) * random_signs(parameter))
            elif parameter_name.endswith("bias"):
                parameter.normal_()
            elif not parameter_name.endswith("A_log"):  # of which decays are an exponential
                parameter.mul_(8)
            parameter.copy_(parameter.to(dtype).float())
    return model.eval().requires_grad_(False)


def random_signs(like: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.rand_like(like) < 0.2, -1.0, 1.0)


def logits_of(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 49, (4, 24), generator=generator)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


@contextmanager
def observed(
    layers: nn.ModuleList, architecture: Architecture
) -> Iterator[list[list[InputStatistics]]]:
    """Statistics of each group's input, [layer][group], filled by what is run inside."""
    handles, statistics = [], []
    for layer in layers:
        statistics.append([])
        for group in of_layer(layer, architecture).groups:
            linear = linear_of(layer, group.linears[0])
            of_group = InputStatistics.empty(linear.in_features, CPU)
            statistics[-1].append(of_group)
            hook = linear.register_forward_pre_hook(lambda _, args, s=of_group: s.add(args[0]))
            handles.append(hook)
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()


def random_scale(
    weights: Any, statistics: InputStatistics, channels: torch.Tensor, width: int, *_: Any
) -> torch.Tensor:
    """A scale for every channel; the best one of a tiny model may well be none at all."""
    generator = torch.Generator().manual_seed(len(channels))
    return torch.exp(torch.randn(width, generator=generator))


@torch.inference_mode()
def change_by_folding(
    model: Any,
    architecture: Architecture,
    storage: torch.dtype,
    layers: int | None = None,
    search: Callable[..., torch.Tensor] = random_scale,
) -> float:
    """Fold the scales of all groups of the first `layers` layers; relative change of the logits."""
    blocks = decoder_layers(model, architecture)[:layers]
    with observed(blocks, architecture) as statistics:
        before = logits_of(model)
    head_dim = head_dim_of(model.config)
    for layer, of_one in zip(blocks, statistics, strict=True):
        groups = of_layer(layer, architecture).groups
        for group, of_group in zip(groups, of_one, strict=True):
            with mock.patch("radquant.quantization.awq.search_scale", search):
                scale_group(layer, group, of_group, RECIPE, head_dim, storage)
    return float((logits_of(model) - before).norm() / before.norm())
