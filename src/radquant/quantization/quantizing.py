"""From a model, a recipe and calibration samples to a packed checkpoint."""

import gc
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from radquant.checkpoints.loading import resolve_device
from radquant.checkpoints.writing import write_checkpoint
from radquant.gguf.quantized import require_writable
from radquant.packed.formats import config_for, format_for
from radquant.packed.gguf_blocks import LAYOUTS
from radquant.quantization import layerwise, mixing, original_model, outliers, resuming
from radquant.quantization.job import Job
from radquant.quantization.onednn import onednn_products
from radquant.quantization.original_model import (
    Original,
    open_original,
    require_finite_original,
)
from radquant.runtime import runtime_file
from radquant.settings.recipe import AUTO, Recipe, known_poor, mixture, recipe_values


@contextmanager
def without_collecting() -> Iterator[None]:
    """Let Python not look for objects to be freed meanwhile.

    While transformers is imported it would do so again and again, in vain, and take a sixth of that
    time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def quantize(job: Job, recipe: Recipe, asked: str | None = None, work: Path | None = None) -> None:
    """Quantize the model of `job` one decoder layer at a time, and write the checkpoint.

    asked: the format to store it in; by default the one that the method is known by. work: where
    the finished layers of a run that was killed are kept; by default hidden beside the output.
    Raises UserError if the recipe, the model, the samples and the format do not go together.
    """
    torch.set_num_threads(job.threads)
    if caution := known_poor(recipe_values(recipe)):
        print(f"warning: {caution}", file=sys.stderr, flush=True)
    device = resolve_device(job.device)
    form = format_for(recipe, asked)
    samples = layerwise.check_calibration(recipe, job.calibration, job.features)
    if recipe.type in LAYOUTS:
        require_writable(job.model)
    origin = job.origin()

    def open_source() -> Original:
        return open_original(job.model, job.trust_remote_code)

    with without_collecting():
        source = open_source()
    require_finite_original(source)
    work = work or job.output.with_name(f".{job.output.name}.work")
    resuming.prepare(work, resuming.fingerprint_of(job.model, samples, recipe, form.NAME, device))
    prefix: list[int] = []
    with onednn_products():
        behind = samples
        if recipe.prefix == AUTO:
            assert samples is not None
            prefix = outliers.find_prefix(open_source, samples, work / "outliers.f32", device)
            behind = outliers.all_behind(prefix, samples)
        recipes = None
        if mixture(recipe) is not None:
            assert behind is not None
            original_model.check_recipe(source.model, source.architecture, recipe)
            recipes = mixing.choose(open_source, recipe, form, behind, work, device)
        result = layerwise.quantize_model(
            source, work, recipe, form, behind, device, prefix, recipes
        )
    record = {
        "recipe": recipe_values(recipe),
        "format": form.NAME,
        "model": str(job.model),
        "calibration": samples and {**origin, **layerwise.count(samples)},
        "layers": result.layers,
        **({"bits": mixing.told(result.layers, recipe, form)} if recipes else {}),
        "checks": {
            "layers_quantized": len(result.layers),
            "largest_change_by_folding": result.largest_change,
            "unpacked_equals_evaluated": True,
        },
        "prefix": prefix,
        "device": str(device),
        "threads": job.threads,
        **job.costs(),
    }
    announced = config_for(recipe, form, result.not_converted, recipes)
    quantization = runtime_file.announce(announced, result.online)
    write_checkpoint(
        job.model,
        job.output,
        result.tensors,
        quantization,
        record,
        result.runtime,
        runtime_file.metadata(recipe.activations),
        result.config,
    )
    shutil.rmtree(work)
