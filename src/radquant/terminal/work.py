"""How much work one job of each rule is, as far as the settings and the model's files tell.

Only ratios count, so each rule has a unit of its own. What computes with a model multiplies each
weight with each token.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from radquant.errors import UserError
from radquant.model_files import stored_tensors
from radquant.settings.run import ORIGINAL, Run

FETCHED = Path("results/models") / ORIGINAL
# Tokens of a prompt without examples and of one example, taken as in `generation.run_plan`.
PROMPT, EXAMPLE = 150, 120
# Tokens that rounding alone takes as long as, beside the tokens that a layer is calibrated with.
ROUNDING = 1000

Work = Mapping[str, float]


def of_run(settings: Run, weights: float) -> dict[str, float]:
    """Return {rule: work of one job}; a rule that is not named has the same in every run.

    weights: how many numbers the original model has.
    """
    writing, drawn = settings.generation, settings.evaluation.reports
    written = min(writing.reports or drawn, drawn)
    prompt = PROMPT + writing.examples * EXAMPLE
    speed, precisions = settings.speed, len(settings.precisions)
    read_aloud = speed.prompts * (prompt + speed.tokens)
    generate = weights * written / writing.shards * (prompt + writing.max_new_tokens)
    return {
        "check_model": weights,
        "check_prompts": weights,
        "verify_checkpoint": weights,
        "fetch_model": weights,
        "quantize": weights * _calibration(settings),
        "quantize_to_gguf": weights * _calibration(settings),
        "generate": generate,
        "generate_only": generate,
        "likelihood_only": weights * drawn * prompt,
        "measure_speed": weights * precisions * speed.repeats * read_aloud,
        "calibration_set": settings.calibration.samples,
        "annotate": written / writing.shards,
        "annotate_reference": drawn,
        "baselines": written,
        "score": written,
        "report": written * precisions,
    }


def _calibration(settings: Run) -> float:
    """Tokens that a layer of a checkpoint is fitted to, in the mean of the checkpoints."""
    used, fitted = len(settings.used_checkpoints), len(settings.calibrated_checkpoints)
    tokens = settings.calibration.samples * settings.calibration.max_tokens
    return ROUNDING + tokens * fitted / max(1, used)


def weights_of(settings: Run) -> float | None:
    """Return how many numbers the original model has; None before its files are here."""
    for folder in (settings.model.path, FETCHED):
        if folder and Path(folder).is_dir():
            try:
                tensors = stored_tensors(Path(folder)).values()
            except UserError:  # which the rule that reads it tells of
                continue
            return float(sum(math.prod(tensor.shape) for tensor in tensors)) or None
    return None
