"""Language models in the GGUF format of llama.cpp, as Hugging Face directories."""

from pathlib import Path

from radquant.errors import UserError


def convert_gguf(path: Path, output: Path) -> str:
    """Write the model in the GGUF file `path` into `output` as one float16 model.safetensors.

    Returns a sentence on where the weights come from, for the report.
    """
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # which fills a log file with unreadable lines
    folder, name = path.parent, path.name
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float16,
            local_files_only=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        raise UserError(
            f"{name} cannot be read as a GGUF language model ({type(error).__name__}: {error})"
        ) from error
    types = {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    # One file whatever the size, so that its name is known before the model is fetched.
    model.save_pretrained(output, max_shard_size="1000GB")
    tokenizer.save_pretrained(output)
    packed = ", ".join(sorted(types - {"F32", "F16", "BF16"})) or "float"
    return (
        f"The original weights were dequantized to float16 from the GGUF file {name} ({packed}): "
        "the original model of this run is itself one that had been quantized."
    )
