"""What an engine is: the names that a module in the registry's table of engines must have.

There are two sorts. An engine of this environment computes with the model that is loaded here
(`Wanted.loaded`). An engine with an environment of its own is given the prompts as tokens and loads
the model itself. `environment` names it, and it may write without scoring references.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from radquant.chat_templates import DATE
from radquant.generation.running import Row, RunningBatch
from radquant.generation.tasks import Done, Task
from radquant.settings.precision import Activations, KVCache, LMHead

if TYPE_CHECKING:
    from radquant.checkpoints.loading import Loaded


@dataclass
class Wanted:
    """A model or checkpoint to be opened in a precision, and the machine's part in it."""

    model: Path
    device: str = "auto"  # or "cpu", "cuda"
    dtype: str = "auto"  # or "float32", "bfloat16", "float16"
    activations: Activations | None = None
    kv_cache: KVCache | None = None
    lm_head: LMHead | None = None
    images: bool = False  # whether prompts show some
    features: Path | None = None  # folder of the images' features; None: they are encoded here
    threads: int = 1
    trust_remote_code: bool = False
    chat_template: Path | None = None  # in the place of the model's own
    date: str = DATE  # that a chat template is told which asks for it, as YYYY-MM-DD
    python: Path | None = None  # of the environment, for an engine that has its own
    engine: str | None = None  # the precision's own, in the place of the run's
    # Where files may lie meanwhile. These are prompts for an engine with an environment of its own,
    # and weights of engine lean that do not fit into memory.
    folder: Path = Path()

    @cached_property
    def loaded(self) -> "Loaded":
        """The model, loaded here in this precision when it is first asked for.

        Where prompts show images, it is without the part that sees: it is handed their features.
        """
        from radquant.checkpoints.loading import load, resolve_device, resolve_dtype

        device = resolve_device(self.device)
        return load(
            self.model,
            device,
            resolve_dtype(self.dtype, device),
            self.activations,
            self.trust_remote_code,
            self.kv_cache,
            self.lm_head,
            vision=not self.images,
        )


@dataclass
class Opened:
    """A model in an engine's hands, and what prompts for it depend on."""

    wanted: Wanted
    dtype: str  # of the computation, without "torch."
    tokenizer: Any
    processor: Any  # the model's own, for prompts with images; else None
    end_ids: tuple[int, ...]  # tokens that end an answer
    context: int | None  # tokens that the model can attend to; None: it does not say
    stored: tuple[int, ...]  # tokens of the checkpoint's stored prefix
    vocabulary: int | None = None  # tokens that the model knows; None: it does not say
    stop: tuple[str, ...] = ()  # texts that end an answer where the template has no token for it
    kernel: str | None = None  # what multiplies by packed weights; None: not known yet
    on_disk: bool = False  # whether every step reads the weights from there
    held: Any = None  # the engine's own
    # What `opening.open_precision` adds.
    engine: str = ""
    load_seconds: float = 0.0


@dataclass(frozen=True)
class Address:
    """How a served model is reached."""

    name: str  # of the model, for clients
    host: str
    port: int
    max_model_len: int | None = None  # tokens of prompt and answer; None: the model's own limit


@dataclass(frozen=True)
class Command:
    """A program that serves: its words, and variables beside those of this process."""

    words: list[str]
    variables: dict[str, str]


class Engine(Protocol):
    """The module of an engine; importing it imports neither PyTorch nor what it runs with."""

    @property
    def SCORES(self) -> bool:
        """Whether it says how likely it finds a text; if not, `score` is never called."""

    @property
    def SAMPLES(self) -> bool:
        """Whether rows get what they ask for: tokens that are drawn, and chances of tokens."""

    @property
    def TIMED(self) -> bool:
        """Whether it holds the model from one task to the next, so that its speed is measured."""

    def check_configuration(self, config: Mapping[str, Any]) -> None:
        """Raise UserError unless it can do all that `config`, with every default in, asks of it.

        Called only if the configuration names the engine, for the run or for a precision. What
        shows in the model's files alone is left to `why_not` and `load`.
        """

    def environment(self, device: str) -> str | None:
        """The environment that it runs in, `envs/NAME.txt`; None for this package's own.

        device: "cpu" or "cuda".
        """

    def why_not(self, wanted: Wanted) -> str | None:
        """Why it cannot run this, as a sentence that says what to do; None if nothing is known."""

    def load(self, wanted: Wanted) -> Opened:
        """Take what `why_not` had nothing against; raises UserError if it cannot be run after all.

        The model may be loaded here, or later, when the first task says how long its sequences are.
        """

    def write(self, opened: Opened, task: Task) -> Done:
        """Write the answers of a task greedily: an `Output` for each prompt."""

    def score(self, opened: Opened, task: Task) -> Done:
        """For each prompt −log p(answer | prompt), in nats."""

    def running(self, opened: Opened, cache: int) -> RunningBatch | None:
        """A batch that prompts join while it runs, for our endpoint; None: it calls `write_row`.

        cache: bytes that keys and values may take. While the batch is in use, `write` and `score`
        are not called.
        """

    def write_row(self, opened: Opened, row: Row, go_on: Callable[[Row], bool]) -> None:
        """Write one answer whole; never called of an engine that has a running batch.

        go_on: is called behind each token, and says whether another is to follow.
        """

    def server(self, wanted: Wanted, address: Address) -> Command | None:
        """What serves the model in the place of this process; None: our endpoint serves it.

        Raises UserError if it cannot serve it.
        """
