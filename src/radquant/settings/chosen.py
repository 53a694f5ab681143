"""The kinds that a run chooses by name: of these, and of no others, the code counts."""

from collections.abc import Mapping
from typing import Any

from radquant import registry
from radquant.settings import engines


def kinds(config: Mapping[str, Any], of_precisions: bool = False) -> dict[str, list[str]]:
    """{table of the registry: names}, for `radquant.code`; of other tables every kind counts.

    Model families and stored formats are known by what is in files, so they are no choice.
    of_precisions: also the engines that precisions name themselves, which are code of these alone.
    """
    engine = config.get("compute", {}).get("engine", engines.AUTO)
    meant = {*engines.meant(engine), *engines.meant(engines.scoring(engine))}
    if of_precisions:
        own = (precision.get("engine") for precision in config.get("precisions", {}).values())
        meant |= {name for name in own if name}
    chosen = {
        "CORPUS_FORMATS": {config.get("corpus", {}).get("format")},
        "ANNOTATORS": {config.get("scoring", {}).get("annotator")},
        "MEASURES": _measures(config.get("scoring") or {}),
        "ENGINES": meant,
    }
    # A kind that lies elsewhere has no code in this package.
    tables = {name: getattr(registry, name) for name in chosen}
    return {
        name: sorted(each for each in found if tables[name].get(each, "").startswith("radquant."))
        for name, found in chosen.items()
    }


def _measures(scoring: Mapping[str, Any]) -> set[str]:
    own = {name: scoring.get(name) for name in registry.MEASURES}
    return {
        name
        for name, settings in own.items()
        if settings and registry.load_kind(registry.MEASURES, name).on(settings)
    }
