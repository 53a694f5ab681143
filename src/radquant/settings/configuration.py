"""The check of a whole configuration, with one sentence for the first mistake."""

import copy
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radquant import registry
from radquant.errors import UserError
from radquant.instructions import check_template, read_template
from radquant.settings import corpus_sources, engines
from radquant.settings.checkpoint import OWN, Checkpoint, format_name
from radquant.settings.places import Places, found, where, with_paths
from radquant.settings.run import Run
from radquant.settings.sentences import join, made, nearest, one_line
from radquant.settings.tool_limits import check_tool_recipe

# Columns of data/train.csv and data/eval.csv, which a prompt may use.
COLUMNS = ["id", "group", "study", "findings", "impression", "indication", "comparison", "text"]
# This is many more than any configuration has.
MOST_VALUES, MOST_LEVELS = 10_000, 20
# Linux takes 128 KiB as one argument of a command, and a job's whole command is one.
MOST_BYTES = 100_000
# A prompt has a few thousand.
MOST_PROMPT_BYTES = 1_000_000


def resolve(config: Mapping[str, Any], places: Places | None = None) -> Run:
    """The settings of a run, every default filled in; raises UserError if `config` is wrong.

    places: folders in which relative paths are looked for; the current one alone if not given. A
    path that is found is one from the current folder.

    The prompt files are read: a wrong field should not wait for an hour of quantizing. The corpus
    and the model are not, as they may be on another machine than the one that plans the run.
    """
    try:
        run = made(Run, plain(config))
        if places is not None:
            run = with_paths(run, lambda key, path: found(key, path, places))
        check_size(run)
        check_kinds(run)
        check_prompt(run, "generation", run.generation.prompt, places)
        check_recipes(run)
        check_readings(run, places)
        check_resamples(run)
        if run.calibrated_checkpoints and not (run.calibration.table or run.calibration.hub):
            check_prompt(run, "calibration", run.calibration.prompt, places)
    except UserError as error:
        raise UserError(one_line(f"config: {error}")) from None
    return run


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` as plain dicts and lists; Snakemake hands over ordered dicts.

    Anchors in YAML let a few lines stand for any number of values, or for one that holds itself.
    Snakemake has them as references, and they would be written out here.
    """
    left = MOST_VALUES

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MOST_LEVELS:
            raise UserError(
                f"it holds over {MOST_VALUES} values or {MOST_LEVELS} levels, which no run "
                "needs; take out the anchors (& and *) that repeat or nest them"
            )
        if isinstance(value, Mapping):
            return {key: copied(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copied(item, depth + 1) for item in value]
        return copy.copy(value)

    full: dict[str, Any] = copied(config, 1)
    for place in odd_keys(full):
        raise UserError(f"{place} is a key that is not text; put it in quotes")
    return full


def check_size(run: Run) -> None:
    """The settings fit into the command lines that carry them."""
    size = len(json.dumps(run.model_dump(mode="json"), ensure_ascii=False).encode())
    if size > MOST_BYTES:
        raise UserError(
            f"with every default it has {size} bytes, and a command line takes {MOST_BYTES}; give "
            "shorter texts, or fewer precisions, checkpoints or strings in one run"
        )


def check_resamples(run: Run) -> None:
    """A p of so many resamples can be small enough after Holm, one-sided, too."""
    settings, compared = run.statistics, len(run.precisions) - 1
    least = math.ceil(2 * compared / (1 - settings.confidence))
    if settings.resamples < least:
        raise UserError(
            f"statistics.resamples is {settings.resamples}, of which no p is small enough to "
            f"settle anything of {compared} precisions at a confidence of "
            f"{settings.confidence:g}; give at least {least}"
        )


def odd_keys(value: Any, place: str = "") -> Iterator[str]:
    """The places of keys that are no text, which YAML makes of 8 or of null."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield join(place, key)
            yield from odd_keys(item, join(place, key))


def check_kinds(run: Run) -> None:
    """Let the chosen corpus format, annotator and engine say what they do not go with."""
    problem = corpus_sources.problem_of(run.corpus.model_dump(), run.task.image_column)
    if problem:
        raise UserError(problem)
    annotator = registry.load_kind(registry.ANNOTATORS, run.scoring.annotator)
    annotator.check(run.scoring.own())
    for name in registry.MEASURES:
        measure = registry.load_kind(registry.MEASURES, name)
        settings = getattr(run.scoring, name).model_dump()
        if measure.on(settings):
            measure.check(settings)
    engines.check_configuration(run.model_dump(mode="json"))


def check_readings(run: Run, places: Places | None) -> None:
    """The reading files are there; whether they are of this run is known when it has finished."""
    for path in run.study.readings:
        if not os.path.isfile(path):
            raise UserError(
                f"study.readings names {path}, which {where(path, places)}; correct the path or "
                "remove it"
            )


def check_recipes(run: Run) -> None:
    """Each checkpoint that is made can be, by its tool, and stored in its format."""
    for name, checkpoint in run.checkpoints.items():
        if not isinstance(checkpoint, Checkpoint):
            continue
        try:
            format_name(checkpoint, checkpoint.format)
            if checkpoint.tool != OWN:
                check_tool_recipe(checkpoint.tool, checkpoint, checkpoint.format)
        except UserError as error:
            raise UserError(f"checkpoints.{name}: {error}") from None


def check_prompt(run: Run, section: str, path: str, places: Places | None) -> None:
    if not os.path.isfile(path):  # a path that is too long for a file is none either
        raise UserError(
            f"{section}.prompt is {path}, which {where(path, places)}; "
            f"{nearest(path, prompts_beside(path, places))}"
        )
    if not path.isprintable():
        raise UserError(f"{section}.prompt is {path}; rename it, a path may hold no line break")
    if os.path.getsize(path) > MOST_PROMPT_BYTES:
        raise UserError(
            f"{section}.prompt ({path}) has over {MOST_PROMPT_BYTES} bytes, which is no prompt; "
            "name the right file"
        )
    try:
        template = read_template(path, None)
        check_template(template, COLUMNS, run.task.target, images=bool(run.task.image_column))
    except UserError as error:
        raise UserError(f"{section}.prompt ({path}): {error}") from None
    except OSError as error:
        raise UserError(f"{section}.prompt ({path}) cannot be read: {error.strerror}") from None


def prompts_beside(path: str, places: Places | None) -> list[str]:
    """Other prompts where this one was looked for, as a configuration names them."""
    near = (Path(),) if places is None else (*places.near, places.program)
    folder = Path(path).parent
    names = {other.name for each in near for other in (each / folder).glob("*.txt")}
    return [str(folder / name) for name in sorted(names)]
