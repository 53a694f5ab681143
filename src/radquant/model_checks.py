"""Whether a model's folder says the same in all its files, from their headers alone.

It costs milliseconds and needs no PyTorch, so that it can come before everything else. Whether the
tensors fit the model's class is for `checkpoints.fitting`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.model_files import (
    AGAIN,
    CONFIG,
    INDEX,
    StoredTensor,
    check_links,
    is_gguf,
    quantization_of,
    read_config,
    read_object,
    stored_tensors,
    weight_files,
)

FLOATS = ("F64", "F32", "F16", "BF16")
# Keys of config.json that say of how many parts a model consists, or how wide its tensors are.
COUNTS = re.compile(
    r"(n|num)_.*(layers?|blocks?|experts?)|depth|vocab_size|hidden_size|d_model|n_embd"
)
# Other widths, of which a tensor may be a part or a multiple: what is built of them fits memory.
SIZES = re.compile(r".*_(size|dim|width|heads)|ffn_dim|d_ff|n_inner|n_head")
MOST_OF_OTHERS = 64
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
PARSED = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


def check_model(directory: Path) -> dict[str, StoredTensor]:
    """The tensors of the model in a folder, original or packed; but for those in a GGUF file.

    Raises UserError, with the file's name, unless its files go together.
    """
    config = read_config(directory)
    paths = sorted(directory.iterdir())
    check_links(directory, [path.name for path in paths if path.is_symlink()])
    for path in paths:
        if not (path.is_file() or path.is_dir()):  # a pipe, of which reading never ends
            raise UserError(f"{path} is no file; take it out of the model's folder")
    quantization = quantization_of(config, directory)
    for name in PARSED:
        if (directory / name).exists():
            read_object(directory / name)
    stored = stored_tensors(directory)
    if is_gguf(quantization):  # whose own header says what it holds
        return stored
    if not stored:
        raise UserError(f"{directory} holds no tensor; {AGAIN}")
    if quantization is None:
        check_dtypes(directory, stored)
        if (directory / INDEX).exists() and "metadata" not in read_object(directory / INDEX):
            raise UserError(
                f'{directory / INDEX} has no "metadata", without which transformers does not read '
                'it; add "metadata": {}'
            )
    check_counts(directory, config, stored)
    return stored


def check_folder(path: str | Path, named: Sequence[str]) -> None:
    """`check_model` and `check_weights` of a folder, if it is there."""
    directory = Path(path)
    if directory.is_dir():
        check_model(directory)
        check_weights(directory, named)


def check_weights(directory: Path, named: Sequence[str], key: str = "model: weights") -> None:
    """Raise UserError unless the settings name the files that are the model.

    named: the weights of a configuration, whose change is noticed later. key: what they are called.
    """
    files = [path.name for path in weight_files(directory)]
    if (directory / INDEX).exists():
        files = [INDEX, *files]
    # If the shards are named, the index need not be.
    missing = [name for name in files if name not in named and name != INDEX]
    other = [name for name in named if name not in files]
    if missing or other:
        said = f"names {other[0]}" if other else f"does not name {missing[0]}"
        raise UserError(
            f"{key} {said}, and the weight files of {directory} are {', '.join(files)}; name these"
        )


def check_dtypes(directory: Path, stored: Mapping[str, StoredTensor]) -> None:
    """Raise UserError for numbers that mean nothing without what a quantization_config says."""
    for name, tensor in stored.items():
        if name.endswith((".weight", ".bias")) and tensor.dtype not in FLOATS:
            raise UserError(
                f"{tensor.file}: {name} is stored as {tensor.dtype}, and {directory / CONFIG} has "
                "no quantization_config to read it by; take the original model, in float32, "
                "float16 or bfloat16"
            )


def check_counts(
    directory: Path, config: Mapping[str, Any], stored: Mapping[str, StoredTensor]
) -> None:
    """Raise UserError unless config.json and the files speak of equally many layers.

    A model with fewer would be built without a word, and one of ten million layers for hours.
    """
    most = max(len(stored), *(max(tensor.shape, default=1) for tensor in stored.values()))
    for place, count in numbers(config):
        key = place.rpartition(".")[2]
        limit = most if COUNTS.fullmatch(key) else MOST_OF_OTHERS * most
        if count > limit and (COUNTS.fullmatch(key) or SIZES.fullmatch(key)):
            raise UserError(
                f"{directory / CONFIG} says {place}: {count}, and the files hold {len(stored)} "
                f"tensors, none wider than {most}; correct it or {AGAIN}"
            )
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    said = [text[key] for key in LAYERS if isinstance(text.get(key), int)]
    found = layer_counts(stored)
    # Some have layers behind the last that predict further tokens and are no part of the model.
    further = text.get("num_nextn_predict_layers")
    allowed = {said[0], said[0] + (further if isinstance(further, int) else 0)} if said else set()
    if said and found and not allowed & set(found.values()):
        name, count = max(found.items(), key=lambda item: item[1])
        raise UserError(
            f"{directory / CONFIG} says {said[0]} layers, and the files hold {count} of {name}; "
            f"correct it or {AGAIN}"
        )


def numbers(config: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, int]]:
    """(place, number) of all whole numbers in config.json, nested ones too."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{place}{key}.")
        elif isinstance(value, int):
            yield f"{place}{key}", value


def layer_counts(stored: Mapping[str, StoredTensor]) -> dict[str, int]:
    """{"model.layers": 2, …}: how many numbered parts stand under each name."""
    numbers: dict[str, set[int]] = {}
    for name in stored:
        match = re.match(r"(.*?)\.(\d+)\.", name)
        if match:
            numbers.setdefault(match[1], set()).add(int(match[2]))
    return {name: len(found) for name, found in numbers.items()}
