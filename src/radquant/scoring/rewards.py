"""RadGraph F1 through the reward definitions of the `radgraph` package itself.

The module `radgraph/rewards.py` is loaded by its path: it needs nothing but Python, while
`import radgraph` costs seconds and fails under some versions of transformers.
"""

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from radquant.errors import UserError
from radquant.files import sha256_file

Annotation = dict[str, Any]


def f1(hypothesis: Annotation, reference: Annotation) -> tuple[float, float, float]:
    """Return (simple, partial, complete) of two annotations, each between 0 and 1.

    Their names are those of Delbrouck et al. (2022). RG_E: entities match. RG_ER: entities match,
    and both or neither have a relation. RG_ĒR: entities and their relations match. A side without
    entities scores 0, as the package defines it. Every relation must point at an entity that exists
    (`radquant.scoring.scores` checks that when it reads a file).
    """
    return _rewards().compute_reward(hypothesis, reference, "all")


def identity() -> str:
    """Return the package's version and the hash of its reward definitions, for the record.

    Two releases with equal version numbers differ in whether they compare case.
    """
    version = importlib.metadata.version("radgraph")
    return f"radgraph {version} ({sha256_file(_path())[:12]})"


def _path() -> Path:
    spec = importlib.util.find_spec("radgraph")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the package 'radgraph', which defines the score, is not installed; "
            "install this project's requirements again"
        )
    return Path(spec.submodule_search_locations[0]) / "rewards.py"


@cache
def _rewards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_radgraph_rewards", _path())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
