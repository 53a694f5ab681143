"""What an engine is given to do, and what it made of it. Nothing here needs PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.prompts import Prompt

if TYPE_CHECKING:
    from radquant.vision.features import Features


@dataclass(frozen=True)
class Task:
    """What is to be written or scored, behind the checkpoint's stored prefix."""

    label: str  # for the progress bar; none if it is empty
    batches: list[list[Prompt]]
    shared: list[int]  # tokens with which all prompts begin, to be run once
    longest: int  # tokens of the longest sequence, with its answer
    batch_size: int
    max_new_tokens: int = 0
    end_ids: tuple[int, ...] | None = ()  # None: nothing ends an answer but its length
    stop: tuple[str, ...] = ()
    features: "Features | None" = None  # of the prompts' images; None where there are none
    # Of writing: whether the prompts' answers may be scored on the way (`Work.scored`).
    scores: bool = False

    @property
    def prompts(self) -> list[Prompt]:
        return [prompt for batch in self.batches for prompt in batch]


@dataclass(frozen=True)
class Output:
    """What the model wrote for one report; the prompt is never part of it."""

    text: str
    tokens: int  # generated tokens, the one that ended the answer included
    finish: str  # "stop": the model ended or wrote a stop string; "length": it was cut off


@dataclass
class Pace:
    """Where the time of writing went: into the prompts, and into all tokens behind the first."""

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_tokens: int = 0


@dataclass
class Scored:
    """Answers that were scored on the way, by an engine that had read their prompts to write."""

    nats: list[float]  # of each answer, in the order of the task's prompts
    # The time of the answers alone. The time of reading the prompts belongs to writing.
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class Work:
    """What was done, in the order of the task's prompts."""

    results: list[Any]  # of each prompt: an Output, or the nats of its answer
    seconds: list[float]  # how long each batch, or each prompt, took
    too_large: list[int]  # sizes of batches that did not fit into memory
    shared_tokens: int  # of all sequences, that were run once
    pace: Pace | None = None  # of writing, where the engine tells its parts apart
    scored: Scored | None = None  # None: this engine, or this model, has to score by itself


@dataclass(frozen=True)
class Computed:
    """Where and how a task was computed, under the names of a stage's record."""

    device: str  # "cpu" or "cuda"
    device_name: str
    dtype: str
    versions: dict[str, str]  # of the packages that computed
    kernel: str  # what multiplied by packed weights; "none" without any
    layers_quantized: int  # packed linear layers
    activation_layers: int  # linear layers that round their input
    simulated: bool  # something was rounded that takes as much time and memory as if it were not
    weight_bytes: int  # in memory
    load_seconds: float
    peak_process_bytes: int
    peak_device_bytes: int | None  # None on a CPU
    # The quantized layers that are in memory as the values of their weights. The format has no
    # kernel here, so memory and time say nothing of it.
    value_layers: int = 0


@dataclass(frozen=True)
class Done:
    """A task's work, and what it took."""

    work: Work
    batches: int
    wall_seconds: float
    cpu_seconds: float
    computed: Computed
    # If another process did the work: how long its threads waited for a core. None if this one did.
    waited_seconds: float | None = None


def check_ends(max_new_tokens: int, end_ids: Sequence[int] | None) -> None:
    """Raise UserError unless an answer can hold a token, and something can end it.

    end_ids: as in a `Task`.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    if end_ids is not None and not end_ids:
        raise UserError(
            "the model names no token that ends an answer; set eos_token_id in its "
            "generation_config.json"
        )


def not_finite(report: str) -> UserError:
    """What to raise for a report whose next token's scores are no numbers."""
    return UserError(
        f"the model's scores for report {report} are not finite; use compute.dtype bfloat16 or "
        "float32, or a checkpoint whose values are finite"
    )


def batches_of(prompts: Sequence[Prompt], plan: Sequence[Sequence[int]]) -> list[list[Prompt]]:
    return [[prompts[i] for i in batch] for batch in plan]
