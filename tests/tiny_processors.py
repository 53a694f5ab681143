"""The real processors of tiny models with images, by their type: 49 is an image's token."""

import importlib
import json
from pathlib import Path
from typing import Any

import transformers
from tiny_images import WORDS
from tiny_tokenizers import word_tokenizer

from radquant.families.lookup import family_of

# What stands for an image in a prompt, the tokens from 45 on, and what the tokenizer calls them.
QWEN = ("<vision>", "</vision>", "<|vision_start|>", "<|video_pad|>", "<|image_pad|>")
MARKS: dict[str, tuple[str, tuple[str, ...], dict[str, int]]] = {
    "qwen2_5_vl": (QWEN[4], QWEN, {"image_token": 49, "video_token": 48}),
    "qwen3_vl": (QWEN[4], QWEN, {"image_token": 49, "video_token": 48}),
    "qwen3_5": (QWEN[4], QWEN, {"image_token": 49, "video_token": 48}),
    "llava": ("<image>", ("<a>", "<b>", "<c>", "<d>", "<image>"), {"image_token": 49}),
    "internvl": (
        "<IMG_CONTEXT>",
        ("<img>", "</img>", "<c>", "<video>", "<IMG_CONTEXT>"),
        {
            "start_image_token": 45,
            "end_image_token": 46,
            "video_token": 48,
            "context_image_token": 49,
        },
    ),
    "mistral3": (
        "[IMG]",
        ("[IMG_BREAK]", "[IMG_END]", "<c>", "<d>", "[IMG]"),
        {"break_token": 45, "end_token": 46, "image_token": 49},
    ),
    "gemma4": (
        "<|image|>",
        ("<|image>", "<image|>", "<|audio|>", "<|video|>", "<|image|>"),
        {"boi_token": 45, "eoi_token": 46, "image_token": 49}
        | dict.fromkeys(("audio_token", "boa_token", "eoa_token"), 47),
    ),
}
SIZES: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 800}},
    "qwen3_vl": {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 800}},
    "qwen3_5": {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 800}},
    "internvl": {"size": {"height": 16, "width": 16}, "max_patches": 3},
    "mistral3": {"patch_size": 4, "size": {"longest_edge": 32}},
    "gemma4": {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70},
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "llava": {
        "patch_size": 4,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    },
    "internvl": {"image_seq_length": 4},
    "mistral3": {"patch_size": 4, "spatial_merge_size": 2},
}


def tiny_tokenizer(kind: str) -> Any:
    """A tokenizer of 50 words, those of `WORDS` and the family's tokens for images."""
    _, marks, named = MARKS[kind]
    fill = [f"w{n}" for n in range(43 - len(WORDS))]
    vocabulary = [*WORDS, *fill, "<turn>", "</turn>", *marks]
    return word_tokenizer(
        vocabulary,
        extra_special_tokens={
            "turn_token": "<turn>",
            "end_of_turn_token": "</turn>",
            **{name: vocabulary[place] for name, place in named.items()},
        },
    )


def image_processor(kind: str) -> Any:
    if kind == "llava":
        square = {"height": 16, "width": 16}
        return transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square)
    modules = {"internvl": "got_ocr2", "mistral3": "pixtral", "gemma4": "gemma4"}
    name = modules.get(kind, "qwen2_vl")
    classes = {"qwen2_vl": "Qwen2VL", "got_ocr2": "GotOcr2", "pixtral": "Pixtral"}
    code = importlib.import_module(f"transformers.models.{name}.image_processing_pil_{name}")
    return getattr(code, f"{classes.get(name, 'Gemma4')}ImageProcessorPil")(**SIZES[kind])


def tiny_processor(kind: str) -> Any:
    """The family's real processor; what it has for videos and sound needs packages, and is none."""
    shown = family_of(kind).images
    assert shown is not None
    mark = MARKS[kind][0]
    if "qwen" in kind:
        mark = f"<|vision_start|>{mark}</vision>"
    template = (
        "{{ bos_token }}{% for turn in messages %}<turn>{{ turn['role'] }}\n"
        "{% if turn['content'] is string %}{{ turn['content'] | trim }}{% else %}"
        "{% for part in turn['content'] %}{% if part['type'] == 'image' %}MARK"
        "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}</turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
    ).replace("MARK", mark)
    name = shown.processor or ("transformers", "LlavaProcessor")
    whole = getattr(importlib.import_module(name[0]), name[1])
    of_images = type(name[1], (whole,), {"check_argument_for_proper_class": lambda *_: None})
    parts = {"image_processor": image_processor(kind), "tokenizer": tiny_tokenizer(kind)}
    given = {each: parts.get(each) for each in whole.get_attributes()}
    return of_images(**given, **PROCESSORS.get(kind, {}), chat_template=template)


def save_shown(kind: str, model: Any, directory: Path) -> None:
    """Save a tiny model and its processor, in files as the hub's are."""
    model.generation_config = transformers.GenerationConfig(eos_token_id=[2], pad_token_id=0)
    model.save_pretrained(directory)
    processor = tiny_processor(kind)
    processor.image_processor.save_pretrained(directory)
    processor.tokenizer.save_pretrained(directory)
    (directory / "chat_template.jinja").write_text(processor.chat_template)
    name = type(processor).__name__
    said = {"processor_class": name, **PROCESSORS.get(kind, {})}
    (directory / "processor_config.json").write_text(json.dumps(said))
