"""How much work a job has, as far as the settings and the model's files tell.

Three amounts decide. They are weights (numbers of the model that are read or written), products (of
a weight with a token) and items (reports, texts or timings). `expected` has the seconds of each.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from radquant.errors import UserError
from radquant.files import read_json
from radquant.model_files import stored_tensors
from radquant.settings.run import ORIGINAL, Run

FETCHED = Path("results/models") / ORIGINAL
# Tokens of a prompt without examples and of one example, taken as in `generation.run_plan`.
PROMPT, EXAMPLE = 150, 120
# What writing a token costs, in tokens of a prompt. It has its own part, and the part of the step
# that all reports of a batch share. With one thread, 98, 439 and 480 tokens a second are written by
# 1, 8 and 32 reports, and 1,482 of prompts read (benchmarks/threads.py).
OWN, STEP = 3, 12
# Wildcards that name what a job is of; others tell shards of one work apart.
NAMES = ("precision", "checkpoint", "system", "environment", "measure", "purpose")
A_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?([MB])(?![a-z])", re.IGNORECASE)
SIZES = {"M": 1e6, "B": 1e9}

Work = Mapping[str, float]


class Kind(NamedTuple):
    """Jobs that take equally long.

    how: what decides on the seconds for so much work, such as a method. name: of the precision,
    checkpoint or system.
    """

    rule: str
    how: str = ""
    name: str = ""


class Size(NamedTuple):
    """How many numbers a model has: all, and those of its layers, without tables of tokens."""

    all: float
    layers: float


def kind_of(rule: str, wildcards: Mapping[str, Any], settings: Run | None) -> Kind:
    """Return what kind a job of a rule is. settings: of the run; None where they are not known."""
    name = next((str(wildcards[key]) for key in NAMES if key in wildcards), "")
    return Kind(rule, "" if settings is None else _how(rule, name, settings), name)


def _how(rule: str, name: str, settings: Run) -> str:
    if rule == "fetch_model":
        return next(place for place in ("wheel", "hub", "path") if getattr(settings.model, place))
    if rule.startswith("quantize"):
        # One that is given is read and written, as where weights are rounded alone.
        return str(getattr(settings.checkpoints.get(name), "method", "rtn"))
    if rule.startswith("generate") and name in settings.precisions:
        precision = settings.precisions[name]
        if precision.activations is not None:
            return str(precision.activations.granularity)
        return "original" if precision.checkpoint == ORIGINAL else "weights"
    if rule.startswith("annotate"):
        return settings.scoring.annotator
    return ""


def of_job(kind: Kind, settings: Run, model: Size) -> dict[str, float]:
    """Return the amounts of work of one job; {} where every run has the same."""
    writing, drawn = settings.generation, settings.evaluation.reports
    written = min(writing.reports or drawn, drawn)
    speed, precisions = settings.speed, len(settings.precisions)
    prompt = PROMPT + writing.examples * EXAMPLE
    if kind.rule in ("fetch_model", "check_model", "verify_checkpoint"):
        return {"weights": model.all}
    if kind.rule == "check_prompts":
        return {"weights": model.all, "items": drawn}
    if kind.rule.startswith("quantize"):
        calibration = settings.calibration
        each = calibration.max_tokens if calibration.pack else min(calibration.max_tokens, PROMPT)
        tokens = 0 if kind.how == "rtn" else calibration.samples * each
        return {"weights": model.layers, "products": model.layers * tokens}
    if kind.rule in ("generate", "generate_only"):
        reports = written / writing.shards
        read, steps = model.layers * prompt, model.all * writing.max_new_tokens
        return {
            "weights": model.all,
            "products": reports * (read + steps * (OWN + STEP / writing.batch_size)),
        }
    if kind.rule == "likelihood_only":
        return {"weights": model.all, "products": drawn * model.layers * prompt}
    if kind.rule == "measure_speed":
        timings = precisions * speed.repeats
        read = model.layers * speed.prompts * prompt
        steps = model.all * speed.tokens * (OWN * speed.prompts + STEP)
        return {
            "weights": precisions * model.all,
            "products": timings * (read + steps),
            "items": timings * speed.seconds,
        }
    items = {
        "calibration_set": settings.calibration.samples,
        "annotate": written / writing.shards,
        "annotate_reference": drawn,
        "baselines": drawn,
        "score": written,
        "report": written * precisions,
    }
    return {"items": items[kind.rule]} if kind.rule in items else {}


def size_of(settings: Run) -> Size | None:
    """Return how large the original model is; before its files are here, what its name says.

    None where that says nothing.
    """
    for folder in (settings.model.path, FETCHED):
        if folder and Path(folder).is_dir():
            try:
                return _stored(Path(folder))
            except (UserError, OSError):  # which the rule that reads it tells of
                continue
    hub = settings.model.hub
    for name in (settings.model.name, hub.id if hub else ""):
        if found := A_SIZE.search(name.replace("-", " ")):
            weights = float(found[1]) * SIZES[found[2].upper()]
            return Size(weights, weights)
    return None


def _stored(folder: Path) -> Size | None:
    config = read_json(folder / "config.json")
    rows = {part.get("vocab_size") for part in (config, config.get("text_config") or {})}
    everything = layers = 0
    for tensor in stored_tensors(folder).values():
        numbers = math.prod(tensor.shape)
        everything += numbers
        layers += 0 if tensor.shape and tensor.shape[0] in rows else numbers
    return Size(everything, layers) if everything else None
