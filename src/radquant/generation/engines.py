"""Which engine writes the reports. Nothing here imports PyTorch before it must."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from radquant.errors import UserError
from radquant.prompts import Prompt
from radquant.settings.precision import Activations

AUTO, LEAN, TRANSFORMERS, VLLM = "auto", "lean", "transformers", "vllm"
ENGINES = (AUTO, LEAN, TRANSFORMERS, VLLM)


@dataclass(frozen=True)
class Task:
    """What is to be written or scored, behind the checkpoint's stored prefix."""

    label: str  # for the progress bar
    batches: list[list[Prompt]]
    shared: list[int]  # tokens with which all prompts begin, to be run once
    longest: int  # tokens of the longest sequence, with its answer
    batch_size: int
    max_new_tokens: int = 0
    end_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    @property
    def prompts(self) -> list[Prompt]:
        return [prompt for batch in self.batches for prompt in batch]


@dataclass
class Pace:
    """Where the time of writing went: into the prompts, and into all tokens behind the first."""

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_tokens: int = 0


@dataclass
class Work:
    """What was done, in the order of the task's prompts."""

    results: list[Any]  # of each prompt: an Output, or the nats of its answer
    seconds: list[float]  # how long each batch, or each prompt, took
    too_large: list[int]  # sizes of batches that did not fit into memory
    shared_tokens: int  # of all sequences, that were run once
    pace: Pace | None = None  # of writing


def choose(name: str, loaded: Any, rounding: Activations | None, processor: Any = None) -> str:
    """The engine that `name` stands for with a loaded model: LEAN or TRANSFORMERS.

    auto is the lean engine for what it can run, and transformers for all else. processor: the
    model's own, for prompts with images.

    Raises UserError if the lean engine is asked for and cannot run this, and for vLLM, which loads
    the model itself and does not say how likely it finds a text.
    """
    if name == VLLM:
        raise UserError(f"engine {name!r} does not compute with a model that is loaded here")
    if name == TRANSFORMERS:
        return TRANSFORMERS
    from radquant.generation.lean_decoder import unsupported

    images = None if processor is None else "it shows no images"
    reason = images or unsupported(loaded, rounding)
    if reason is None:
        return LEAN
    if name == LEAN:
        raise UserError(f"the lean engine cannot run this: {reason}; use engine auto")
    return TRANSFORMERS


def batches_of(prompts: Sequence[Prompt], plan: Sequence[Sequence[int]]) -> list[list[Prompt]]:
    return [[prompts[i] for i in batch] for batch in plan]
