"""Which engine writes the reports. Nothing here imports PyTorch before it must."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from radquant.errors import UserError
from radquant.prompts import Prompt
from radquant.quantization.precision import Activations

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


def ready(
    name: str, loaded: Any, rounding: Activations | None, processor: Any = None
) -> tuple[str, Callable[[Task], Work], Callable[[Task], Work]]:
    """Make a loaded model ready for the engine `name`: the engine's name, its writer, its scorer.

    auto is the lean engine for what it can run, and transformers for all else. `loaded` says
    afterwards what multiplies. processor: the model's own, for prompts with images. vLLM loads the
    model itself, and scores nothing here.

    Raises UserError if the lean engine is asked for and cannot run this.
    """
    if name == VLLM:
        raise UserError(f"engine {name!r} does not write with a model that is loaded here")
    reason = None if processor is None else "it shows no images"
    if name != TRANSFORMERS:
        from radquant.generation import lean_decoder, lean_engine

        reason = reason or lean_decoder.unsupported(loaded, rounding)
        if reason is None:
            lean = lean_decoder.take_over(loaded, rounding)
            stored, tokenizer = loaded.runtime.prefix, loaded.tokenizer
            return (
                LEAN,
                lambda task: lean_engine.write(lean, tokenizer, task, stored),
                lambda task: lean_engine.score(lean, task, stored),
            )
        if name == LEAN:
            raise UserError(f"the lean engine cannot run this: {reason}; use engine auto")
    from radquant.generation import likelihood, transformers_engine
    from radquant.models import use_kernels

    use_kernels(loaded)
    return (
        TRANSFORMERS,
        lambda task: transformers_engine.write(loaded, task, processor),
        lambda task: likelihood.score(loaded, task, processor),
    )


def batches_of(prompts: Sequence[Prompt], plan: Sequence[Sequence[int]]) -> list[list[Prompt]]:
    return [[prompts[i] for i in batch] for batch in plan]
