"""Configurations of tiny models with images, by their type: 49 is an image's token."""

from typing import Any

import transformers

IMAGE = 49
# A layer of each kind of attention; those that see all tokens have wider heads, and no values of
# their own.
GEMMA4: dict[str, Any] = {
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 8,
    "use_bidirectional_attention": "vision",
    "layer_types": ["sliding_attention", "full_attention"],
}
ROTARY = {"rope_type": "default", "rope_theta": 1e4}
WITH_GRIDS: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,  # more than the text model's
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
QWEN_TOKENS = {"image_token_id": IMAGE, "video_token_id": 48, "vision_start_token_id": 47}


def qwen_text(text: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The halves of a head's channels that turn by time, height and width."""
    half = (more.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]) // 2
    section = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    return text | more | {"rope_parameters": ROTARY | {"mrope_section": section}}


def image_config(kind: str, text: dict[str, Any]) -> Any:
    """The configuration of a tiny model. text: that of its text model, as of a tiny Llama."""
    tied = {"tie_word_embeddings": text["tie_word_embeddings"]}
    match kind:
        case "qwen2_5_vl":
            vision = WITH_GRIDS | {"window_size": 16, "fullatt_block_indexes": [1]}
            return transformers.Qwen2_5_VLConfig(
                text_config=qwen_text(text), vision_config=vision, **QWEN_TOKENS, **tied
            )
        case "qwen3_vl":
            vision = WITH_GRIDS | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
            return transformers.Qwen3VLConfig(
                text_config=qwen_text(text, head_dim=32),
                vision_config=vision,
                **QWEN_TOKENS,
                **tied,
            )
        case "llava":
            inner = transformers.LlamaConfig(**text)
            vision = transformers.CLIPVisionConfig(**TOWER)
            return transformers.LlavaConfig(
                vision_config=vision, text_config=inner, image_token_index=IMAGE
            )
        case "internvl":
            inner = transformers.Qwen2Config(**text)
            vision = transformers.InternVLVisionConfig(**TOWER)
            return transformers.InternVLConfig(
                vision_config=vision, text_config=inner, image_token_id=IMAGE, **tied
            )
        case "mistral3":
            inner = transformers.Ministral3Config(**text, head_dim=32)
            vision = transformers.PixtralVisionConfig(**TOWER | {"image_size": 32})
            return transformers.Mistral3Config(
                vision_config=vision, text_config=inner, image_token_index=IMAGE, **tied
            )
        case "gemma4":
            vision = TOWER | {"num_key_value_heads": 2, "head_dim": 16, "pooling_kernel_size": 2}
            vision["position_embedding_size"] = 64
            tokens = {"image_token_id": IMAGE, "video_token_id": 48, "audio_token_id": 47}
            return transformers.Gemma4Config(
                text_config=transformers.Gemma4TextConfig(**text | GEMMA4),
                vision_config=transformers.Gemma4VisionConfig(**vision),
                boi_token_id=45,
                eoi_token_id=46,
                **tokens,
                **tied,
            )
    raise KeyError(kind)
