"""Which engine writes the reports. Nothing here imports PyTorch before it must."""

from collections.abc import Callable
from typing import Any

from radquant.errors import UserError

AUTO, TRANSFORMERS, VLLM = "auto", "transformers", "vllm"
ENGINES = (AUTO, TRANSFORMERS, VLLM)


def resolve_engine(name: str) -> str:
    """The engine that `name` stands for; "auto" is transformers."""
    return TRANSFORMERS if name == AUTO else name


def batch_writer(engine: str) -> Callable[..., Any]:
    """What writes batches with a loaded model, called as transformers_engine.generate_batches is.

    vLLM loads the model itself, in its own environment: see vllm_engine.
    """
    if engine == TRANSFORMERS:
        from radquant.generation.transformers_engine import generate_batches

        return generate_batches
    raise UserError(f"engine {engine!r} does not write with a model that is loaded here")
