"""The official RadGraph annotator, in an environment of its own (`radquant.scoring.radgraph`)."""

import re
from collections.abc import Mapping
from typing import Any

from radquant.errors import UserError
from radquant.scoring.annotators.kind import Loaded

MEASURE = "RadGraph F1"
CAVEAT = ""
# It needs an older transformers than the models do.
ENVIRONMENT = "radgraph"
QUICK = False
SETTINGS = ("model", "directory", "revision", "encoder_revision")


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a model from the hub that is not pinned: its owner could change every score."""
    if not online(settings):
        return
    for key in ("revision", "encoder_revision"):
        if not re.fullmatch("[0-9a-f]{40}", settings[key] or ""):
            raise UserError(
                f"scoring.radgraph.{key} is {settings[key]!r} and no commit of 40 digits; "
                "give one, or a scoring.radgraph.directory that scripts/fetch_radgraph.py made"
            )


def online(settings: Mapping[str, Any]) -> bool:
    """Its weights come from the hub unless a folder is given."""
    return not settings["directory"]


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    if online(settings) and not (settings["revision"] and settings["encoder_revision"]):
        raise UserError(
            "the hub's model needs --radgraph-revision and --radgraph-encoder-revision, so that it "
            "stays the same; or give a local folder with --radgraph-directory"
        )
    from radquant.scoring import radgraph

    return radgraph.load(
        settings["model"],
        settings["directory"],
        settings["revision"],
        settings["encoder_revision"],
        threads,
    )
