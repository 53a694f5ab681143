"""What vLLM (0.32) cannot do, or would do wrongly without a word.

Nothing here needs PyTorch at import, so that a configuration is checked before any work starts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.families.lookup import check_dtype
from radquant.settings.recipe import (
    COMPRESSED,
    GEMM,
    GPTQ,
    HADAMARD,
    NONE,
    QOQ,
    format_name,
    in_order_of_activation,
    recipe_of,
)

# By format: the bits that vLLM's kernels have. Those for CPUs have 4 bits only.
BITS = {GEMM: (4,), GPTQ: (4, 8), COMPRESSED: (4, 8)}
CPU_BITS = (4,)
# Without the first, vLLM rounds the activations of 4-bit layers to 8 bits on CPUs that have AMX.
ENVIRONMENT = {
    "VLLM_CPU_INT4_W4A8": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
INSTEAD = "use engine transformers"


def stored_problem(
    form: str, bits: int, symmetric: bool, in_order: bool, on_cpu: bool
) -> str | None:
    """Why vLLM cannot read weights stored so, in words that follow "vLLM cannot …"; None if it can.

    in_order: groups in order of activation, which need an index.
    """
    if form == QOQ:
        return "read format qoq; docs/qserve.md says what can"
    if bits not in BITS[form]:
        return f"read {bits} bits in format {form}; it can {' and '.join(map(str, BITS[form]))}"
    if on_cpu and bits not in CPU_BITS:
        return f"multiply by {bits}-bit weights on a CPU; use 4 bits"
    if form == GPTQ and not symmetric:
        return "read GPTQ with zero points; use zero_point: false, or format compressed-tensors"
    if in_order:
        return "read groups in order of activation; leave desc_act out"
    return None


def check_configuration(config: Mapping[str, Any]) -> None:
    """Raise UserError unless vLLM can do all that `config`, with every default in, asks of it."""
    compute = config["compute"]
    if compute["engine"] != "vllm":
        return
    device = compute["device"]
    if device == "auto":
        raise UserError(
            "config: compute.engine vllm needs compute.device cpu or cuda, because vLLM for CPUs "
            "is another package; say which"
        )
    if compute["dtype"] == "float32":
        raise UserError(
            "config: compute.dtype float32 does not go with compute.engine vllm, whose kernels for "
            "packed weights compute in 16 bits; use auto or bfloat16"
        )
    if config["task"]["image_column"]:
        raise UserError(f"config: compute.engine vllm is not for task.image_column here; {INSTEAD}")
    for name, precision in config["precisions"].items():
        for key in ("activations", "kv_cache", "lm_head"):
            if precision[key]:
                raise UserError(
                    f"config: compute.engine vllm cannot round {key}, which precisions.{name} asks "
                    f"for; {INSTEAD}"
                )
        if precision["checkpoint"] != "original":
            _check_recipe(config["checkpoints"], precision["checkpoint"], device == "cpu")


def _check_recipe(checkpoints: Mapping[str, Any], name: str, on_cpu: bool) -> None:
    recipe = recipe_of(checkpoints[name])
    problem = stored_problem(
        format_name(recipe, checkpoints[name]["format"]),
        recipe.bits,
        not recipe.zero_point,
        in_order_of_activation(recipe),
        on_cpu,
    )
    if recipe.transform == HADAMARD:
        problem = f"rotate inputs as transform hadamard needs; {INSTEAD}"
    if recipe.prefix != NONE:
        problem = f"begin with a stored prefix; use prefix none, or {INSTEAD.removeprefix('use ')}"
    if problem:
        raise UserError(f"config: checkpoints.{name}: vLLM cannot {problem}")


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


def _check_stored(directory: Path, quantization: Mapping[str, Any], on_cpu: bool) -> None:
    from radquant.packed.formats import settings_of
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
    problem = stored_problem(
        found.format, found.bits, found.symmetric, found.in_order_of_activation, on_cpu
    )
    if problem:
        raise UserError(f"{directory}: vLLM cannot {problem}")
    if read_runtime(directory, quantization).prefix:
        raise UserError(
            f"{directory}: vLLM cannot begin with the prefix that this checkpoint stores; {INSTEAD}"
        )
