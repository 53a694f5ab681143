"""The model in a directory whose weights are a GGUF file, computed with in the engines here.

In float32 every value is exactly the one that the file's blocks stand for, and in 16 bits the
nearest to it. What the file has not, such as the part of a model that sees images, lies beside it
as safetensors, as the original has it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.building import Part, assign, use_generation_config, whole
from radquant.checkpoints.finite_weights import overflow
from radquant.checkpoints.fitting import empty_model, found_names, refuse_converted
from radquant.checkpoints.parts import is_language
from radquant.errors import UserError
from radquant.finite import is_finite
from radquant.gguf.keys import check_keys
from radquant.gguf.reading import (
    FLOAT_TYPES,
    GGUFModel,
    GGUFTensor,
    hugging_face_values,
    read_model,
    row_slices,
)
from radquant.model_files import StoredTensor, gguf_file, stored_tensors
from radquant.packed.linear import ValueLinear

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LANGUAGE = "language_model."  # before the names of the language part of a model with images


def build_gguf_model(
    config: Any,
    directory: Path,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    part: Part = whole,
) -> nn.Module:
    """Build the model of a GGUF directory on the CPU, with a `ValueLinear` for each packed layer.

    config: the directory's transformers config, the original's. All tensors get `dtype`. part:
    what is read of that beside the file; the rest is on the meta device. Raises UserError unless
    the file holds all of the language model, and computes what the original's config.json says.
    """
    path = gguf_file(directory, config.quantization_config)
    del config.quantization_config
    config.dtype = dtype
    file = read_model(path)
    check_keys(file, config)
    names = file.hugging_face_names()
    fit_vocabulary(file, names, config)
    model = empty_model(config, trust_remote_code)
    before = LANGUAGE if getattr(config, "vision_config", None) is not None else ""
    asked = {f"{before}{name}": stored for stored, name in names.items()}
    beside = stored_tensors(directory)
    own, _, converted = found_names(model, [*asked, *beside], path)
    refuse_converted(model, converted, path)
    fill(model, file, {own[name]: asked[name] for name in asked if name in own}, dtype)
    wanted = part(model)
    chosen = {own[name]: beside[name] for name in beside if name in own and wanted(own[name])}
    assign(model, chosen, dtype, directory)
    use_generation_config(model, directory)
    return model


def build_beside_gguf(
    config: Any, directory: Path, dtype: torch.dtype, trust_remote_code: bool = False
) -> nn.Module:
    """Build what lies beside the GGUF file of a directory; the rest is on the meta device."""
    del config.quantization_config
    config.dtype = dtype
    model = empty_model(config, trust_remote_code)
    beside = stored_tensors(directory)
    own = names_beside_gguf(model, beside, directory)
    assign(model, {own[name]: beside[name] for name in own}, dtype, directory)
    return model


def names_beside_gguf(model: Any, beside: Iterable[str], directory: Path) -> dict[str, str]:
    """The model's own names of the part that sees, which lies beside a GGUF file: {stored: own}."""
    language = set(filter(is_language(model), model.state_dict()))
    own, _, converted = found_names(model, [*beside, *language], directory)
    refuse_converted(model, converted, directory)
    return {name: renamed for name, renamed in own.items() if renamed not in language}


def fit_vocabulary(file: GGUFModel, names: Mapping[str, str], config: Any) -> None:
    """Give the model as many rows of the vocabulary as the file has, and a head if it has one.

    Converters leave out rows behind the last token, which no text can use. Raises UserError for a
    head that the original has and the file has not.
    """
    text = config.get_text_config()
    stored = {name: file.tensors[own] for own, name in names.items()}
    if EMBEDDING in stored:
        rows = stored[EMBEDDING].shape[0]
        if rows > text.vocab_size:
            raise UserError(
                f"{file.path} has {rows} rows of token_embd.weight, and by the original's "
                f"config.json there are {text.vocab_size}; take a file of the same model"
            )
        text.vocab_size = rows
    tied = getattr(config, "tie_word_embeddings", False) or text.tie_word_embeddings
    if HEAD in stored:
        config.tie_word_embeddings = text.tie_word_embeddings = False
    elif not tied:
        raise UserError(
            f"{file.path} has no output.weight, and the original's head is not its embedding (its "
            "config.json says tie_word_embeddings: false); take a file of the same model"
        )


def fill(model: nn.Module, file: GGUFModel, names: Mapping[str, str], dtype: torch.dtype) -> None:
    """Put the file's tensors into the model. names: {the model's own name: the file's}."""
    text = model.config.get_text_config()  # type: ignore[operator, union-attr]
    heads = (text.num_attention_heads, text.num_key_value_heads)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    plain: dict[str, Tensor] = {}
    for name, stored in names.items():
        tensor = file.tensors[stored]
        if tensor.shape != shapes[name]:
            raise UserError(
                f"{file.path}: {stored} has shape {list(tensor.shape)}, and by the original's "
                f"config.json it has {list(shapes[name])}; take a file of the same model"
            )
        values = values_in(file, tensor, heads, dtype)
        layer, _, kind = name.rpartition(".")
        linear = model.get_submodule(layer)
        packed = tensor.type not in FLOAT_TYPES
        if packed and kind == "weight" and isinstance(linear, nn.Linear):
            parent, _, child = layer.rpartition(".")
            quantized = ValueLinear(values, linear.bias is not None)
            setattr(model.get_submodule(parent), child, quantized)
        else:
            plain[name] = values
    model.load_state_dict(plain, strict=False, assign=True)
    model.tie_weights()  # type: ignore[operator]


def values_in(
    file: GGUFModel, tensor: GGUFTensor, heads: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """A tensor's values as Hugging Face's model has them, rounded to `dtype`.

    No more than a few of its rows are in float32 at a time. Raises UserError for values that are
    no finite numbers, as they are stored or in `dtype`.
    """
    values = torch.empty(tensor.shape, dtype=dtype)
    for rows in row_slices(tensor):
        exact = torch.from_numpy(hugging_face_values(file, tensor, *heads, rows))
        values[rows] = exact
        if not is_finite(values[rows]):
            raise overflow(f"{file.path}: tensor {tensor.name}", float(exact.abs().max()), dtype)
    return values


def beside_language(original: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """What of an original's tensors no GGUF file of its language model holds."""
    from radquant.gguf.names import text_name

    return {name: tensor for name, tensor in original.items() if text_name(name) is None}
