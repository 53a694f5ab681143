"""The configuration: defaults from the schema, checks, and one sentence for the first mistake."""

import copy
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from radquant import registry
from radquant.errors import UserError
from radquant.generation import vllm_limits
from radquant.settings import corpus_sources
from radquant.settings.precision import STATIC, activations_of, kv_cache_of, lm_head_of
from radquant.settings.recipe import check_recipe_values, format_name, needs_calibration, recipe_of
from radquant.settings.tool_limits import check_tool_recipe

# Columns of data/train.csv and data/eval.csv, which a prompt may use.
COLUMNS = ["id", "group", "study", "findings", "impression", "indication", "comparison", "text"]
# Names that the results directory uses beside those of the precisions.
BASELINES = ["copy-input", "constant"]
RESERVED_PRECISIONS = ["reference", *BASELINES]

# Many more than any configuration has.
MOST_VALUES, MOST_LEVELS = 10_000, 20

Config = dict[str, Any]


def resolve(config: Mapping[str, Any], schema_path: str | Path) -> Config:
    """Return a copy of `config` with every default filled in; raises UserError if it is wrong.

    The prompt files are read (a wrong field should not wait for an hour of quantizing); the corpus
    and the model are not, because they may be on another machine than the one that plans the run.
    """
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    schema["properties"]["corpus"]["properties"]["format"]["enum"] = list(registry.CORPUS_FORMATS)
    plain = _typed(_plain(config), schema, schema)
    _check_schema(plain, schema)
    full: Config = _with_defaults(plain, schema, schema)
    _check_sources(full)
    _check_paths(full)
    _check_task(full)
    _check_images(full)
    _check_corpus(full)
    _check_precisions(full)
    _check_prompt(full, "generation")
    _check_recipes(full)
    _check_rounding(full)
    vllm_limits.check_configuration(full)
    _check_annotator(full)
    if calibrated_checkpoints(full):
        _check_calibration(full)
    return full


def used_checkpoints(config: Config) -> list[str]:
    """Return the quantized checkpoints that some precision uses."""
    used = {precision["checkpoint"] for precision in config["precisions"].values()}
    return [name for name in config["checkpoints"] if name in used]


def calibrated_checkpoints(config: Config) -> list[str]:
    """Return those of the used checkpoints that need calibration texts."""
    recipes = {name: recipe_of(config["checkpoints"][name]) for name in used_checkpoints(config)}
    return [name for name, recipe in recipes.items() if needs_calibration(recipe)]


def _plain(config: Mapping[str, Any]) -> Config:
    """Return `config` as plain dicts and lists; Snakemake hands over ordered dicts.

    Anchors in YAML let a few lines stand for any number of values, or for one that holds itself;
    Snakemake has them as references, and they would be written out here.
    """
    left = MOST_VALUES

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MOST_LEVELS:
            raise UserError(
                f"config: it holds over {MOST_VALUES} values or {MOST_LEVELS} levels, which no run "
                "needs; take out the anchors (& and *) that repeat or nest them"
            )
        if isinstance(value, Mapping):
            return {key: plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, depth + 1) for item in value]
        return copy.copy(value)

    full: Config = plain(config, 1)
    return full


