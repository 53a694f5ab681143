"""Language models in the GGUF format of llama.cpp, as Hugging Face directories."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.gguf_header import check_model


def convert_gguf(path: Path, output: Path) -> str:
    """Write the model in the GGUF file `path` into `output` as one float16 model.safetensors.

    Returns a sentence on where the weights come from, for the report.
    """
    header = check_model(path)
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # which fills a log file with unreadable lines
    folder, name = path.parent, path.name
    try:
        with _asked_once():
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                gguf_file=name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float16,
                local_files_only=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    except Exception as error:  # of whatever its readers stumble over; it holds no report
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name} cannot be read as a GGUF language model ({type(error).__name__}: {said})"
        ) from error
    _check_tensors(name, model, found["missing_keys"])
    types = {gguf.GGMLQuantizationType(kind).name for _, kind, _ in header.tensors.values()}
    # One file whatever the size, so that its name is known before the model is fetched.
    model.save_pretrained(output, max_shard_size="1000GB")
    tokenizer.save_pretrained(output)
    packed = ", ".join(sorted(types - {"F32", "F16", "BF16"})) or "float"
    return (
        f"The original weights were dequantized to float16 from the GGUF file {name} ({packed}). "
        "So the original model of this run had itself been quantized."
    )


def write_config_of(path: Path, output: Path) -> None:
    """Write the config.json of the model in a GGUF file into `output`; no weight is read."""
    check_model(path)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    config.save_pretrained(output)


@contextmanager
def _asked_once() -> Iterator[None]:
    """Let gguf remember what it has read.

    transformers asks for a file's header three times and for the table of names once a module. Each
    header is read anew, key by key in Python: most of the time that a small model takes.
    """
    import gguf

    slow = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in slow.items():
            setattr(gguf, name, functools.cache(function))
        yield
    finally:
        for name, function in slow.items():
            setattr(gguf, name, function)


def _check_tensors(name: str, model: Any, missing: Iterable[str]) -> None:
    """Raise UserError where a weight would be a random number, or none in float16."""
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    lost = sorted(set(missing) - tied)
    if lost:
        raise UserError(
            f"{name} lacks the tensor of {lost[0]}, which would be random; fetch a whole file"
        )
    for key, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{name}: {key} holds values that are no finite float16; take the model from hub "
                "or path, in its own number format"
            )
