"""F1CheXbert: labels by CheXbert (Smit et al. 2020), of output and reference.

Labels and their order are the package's. F1 is pooled over reports as for the labels from the
annotator, so that the two stand side by side. With *uncertain* as positive it is the package's own
(its mode "rrg").
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.scoring.chexpert import FIVE
from radquant.scoring.measures import folders
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.chexpert import pooled
from radquant.scoring.metrics.kind import About, Column

PACKAGE = "f1chexbert"
ENVIRONMENT = "judges"
FOLDERS = {
    "chexbert.pth": "StanfordAIMI/RRG_scorers",
    "bert-base-uncased": "google-bert/bert-base-uncased",
}
LABELS = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices", "No Finding"),
)
# The package's values as the codes of `metrics.chexpert`.
CODES = {"": 0, 1: 1, -1: 2, 0: 3}


def column_of(label: str) -> str:
    return f"chexbert_{label.lower().replace(' ', '_')}"


ABOUT = About(
    columns=tuple(
        Column(column_of(label), label, range=(0, 33), better="neither", mean=False)
        for label in LABELS
    ),
    citation="Smit et al. (2020), by f1chexbert 0.0.2",
    group="model judge",
    pooled=pooled("chexbert", "CheXbert", column_of, LABELS, FIVE),
    remark="CheXbert labels are by the CheXbert model itself, through f1chexbert.",
)
on = folders.on


def check(settings: Mapping[str, Any]) -> None:
    folders.check("chexbert", FOLDERS, settings)


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    directory = folders.check("chexbert", FOLDERS, settings)
    device = folders.begin(threads)
    labeler = load_labeler(directory, device)

    def measure(pairs: Pairs) -> Iterator[tuple[float, ...]]:
        for reference, output in pairs:
            codes = zip(_codes(labeler, reference), _codes(labeler, output), strict=True)
            yield tuple(10.0 * one + other for one, other in codes)

    return Loaded(folders.identity(PACKAGE, FOLDERS, directory), measure, None)


def load_labeler(directory: Path, device: str) -> Any:
    """The package's own F1CheXbert, from local files alone."""
    import torch
    from f1chexbert import f1chexbert

    stored = torch.load(directory / "chexbert.pth", map_location="cpu", weights_only=True)
    f1chexbert.CACHE_DIR = str(directory)
    with contextlib.chdir(directory):  # the package's name bert-base-uncased is a folder there
        labeler = f1chexbert.F1CheXbert(device=device)
    given = {name.replace("module.", "") for name in stored["model_state_dict"]}
    # The package itself loads the tensors that fit, and does not tell of the others.
    lacking = sorted({*labeler.model.state_dict()} - given - {"bert.embeddings.position_ids"})
    if lacking:
        raise UserError(f"{directory}/chexbert.pth has no {lacking[0]}; it is no CheXbert model")
    return labeler


def _codes(labeler: Any, text: str) -> list[int]:
    return [CODES[value] for value in labeler.get_label(text.strip(), mode="classification")]
