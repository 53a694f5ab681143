"""Engine lean: this package's own decoder, for CPUs (`generation/lean_decoder.py`)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from radquant.generation.engines.kind import Address, Command, Engine, Opened, Wanted
from radquant.generation.running import Row, RunningBatch
from radquant.generation.tasks import Done, Task
from radquant.settings.precision import Activations

SCORES = True
SAMPLES = True
TIMED = True


def check_configuration(config: Mapping[str, Any]) -> None:
    """Which models it can run shows when they are loaded."""


def environment(device: str) -> str | None:
    return None


def why_not(wanted: Wanted) -> str | None:
    from radquant.checkpoints.loading import resolve_device
    from radquant.generation.lean_decoder import unsupported
    from radquant.kernels import cpu

    if resolve_device(wanted.device).type == "cpu":
        # The compiler takes gigabytes, once on a machine: not while the weights are in memory.
        cpu.unavailable()
    reason = unsupported(wanted.loaded, rounding(wanted))
    return reason and f"the lean engine cannot run this: {reason}; use engine auto"


def rounding(wanted: Wanted) -> Activations | None:
    """Of activations, as the precision asks or the checkpoint itself says."""
    simulation = wanted.loaded.simulation
    return wanted.activations if simulation is None else simulation.settings


def load(wanted: Wanted) -> Opened:
    from radquant.generation.lean_decoder import take_over
    from radquant.generation.loaded_models import opened_here
    from radquant.vision.processors import load_processor

    loaded = wanted.loaded
    processor = load_processor(wanted.model, loaded.tokenizer) if wanted.images else None
    held = take_over(loaded, rounding(wanted), wanted.folder)
    return opened_here(wanted, processor=processor, held=held)


def write(opened: Opened, task: Task) -> Done:
    from radquant.generation import lean_writing
    from radquant.generation.loaded_models import measured

    prefix = opened.wanted.loaded.runtime.prefix
    return measured(
        opened, task, lambda: lean_writing.write(opened.held, opened.tokenizer, task, prefix)
    )


def score(opened: Opened, task: Task) -> Done:
    from radquant.generation import lean_likelihood
    from radquant.generation.loaded_models import measured

    prefix = opened.wanted.loaded.runtime.prefix
    return measured(opened, task, lambda: lean_likelihood.score(opened.held, task, prefix))


def write_row(opened: Opened, row: Row, go_on: Callable[[Row], bool]) -> None:
    """Rows are written in the running batch."""
    raise NotImplementedError


def running(opened: Opened, cache: int) -> RunningBatch | None:
    from radquant.generation.lean_running import LeanBatch

    return LeanBatch(opened.held, opened.wanted.loaded.runtime.prefix, cache)


def server(wanted: Wanted, address: Address) -> Command | None:
    return None


if TYPE_CHECKING:
    from radquant.generation.engines import lean

    _: Engine = lean