def _typed(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return `value` with text made a number, truth value or null where `schema` wants one.

    Numbers inside `--config generation='{"shards": 3}'` arrive as text, and so does 1e-3 in YAML.
    """
    schema = _dereferenced(schema, root)
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties") or {}
        return {key: _typed(item, known.get(key, others), root) for key, item in value.items()}
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(value, str) or ("string" in kinds and value != "null"):
        return value
    if "null" in kinds and value.lower() == "null":
        return None
    if "integer" in kinds or any(isinstance(item, int) for item in schema.get("enum", [])):
        return _parsed(value, int)
    if "number" in kinds:
        return _parsed(value, float)
    if "boolean" in kinds:
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError:
        return text


def _with_defaults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return `value` with defaults, keys in the schema's order: order in a file changes nothing."""
    schema = _dereferenced(schema, root)
    if not isinstance(value, dict):
        return value
    full = {}
    for key, sub in schema.get("properties", {}).items():
        sub = _dereferenced(sub, root)
        if key in value or "default" in sub:
            item = value[key] if key in value else copy.deepcopy(sub["default"])
            full[key] = _with_defaults(item, sub, root)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        for key, item in value.items():
            full[key] = _with_defaults(item, others, root)
    return full


def _dereferenced(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Return `schema` with its `#/$defs/…` reference, if any, put in; its own keys win."""
    if "$ref" not in schema:
        return dict(schema)
    return {**root["$defs"][schema["$ref"].removeprefix("#/$defs/")], **schema}


def _check_schema(config: Config, schema: dict[str, Any]) -> None:
    for place, keys in _keys(config):
        for key in keys:
            if not isinstance(key, str):
                raise UserError(
                    f"config: {_join(place, key)} is a key that is not text; put it in quotes"
                )
    errors = sorted(Draft202012Validator(schema).iter_errors(config), key=_order)
    if errors:
        raise UserError(_sentence(errors[0]))


def _keys(value: Any, place: str = "") -> Iterator[tuple[str, Iterable[Any]]]:
    if isinstance(value, dict):
        yield place, value.keys()
        for key, item in value.items():
            yield from _keys(item, _join(place, key))


def _order(error: ValidationError) -> tuple[bool, list[str]]:
    """Unknown keys first: a misspelt required key is then told as a misspelling."""
    return error.validator != "additionalProperties", [str(part) for part in error.absolute_path]


def _join(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def _sentence(error: ValidationError) -> str:
    """Say in one sentence what `error` is about, with the nearest valid key or value."""
    place = ".".join(str(part) for part in error.absolute_path)
    rule, found = error.validator_value, error.instance
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        unknown = sorted(str(key) for key in found if key not in known)[0]
        return f"config: {_join(place, unknown)} is not a known key; {nearest(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in rule if key not in found)
        return f"config: {_join(place, missing)} is missing; add it"
    place = place or "the configuration"
    if error.validator == "enum":
        return f"config: {place} is {found!r}, which is not allowed; {nearest(found, rule)}"
    if error.validator == "pattern":
        form = error.schema["description"]
        return f"config: {place} has {found!r}, which is not of the form: {form}"
    if error.validator == "type":
        kinds = " or ".join([rule] if isinstance(rule, str) else rule)
        return f"config: {place} must be of type {kinds}, not {found!r}"
    bounds = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "greater than",
        "exclusiveMaximum": "less than",
    }
    if error.validator in bounds:
        return f"config: {place} is {found!r} and must be {bounds[error.validator]} {rule}"
    if error.validator in ("minItems", "minLength"):
        return f"config: {place} is empty; give it a value"
    return f"config: {place}: {error.message}"


def nearest(wrong: Any, valid: Iterable[Any]) -> str:
    """Return the part of a sentence that names the nearest of `valid`, or all of them."""
    names = [str(item) for item in valid]
    close = difflib.get_close_matches(str(wrong), names, n=1, cutoff=0.5)
    listed = f"the valid ones are {', '.join(names)}" if names else "there is none"
    return f"did you mean {close[0]}? ({listed})" if close else listed


def _check_sources(config: Config) -> None:
    model = config["model"]
    given = [key for key in ("wheel", "hub", "path") if model.get(key)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise UserError(f"config: model needs exactly one of wheel, hub and path, not {found}")


def _check_corpus(config: Config) -> None:
    wrong = corpus_sources.problem_of(config["corpus"], config["task"]["image_column"])
    if wrong:
        raise UserError(f"config: {wrong}")


def _check_paths(config: Config) -> None:
    """Refuse braces in files that rules take as input: Snakemake would see wildcards in them."""
    corpus = config["corpus"]
    paths = {f"corpus.{key}": corpus[key] for key in ("path", "train", "eval", "split_file")}
    paths["model.path"] = config["model"]["path"]
    paths["calibration.table.path"] = (config["calibration"]["table"] or {}).get("path")
    paths.update({f"{key}.prompt": config[key]["prompt"] for key in ("generation", "calibration")})
    for key, path in paths.items():
        if path and any(brace in path for brace in "{}"):
            raise UserError(
                f"config: {key} is {path}; rename it, because a path may hold no braces"
            )


def _check_task(config: Config) -> None:
    task, cleaning = config["task"], config["cleaning"]
    if task["target"] in task["inputs"]:
        raise UserError(
            f"config: task.inputs holds {task['target']}, which is the target that the model "
            "has to write; remove it from one of the two"
        )
    if cleaning["min_words"] > cleaning["max_words"]:
        raise UserError(
            f"config: cleaning.min_words is {cleaning['min_words']} and must not exceed "
            f"cleaning.max_words, which is {cleaning['max_words']}"
        )
    written, drawn = config["generation"]["reports"], config["evaluation"]["reports"]
    if written is not None and written > drawn:
        raise UserError(
            f"config: generation.reports is {written} and must not exceed evaluation.reports, "
            f"which is {drawn}"
        )


def _check_images(config: Config) -> None:
    """Check that images can be found and shown; without them a report needs another input."""
    task, corpus, column = config["task"], config["corpus"], config["task"]["image_column"]
    if bool(column) != bool(corpus["image_root"]):
        raise UserError(
            "config: task.image_column and corpus.image_root, the folder of the images that it "
            "names, are given together or not at all"
        )
    if not column:
        if not task["inputs"]:
            raise UserError("config: task.inputs is empty; give it a value, or an image_column")
        return
    if config["model"].get("wheel"):
        raise UserError(
            "config: task.image_column needs a model that is shown images, and the GGUF file of "
            "model.wheel holds text layers only; remove it or take a model from hub or path"
        )
    if config["generation"]["examples"]:
        raise UserError(
            f"config: generation.examples is {config['generation']['examples']}, but examples show "
            "no images; set it to 0 with task.image_column"
        )


def _check_precisions(config: Config) -> None:
    """Check the names: each precision's checkpoint exists, and `original` is the baseline."""
    checkpoints, precisions = config["checkpoints"], config["precisions"]
    if "original" in checkpoints:
        raise UserError("config: checkpoints.original is the model itself; choose another name")
    for name, precision in precisions.items():
        checkpoint, valid = precision["checkpoint"], ["original", *checkpoints]
        if name in RESERVED_PRECISIONS:
            raise UserError(f"config: precisions.{name} is a reserved name; choose another")
        if checkpoint not in valid:
            raise UserError(
                f"config: precisions.{name}.checkpoint is {checkpoint!r}, which is not a "
                f"checkpoint; {nearest(checkpoint, valid)}"
            )
        if (name == "original") != (checkpoint == "original"):
            raise UserError(
                f"config: precisions.{name}.checkpoint is {checkpoint!r}, but the precision "
                "original, and no other, uses the checkpoint original"
            )
        for key in ("activations", "kv_cache", "lm_head"):
            if name == "original" and precision[key]:
                raise UserError(
                    f"config: precisions.original is the baseline and takes no {key}; remove it"
                )
    if "original" not in precisions:
        raise UserError(
            "config: precisions.original is missing; every comparison is with it, so add "
            "original: {checkpoint: original}"
        )


def _check_recipes(config: Config) -> None:
    for name, checkpoint in config["checkpoints"].items():
        try:
            recipe = recipe_of(checkpoint)
            check_recipe_values(recipe)
            format_name(recipe, checkpoint["format"])
            if checkpoint["tool"] != "radquant":
                check_tool_recipe(checkpoint["tool"], recipe, checkpoint["format"])
        except UserError as error:
            raise UserError(f"config: checkpoints.{name}: {error}") from None


def _check_rounding(config: Config) -> None:
    """Check what precisions round, and that the ranges which they need are in their checkpoints."""
    for name, precision in config["precisions"].items():
        try:
            rounding = activations_of(precision["activations"])
            kv_cache_of(precision["kv_cache"])
            lm_head_of(precision["lm_head"])
        except UserError as error:
            raise UserError(f"config: precisions.{name}.{error}") from None
        if rounding is None or rounding.range != STATIC:
            continue
        checkpoint = precision["checkpoint"]
        if recipe_of(config["checkpoints"][checkpoint]).activations != rounding:
            raise UserError(
                f"config: precisions.{name}.activations has range static, whose ranges are stored "
                f"with the weights; give checkpoints.{checkpoint}.activations the same values"
            )


def _check_annotator(config: Config) -> None:
    """Refuse a model from the hub that is not pinned: its owner could change every score."""
    radgraph = config["scoring"]["radgraph"]
    if config["scoring"]["annotator"] != "radgraph" or radgraph["directory"]:
        return
    for key in ("revision", "encoder_revision"):
        if not re.fullmatch("[0-9a-f]{40}", radgraph[key] or ""):
            raise UserError(
                f"config: scoring.radgraph.{key} is {radgraph[key]!r} and no commit of 40 digits; "
                "give one, or a scoring.radgraph.directory that scripts/fetch_radgraph.py made"
            )


def _check_calibration(config: Config) -> None:
    """Check that the texts have one source; only those of the training reports need the prompt."""
    calibration = config["calibration"]
    if calibration["table"] and calibration["hub"]:
        raise UserError(
            "config: calibration takes its texts from table or from hub, not from both; remove one"
        )
    if not (calibration["table"] or calibration["hub"]):
        _check_prompt(config, "calibration")


def _check_prompt(config: Config, section: str) -> None:
    from radquant.prompts import check_template, read_template

    path = config[section]["prompt"]
    if not Path(path).is_file():
        folder = Path(path).parent
        others = [str(other) for other in sorted(folder.glob("*.txt"))]
        raise UserError(
            f"config: {section}.prompt is {path}, which does not exist; {nearest(path, others)}"
        )
    try:
        task = config["task"]
        template = read_template(path, None)
        check_template(template, COLUMNS, task["target"], images=bool(task["image_column"]))
    except UserError as error:
        raise UserError(f"config: {section}.prompt ({path}): {error}") from None
