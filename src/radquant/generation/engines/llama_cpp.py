"""Engine llama.cpp: GGUF files as llama.cpp runs them, in an environment of its own, on a CPU.

`llama_cpp_job.py` hands tokens to it, `llama_cpp_decoding.py` is the part that runs there, and
`radquant.llama_cpp` is its library. A precision names it: the original is no GGUF file.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.generation.engines.kind import Address, Command, Engine, Opened, Wanted
from radquant.generation.running import Row, RunningBatch
from radquant.generation.tasks import Done, Task
from radquant.settings.precision import LLAMA_CPP, LLAMA_CPP_TYPES

SCORES = True
SAMPLES = False
TIMED = True


def check_configuration(config: Mapping[str, Any]) -> None:
    if config["compute"]["engine"] == LLAMA_CPP:
        raise UserError(
            "compute.engine llama.cpp cannot run the original, which is no GGUF file; give "
            "precisions.NAME.engine to the precisions that it is to run"
        )
    for name, precision in config["precisions"].items():
        if precision.get("engine") != LLAMA_CPP:
            continue
        if config["compute"]["device"] == "cuda":
            raise UserError(
                f"precisions.{name}.engine llama.cpp runs on CPUs here; set compute.device to cpu"
            )
        if config["task"]["image_column"]:
            raise UserError(
                f"precisions.{name}.engine llama.cpp is not for task.image_column here; leave "
                "engine out"
            )


def environment(device: str) -> str | None:
    return "llama-cpp"


def why_not(wanted: Wanted) -> str | None:
    """Also None where the checkpoint's files will say why: `load` reads them."""
    if wanted.python is None:
        return (
            "engine llama.cpp needs --engine-python, the Python of an environment that has it; "
            "scripts/build_env.py makes one from envs/llama-cpp.txt"
        )
    if not wanted.python.is_file():
        return f"--engine-python {wanted.python} does not exist; check the path"
    if wanted.device == "cuda":
        return "engine llama.cpp runs on CPUs here; set --device to cpu"
    if wanted.activations is not None or wanted.lm_head is not None:
        return (
            "engine llama.cpp rounds activations as its own types say, and no head; leave them "
            "out, or use engine auto"
        )
    if wanted.kv_cache is not None and wanted.kv_cache.type not in LLAMA_CPP_TYPES:
        return (
            f"engine llama.cpp has no KV cache of type {wanted.kv_cache.type}; use one of "
            f"{', '.join(LLAMA_CPP_TYPES)}, or engine auto"
        )
    return "engine llama.cpp is not for reports with images here" if wanted.images else None


def load(wanted: Wanted) -> Opened:
    from radquant.generation.llama_cpp_job import opened_there

    return opened_there(wanted)


def write(opened: Opened, task: Task) -> Done:
    from radquant.generation.llama_cpp_job import write

    return write(opened, task)


def score(opened: Opened, task: Task) -> Done:
    from radquant.generation.llama_cpp_job import score

    return score(opened, task)


def write_row(opened: Opened, row: Row, go_on: Callable[[Row], bool]) -> None:
    from radquant.generation.llama_cpp_job import write_row

    write_row(opened, row, go_on)


def running(opened: Opened, cache: int) -> RunningBatch | None:
    return None


def server(wanted: Wanted, address: Address) -> Command | None:
    return None


if TYPE_CHECKING:
    from radquant.generation.engines import llama_cpp

    _: Engine = llama_cpp
