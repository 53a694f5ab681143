"""Opening a model or checkpoint in a precision, by the engine that a name stands for."""

from typing import cast

import torch

from radquant import registry
from radquant.checkpoints.loading import resolve_device, stored_rounding
from radquant.errors import UserError
from radquant.generation.engines.kind import Engine, Opened, Wanted
from radquant.generation.measures import stopwatch
from radquant.settings import engines
from radquant.settings.precision import LLAMA_CPP, LLAMA_CPP_TYPES


def open_precision(name: str, wanted: Wanted, scores: bool = False) -> tuple[Engine, Opened]:
    """Open what is wanted, with the first of the engines `name` stands for that can run it.

    scores: whether references will be scored, not only answers written.

    Raises UserError if none can. Sets how many threads PyTorch uses.
    """
    torch.set_num_threads(wanted.threads)
    activations, cache = stored_rounding(wanted.model)
    # A rounding that is asked for and is not the stored one is refused when the model is loaded.
    wanted.activations = wanted.activations or activations
    wanted.kv_cache = wanted.kv_cache or cache
    with stopwatch(resolve_device(wanted.device)) as loading:
        chosen, engine = choose(name, wanted, scores)
        opened = engine.load(wanted)
    opened.engine, opened.load_seconds = chosen, loading.wall_seconds
    return engine, opened


def foreign_cache(name: str, wanted: Wanted) -> str | None:
    """Why none of our engines can run this, for a KV cache of llama.cpp's own types."""
    cache, engine = wanted.kv_cache, wanted.engine or name
    if cache is None or cache.type not in LLAMA_CPP_TYPES or engine == LLAMA_CPP:
        return None
    return f"a KV cache of type {cache.type} is llama.cpp's; use engine llama.cpp"


def choose(name: str, wanted: Wanted, scores: bool = False) -> tuple[str, Engine]:
    """The first engine that `name` stands for and that can run what is wanted, and its name."""
    refused = foreign_cache(name, wanted)
    for each in engines.meant(wanted.engine or name) if refused is None else ():
        engine = cast(Engine, registry.load_kind(registry.ENGINES, each))
        if scores and not engine.SCORES:
            refused = f"engine {each!r} does not say how likely it finds a text; use engine auto"
            continue
        refused = engine.why_not(wanted)
        if refused is None:
            return each, engine
    raise UserError(refused)
