"""What comes in several kinds: a line for each kind says in which module it lies.

A kind is one module with the names that the protocol of its table asks for; CONTRIBUTING.md says
how to add one. A table holds names alone, so that settings can be checked against it without
importing any kind. Code that needs the kind itself calls `load_kind`; `radquant.code` follows that
call, so the chosen kind's files count as code of a stage and this file does not.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType

from radquant.errors import UserError

ENGINES: dict[str, str] = {}
STORED_FORMATS: dict[str, str] = {}
ANNOTATORS: dict[str, str] = {}
METRICS: dict[str, str] = {}
CORPUS_FORMATS: dict[str, str] = {
    "openi": "radquant.corpus.formats.openi",
    "table": "radquant.corpus.formats.table",
    "mimic-tree": "radquant.corpus.formats.mimic_tree",
    "mimic-sectioned": "radquant.corpus.formats.mimic_sectioned",
    "text-folder": "radquant.corpus.formats.text_folder",
}
# By the `model_type` of the text model: a model with images (MedGemma: gemma3) has one inside.
MODEL_FAMILIES: dict[str, str] = {}


def load_kind(table: Mapping[str, str], name: str) -> ModuleType:
    """The module of the kind `name` of one of the tables above."""
    if name not in table:
        raise UserError(f"{name!r} is unknown; use one of {', '.join(table)}")
    return importlib.import_module(table[name])
