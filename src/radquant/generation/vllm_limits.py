"""What vLLM (0.32) cannot do, or would do wrongly without a word.

Nothing here needs PyTorch at import, so that a configuration is checked before any work starts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.families.lookup import check_dtype
from radquant.packed.formats import format_for, settings_for, settings_of, stored_format
from radquant.packed.formats.other_programs import vllm_lacks_rounding
from radquant.settings.given import has_recipe
from radquant.settings.recipe import HADAMARD, NONE, recipe_of

# Without the first, vLLM rounds the activations of 4-bit layers to 8 bits on CPUs that have AMX.
ENVIRONMENT = {
    "VLLM_CPU_INT4_W4A8": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
INSTEAD = "use engine transformers"


def check_configuration(config: Mapping[str, Any]) -> None:
    """Raise UserError unless vLLM can do all that `config`, with every default in, asks of it."""
    compute = config["compute"]
    device = compute["device"]
    if device == "auto":
        raise UserError(
            "compute.engine vllm needs compute.device cpu or cuda, because vLLM for CPUs "
            "is another package; say which"
        )
    if compute["dtype"] == "float32":
        raise UserError(
            "compute.dtype float32 does not go with compute.engine vllm, whose kernels for "
            "packed weights compute in 16 bits; use auto or bfloat16"
        )
    if config["task"]["image_column"] and (device, compute["dtype"]) == ("cpu", "auto"):
        raise UserError(
            "compute.dtype auto is float32 on a CPU for all but vLLM, so vLLM would read images "
            "encoded in another dtype; set compute.dtype bfloat16"
        )
    for name, precision in config["precisions"].items():
        if precision.get("engine"):  # which is another's
            continue
        for key in ("activations", "kv_cache", "lm_head"):
            if precision[key]:
                raise UserError(
                    f"compute.engine vllm cannot round {key}, which precisions.{name} asks "
                    f"for; {INSTEAD}"
                )
        # Of a given checkpoint nothing is known before it is there.
        checkpoint = config["checkpoints"].get(precision["checkpoint"])
        if checkpoint is not None and has_recipe(checkpoint):
            _check_recipe(config["checkpoints"], precision["checkpoint"], device == "cpu")


def _check_recipe(checkpoints: Mapping[str, Any], name: str, on_cpu: bool) -> None:
    recipe = recipe_of(checkpoints[name])
    form = format_for(recipe, checkpoints[name]["format"])
    settings = settings_for(recipe, form)
    problem = form.vllm_problem(settings, on_cpu) or vllm_lacks_rounding(settings)
    if recipe.transform == HADAMARD:
        problem = f"rotate inputs as transform hadamard needs; {INSTEAD}"
    if recipe.prefix != NONE:
        problem = f"begin with a stored prefix; use prefix none, or {INSTEAD.removeprefix('use ')}"
    if problem:
        raise UserError(f"checkpoints.{name}: vLLM cannot {problem}")


def check_checkpoint(directory: Path, dtype: str, on_cpu: bool) -> None:
    """Raise UserError unless vLLM can compute with the model in `directory` in `dtype`.

    dtype: "bfloat16", "float16" or "float32". The directory is any Hugging Face one.
    """
    from radquant.files import read_json, require_file

    require_file(directory / "config.json")
    config = read_json(directory / "config.json")
    check_dtype(directory, config, dtype)
    quantization = config.get("quantization_config")
    if quantization is None:
        return
    if dtype == "float32":
        raise UserError(
            f"{directory}: vLLM's kernels for packed weights compute in 16 bits; use bfloat16"
        )
    _check_stored(directory, quantization, on_cpu)


def check_images(directory: Path, on_cpu: bool) -> None:
    """Raise UserError unless vLLM reads images as the model in `directory` was trained to.

    Only vLLM's attention for GPUs knows tokens of an image that see each other in both directions.
    Its attention for CPUs (v1/attention/backends/cpu_attn.py) lets each see those before it, and
    gives no warning. For GPUs only attention that knows of them is chosen (`supports_mm_prefix`),
    and images of more tokens than the sliding window are left out (v1/worker/gpu_model_runner.py).
    """
    from radquant.families.images import check_takes_images
    from radquant.families.lookup import family_of
    from radquant.files import read_json

    shown = check_takes_images(directory)
    config = read_json(directory / "config.json")
    kind = config["model_type"]
    if not shown.vllm:
        raise UserError(
            f"{directory}: images for a model of type {kind!r} are not handed to vLLM; {INSTEAD}"
        )
    lean = family_of(kind).lean
    if lean is None or not lean.both_ways:
        return
    if on_cpu:
        raise UserError(
            f"{directory}: type {kind!r} needs an image's tokens to see each other both ways, "
            "which vLLM on a CPU cannot; use engine auto, or a GPU"
        )
    text = config.get("text_config") or {}
    tokens, window = config.get("mm_tokens_per_image", 256), text.get("sliding_window", 4096)
    if window is not None and tokens > window:
        raise UserError(
            f"{directory}: vLLM lets an image's tokens see each other both ways only within the "
            f"sliding window of {window}, and an image has {tokens}; {INSTEAD}"
        )


def _check_stored(directory: Path, quantization: Mapping[str, Any], on_cpu: bool) -> None:
    from radquant.runtime.runtime_file import OWN_METHOD, read_runtime

    if quantization.get("quant_method") == OWN_METHOD:
        raise UserError(
            f"{directory}: vLLM cannot rotate inputs as this checkpoint needs (transform "
            f"hadamard); {INSTEAD}"
        )
    try:
        found = settings_of(quantization)
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None
    problem = stored_format(found.format).vllm_problem(found, on_cpu)
    problem = problem or vllm_lacks_rounding(found)
    if problem:
        raise UserError(f"{directory}: vLLM cannot {problem}")
    if read_runtime(directory, quantization).prefix:
        raise UserError(
            f"{directory}: vLLM cannot begin with the prefix that this checkpoint stores; {INSTEAD}"
        )
