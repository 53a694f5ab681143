"""Whether the corpus is in the model's training data: what the authors say, and what is known."""

from collections.abc import Mapping
from typing import Any

from radquant.settings.study import NO, UNKNOWN, YES

# Models whose own authors say that they were trained on MIMIC-CXR, by a part of their names.
TRAINED_ON_MIMIC = {
    "medgemma": "MedGemma was trained on MIMIC-CXR (its model card, Google 2025)",
    "maira": "MAIRA was trained on MIMIC-CXR (Bannur et al. 2024, arXiv:2406.04449)",
    "chexagent": "CheXagent was trained on MIMIC-CXR (Chen et al. 2024, arXiv:2401.12208)",
    "llava-rad": "LLaVA-Rad was trained on MIMIC-CXR (Zambrano Chaves et al. 2025)",
    "cxrmate": "CXRMate was trained on MIMIC-CXR (its model card)",
}


def known_leak(config: Mapping[str, Any]) -> str | None:
    """Return what is known of the model's training on this corpus; None if nothing is."""
    corpus, model = config["corpus"], config["model"]
    if "mimic" not in f"{corpus['format']} {corpus['name']}".lower():
        return None
    hub = (model.get("hub") or {}).get("id", "")
    names = f"{model['name']} {hub} {model.get('path') or ''}".lower().replace("_", "-")
    return next((says for part, says in TRAINED_ON_MIMIC.items() if part in names), None)


def leak_statement(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return what can be said, and what the authors still have to say: '' if nothing."""
    study = config.get("study", {})
    said, known = study.get("leak", UNKNOWN), known_leak(config)
    note = (study.get("leak_note") or "").strip()
    note = "" if note.lower() == UNKNOWN else note
    model, corpus = config["model"]["name"], config["corpus"]["name"]
    why = f" Note by the authors: {note}" if note else ""
    if said == YES:
        facts = f"The training data of {model} hold {corpus}, by the configuration.{why}"
        return f"{facts} {TOO_HIGH}", "" if note else "say which part, and how that is known"
    if said == NO:
        facts = f"The training data of {model} do not hold {corpus}, by the configuration.{why}"
        if known:
            missing = "" if note else "say why no evaluated report is among them"
            return f"{facts} But {known}.", missing
        return facts, "" if note else "say how that is known"
    missing = f"say whether the training data of {model} hold {corpus} (config key study: leak)"
    return (f"{known}. {TOO_HIGH}{why}" if known else note), missing


TOO_HIGH = (
    "Scores of reports that a model was trained on tend to be too high, in every precision. "
    "What quantizing costs on new reports may differ."
)


def leak_warning(config: Mapping[str, Any]) -> str:
    """Return what the report has to warn of: '' if nothing is known or said of a leak."""
    said = config.get("study", {}).get("leak", UNKNOWN)
    known = known_leak(config)
    if said == YES or (known and said == UNKNOWN):
        return leak_statement(config)[0]
    return ""
