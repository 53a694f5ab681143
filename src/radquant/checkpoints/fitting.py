"""Whether the tensors of a model's files are those that its class computes with, and their names.

transformers draws what is missing at random and leaves what it does not know, with a warning at
most. Here either is an error, for all that read a model.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radquant.checkpoints.experts import Experts, experts_apart, take_apart
from radquant.collecting import without_collecting
from radquant.errors import UserError
from radquant.failures import about, is_out_of_memory
from radquant.model_checks import FLOATS
from radquant.model_files import CONFIG, StoredTensor

COMPARED_BYTES = 1 << 24  # at a time
# What other programs store with a model although it follows from its config.json.
HARMLESS = (
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$",
    r"(^|\.)position_ids$",
    r"(^|\.)masked_bias$",
)


@without_collecting()
def open_config(directory: Path, trust_remote_code: bool = False) -> Any:
    """The transformers configuration in a directory; raises UserError if it cannot be one."""
    from transformers import AutoConfig, GenerationConfig

    name = CONFIG
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
        name = "generation_config.json"
        writing = (
            GenerationConfig.from_pretrained(directory)
            if (directory / name).is_file()
            else GenerationConfig()
        )
    except Exception as error:  # any: its values go through code of each model type
        if is_out_of_memory(error):
            raise
        raise UserError(f"{directory / name} cannot be read: {about(error)}") from None
    if writing.cache_implementation == "quantized":  # others change no value
        raise UserError(
            f"{directory / name} says cache_implementation quantized, which is not applied; take "
            "it out, and give a precision a kv_cache"
        )
    return config


def model_class(config: Any) -> Any:
    """The transformers class that builds a language model, or one with images, from `config`."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    with_images = getattr(config, "vision_config", None) is not None
    return AutoModelForImageTextToText if with_images else AutoModelForCausalLM


def drop_unknown_padding(config: Any) -> None:
    """Let a padding token that the vocabulary has not be none: no embedding can be kept for it."""
    text = config.get_text_config()
    for each in (config, text):
        pad = getattr(each, "pad_token_id", None)
        if isinstance(pad, int) and not 0 <= pad < getattr(text, "vocab_size", pad + 1):
            each.pad_token_id = None


