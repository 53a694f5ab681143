"""Engine transformers: Hugging Face's own code, on CPUs and GPUs. It runs every model."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from radquant.generation.engines.kind import Address, Command, Engine, Opened, Wanted
from radquant.generation.running import Row, RunningBatch
from radquant.generation.tasks import Done, Task

SCORES = True
SAMPLES = True
TIMED = True


def check_configuration(config: Mapping[str, Any]) -> None:
    """It runs everything."""


def environment(device: str) -> str | None:
    return None


def why_not(wanted: Wanted) -> str | None:
    return None


def load(wanted: Wanted) -> Opened:
    from radquant.generation.loaded_models import opened_here
    from radquant.kernels.choice import use_kernels
    from radquant.runtime.head import multiply_rows
    from radquant.vision.handing import hand_out
    from radquant.vision.processors import load_processor

    loaded, processor = wanted.loaded, None
    if wanted.images:
        processor = load_processor(wanted.model, loaded.tokenizer)
        hand_out(loaded.model)
    use_kernels(loaded)
    multiply_rows(loaded.model)
    return opened_here(wanted, processor=processor)


def write(opened: Opened, task: Task) -> Done:
    from radquant.generation import transformers_writing
    from radquant.generation.loaded_models import measured

    loaded = opened.wanted.loaded
    return measured(opened, task, lambda: transformers_writing.write(loaded, task))


def score(opened: Opened, task: Task) -> Done:
    from radquant.generation import transformers_likelihood
    from radquant.generation.loaded_models import measured

    loaded = opened.wanted.loaded
    return measured(opened, task, lambda: transformers_likelihood.score(loaded, task))


def write_row(opened: Opened, row: Row, go_on: Callable[[Row], bool]) -> None:
    from radquant.generation.transformers_writing import write_row

    write_row(opened.wanted.loaded, row, opened.end_ids, go_on)


def running(opened: Opened, cache: int) -> RunningBatch | None:
    return None


def server(wanted: Wanted, address: Address) -> Command | None:
    return None


if TYPE_CHECKING:
    from radquant.generation.engines import transformers_engine

    _: Engine = transformers_engine