@without_collecting()
def empty_model(config: Any, trust_remote_code: bool = False) -> nn.Module:
    """The model of `config` with its parameters on the meta device; its buffers are real."""
    from accelerate import init_empty_weights

    drop_unknown_padding(config)
    try:
        with init_empty_weights(include_buffers=False):
            model: nn.Module = model_class(config).from_config(
                config, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # any, see above; there is no text but the configuration's
        if is_out_of_memory(error):
            raise
        where = Path(getattr(config, "name_or_path", "")) / CONFIG
        raise UserError(
            f"no model of type {config.model_type!r} can be built of {where}: {about(error)}"
        ) from None
    if path := experts_apart(config):
        take_apart(model, path)
    return model.eval().requires_grad_(False)


def names_in_model(
    model: Any, stored: Iterable[str], where: object = "the model", spare: Collection[str] = ()
) -> dict[str, str]:
    """The model's own name of each tensor of a checkpoint: {stored: own}.

    Tied ones are left out, and harmless ones that the model does not know. where: for messages.
    spare: tensors that the model may lack.

    A class may change its layout after a checkpoint was made. MedGemma's files speak of
    `language_model.model.layers`, its class today of `model.language_model.layers`. transformers
    keeps the rules for that. Raises UserError unless every parameter is found, once.
    """
    names, _, converted = found_names(model, stored, where, spare)
    refuse_converted(model, converted, where)
    return names


def refuse_converted(model: Any, converted: Iterable[str], where: object) -> None:
    """Raise UserError if a tensor is stored in another form than the model computes with."""
    if name := min(converted, default=None):
        raise UserError(
            f"{where}: {name} is stored in another form than {type(model).__name__} computes "
            "with; this model cannot be quantized yet"
        )


def found_names(
    model: Any, stored: Iterable[str], where: object, spare: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """As `names_in_model`; the same of tied ones; and of what is computed with in another form."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if not isinstance(rule, WeightRenaming)]
    if any(isinstance(module, Experts) for module in model.modules()):  # which are as in the files
        converters = []
    own = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    ignored = [*HARMLESS, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    names: dict[str, str] = {}
    doubles: dict[str, str] = {}
    converted: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name in stored:
        renamed, pattern = rename_source_key(
            name, renamings, converters, model.base_model_prefix, own
        )
        if pattern is not None:
            converted[name] = renamed
            continue
        if renamed not in own and name in own:
            renamed = name
        if renamed in sources:
            raise UserError(
                f"{where} holds {sources[renamed]} and {name}, which are the same part of "
                f"{type(model).__name__}; take one of them out of the weight files"
            )
        sources[renamed] = name
        if renamed in tied:
            doubles[name] = renamed
        elif renamed in own or not (
            name in spare or any(re.search(each, renamed) for each in ignored)
        ):
            names[name] = renamed
    missing = sorted(own.keys() - set(names.values()) - set(converted.values()) - tied)
    unknown = sorted(name for name, renamed in names.items() if renamed not in own)
    if missing:
        instead = f" (but for {unknown[0]})" if unknown else ""
        raise UserError(
            f"{where} has no weights for {missing[0]}{instead}, which {type(model).__name__} has "
            f"by its {CONFIG}; fetch or save the model again"
        )
    if unknown:
        raise UserError(
            f"{where} holds {unknown[0]}, which {type(model).__name__} does not have by its "
            f"{CONFIG}; correct that, or fetch or save the model again"
        )
    return names, doubles, converted


def check_fit(model: Any, stored: Mapping[str, StoredTensor], directory: Path) -> None:
    """Raise UserError unless an original model's files hold exactly what its class computes with.

    model: an empty one. stored: as `model_files.stored_tensors` returns them.
    """
    names, doubles, _ = found_names(model, stored, directory)
    own, parameters = model.state_dict(), dict(model.named_parameters())
    for name, renamed in (names | doubles).items():
        tensor = stored[name]
        if tensor.shape != tuple(own[renamed].shape):
            raise UserError(
                f"{tensor.file}: {name} has shape {list(tensor.shape)}, and by {CONFIG} it has "
                f"{list(own[renamed].shape)}; correct it or fetch the model again"
            )
        if renamed in parameters and tensor.dtype not in FLOATS:
            raise UserError(
                f"{tensor.file}: {name} is stored as {tensor.dtype}, in which the model cannot "
                "compute; take the original model"
            )
    check_tied(model, stored, names, doubles)


def check_tied(
    model: Any,
    stored: Mapping[str, StoredTensor],
    names: Mapping[str, str],
    doubles: Mapping[str, str],
) -> None:
    """Raise UserError if two tensors differ that are one by the configuration.

    transformers then takes both, and others the first. names, doubles: as `found_names` has them.
    """
    sources = {renamed: stored[name] for name, renamed in names.items() if name in stored}
    for name, renamed in doubles.items():
        source = sources.get(model.all_tied_weights_keys[renamed])
        if source is not None and name in stored and not equal(stored[name], source):
            raise UserError(
                f"{stored[name].file}: {name} and {source.key} are one by {CONFIG}, and have "
                f"different values; set tie_word_embeddings to false there, or take {name} out"
            )


def equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors of one shape have the same values."""
    if one.dtype != other.dtype:
        return torch.equal(one.load().float(), other.load().float())
    with open(one.file, "rb") as left, open(other.file, "rb") as right:
        left.seek(one.begin)
        right.seek(other.begin)
        for start in range(one.begin, one.end, COMPARED_BYTES):
            count = min(COMPARED_BYTES, one.end - start)
            if left.read(count) != right.read(count):
                return False
    return True
