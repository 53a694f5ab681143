"""The configuration: its defaults, its checks, and the sentence that each mistake gets."""

import contextlib
import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from workflow_helpers import REPOSITORY, SMOKE, DryRun, copy_repository, dry_run, errors

from radquant.errors import UserError
from radquant.settings import configuration
from radquant.settings.precision import (
    Activations,
    KVCache,
    LMHead,
    activations_of,
    as_values,
    kv_cache_of,
)
from radquant.settings.recipe import Recipe, recipe_of, recipe_values

WHEEL_MODEL = {
    "name": "own",
    "wheel": {"requirement": "a==1", "sha256": "0" * 64, "file": "a.gguf"},
}
READY = [
    "config.yaml",
    "config/smoke.yaml",
    "config/activation-study.yaml",
    "config/activation-study-gemma3.yaml",
    "config/activation-methods.yaml",
    "config/mimic-mistral.yaml",
    "config/mimic-medgemma.yaml",
    "config/openi-medgemma.yaml",
]


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every default in, as results/config.json has it."""
    return configuration.resolve(config).model_dump(mode="json")


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))
    return loaded


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return `base` with the value at a dotted path set, or removed if it is `...`."""
    result = copy.deepcopy(base)
    *parents, last = path.split("/")
    place = result
    for key in parents:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return result


@pytest.mark.parametrize("name", READY)
def test_ready_configurations_resolve_to_something_valid(name: str) -> None:
    full = resolved(read(name))
    jsonschema.validate(full, read("config/schema.yaml"))
    assert resolved(full) == full


def test_a_configuration_without_options_takes_them_from_the_schema() -> None:
    given = {
        "model": {"name": "m", "path": "somewhere"},
        "corpus": {"name": "c", "format": "table", "path": "table.csv"},
    }
    full = resolved(given)
    assert list(full["precisions"]) == ["original"]
    assert full["generation"]["batch_size"] == 20
    assert full["model"]["weights"] is None  # looked up where the model is
    assert given["model"] == {"name": "m", "path": "somewhere"}


def test_the_floor_of_the_default_run_is_one_symmetric_dynamic_scale_per_tensor() -> None:
    precisions = resolved(read("config.yaml"))["precisions"]
    names = ["original", "w4a16", "w4a8", "w4a8-naive", "w4a4-naive", "w4a16-rtn"]
    assert list(precisions) == names
    for bits in (8, 4):
        found = activations_of(precisions[f"w4a{bits}-naive"]["activations"])
        assert found == Activations(bits=bits, granularity="tensor")
    assert activations_of(precisions["w4a8"]["activations"]) == Activations(
        bits=8, granularity="token"
    )


def test_every_key_of_the_default_run_is_commented() -> None:
    """A comment stands above each key, or above the first of a block of keys."""
    commented = False
    blank = ("seed:", "model:", "corpus:", "task:", "cleaning:", "evaluation:", "calibration:")
    sections = {*blank, "generation:", "scoring:", "statistics:", "compute:", "radgraph:"}
    for line in (REPOSITORY / "config.yaml").read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            commented = True
        elif not text:
            commented = False
        elif text not in sections:
            assert commented or text.startswith(("-", "original:", "w4", "rtn", "awq")), line


def test_every_property_of_the_schema_is_described() -> None:
    def check(schema: dict[str, Any], place: str) -> None:
        for key, sub in schema.get("properties", {}).items():
            assert sub.get("description"), f"{place}/{key}"
            check(sub, f"{place}/{key}")
        if isinstance(schema.get("additionalProperties"), dict):
            check(schema["additionalProperties"], f"{place}/*")

    schema = read("config/schema.yaml")
    check(schema, "")
    for name, definition in schema["$defs"].items():
        check(definition, name)


def test_the_schemas_defaults_are_those_of_the_code() -> None:
    """Scripts called by hand take the latter."""
    given = changed(read("config/smoke.yaml"), "checkpoints", {"c": {"method": "awq"}})
    given["precisions"] = {
        "original": {"checkpoint": "original"},
        "p": {
            "checkpoint": "c",
            "activations": {"bits": 8},
            "kv_cache": {"bits": 4},
            "lm_head": {"bits": 8},
        },
    }
    full = resolved(given)
    found = full["precisions"]["p"]
    assert found["activations"] == as_values(Activations(bits=8))
    assert found["kv_cache"] == as_values(KVCache(bits=4))
    assert found["lm_head"] == as_values(LMHead(bits=8))
    assert activations_of(found["activations"]) == Activations(bits=8)
    assert kv_cache_of(found["kv_cache"]) == KVCache(bits=4)
    recipe = recipe_of(full["checkpoints"]["c"])
    assert recipe_values(recipe) == recipe_values(Recipe(method="awq", bits=4, group_size=128))
    assert full["precisions"]["original"] == {
        "checkpoint": "original",
        "activations": None,
        "kv_cache": None,
        "lm_head": None,
        "engine": None,
    }


def test_static_ranges_are_those_of_the_checkpoint() -> None:
    static = {"bits": 8, "granularity": "tensor", "range": "static", "skip": ["down_proj"]}
    given = changed(read("config/smoke.yaml"), "precisions/w4a8/activations", static)
    sentence = "give checkpoints.awq-w4.activations the same values"
    for other in (None, {**static, "bits": 4}, {**static, "skip": []}):
        with pytest.raises(UserError, match=re.escape(sentence)):
            resolved(changed(given, "checkpoints/awq-w4/activations", other))
    full = resolved(changed(given, "checkpoints/awq-w4/activations", static))
    assert full["checkpoints"]["awq-w4"]["activations"] == full["precisions"]["w4a8"]["activations"]


TEXTS = {"id": "some/texts", "revision": "main", "file": "raw/texts.jsonl"}
MISTAKES = [
    ("generation/shard", 3, "generation.shard is not a known key; did you mean shards?"),
    ("seeds", 3, "seeds is not a known key; did you mean seed?"),
    ("generation/shards", 0, "generation.shards is 0 and must be at least 1"),
    ("generation/shards", 1.5, "generation.shards must be of type integer, not 1.5"),
    ("generation", None, "generation has no value; write one of type object, or take its line out"),
    ("corpus/format", "open-i", "'open-i', which is not allowed; did you mean openi?"),
    ("checkpoints/awq-w4/bits", 5, "type int has no 5 bits; use one of 2, 3, 4, 8"),
    ("checkpoints/awq-w4/bits", 2, "checkpoints.awq-w4: method awq cannot do 2 bits"),
    ("checkpoints/awq-w4/desc_act", True, "desc_act does not go with method awq"),
    (
        "checkpoints/rtn-w4",
        {"method": "rtn", "progressive": True, "format": "gemm"},
        "format gemm cannot hold progressive scales; use format qoq",
    ),
    (
        "checkpoints/rtn-w4",
        {"method": "rtn", "progressive": True, "bits": 8},
        "progressive does not go with 8 bits; use 4",
    ),
    ("checkpoints/rtn-w4/tool", "autoawq", "AutoAWQ cannot do method rtn; use awq"),
    ("checkpoints/rtn-w4/rounding", "gptq", "rounding gptq needs calibration"),
    ("checkpoints/rtn-w4", {"method": "gptq", "bits": 3, "format": "gemm"}, "cannot hold 3 bits"),
    ("checkpoints/awq-w4/group_size", 65, "did you mean 64?"),
    ("checkpoints/original", {"method": "rtn"}, "choose another name"),
    ("checkpoints/..", {"method": "rtn"}, "has '..', which is not of the form"),
    ("precisions/a b", {"checkpoint": "awq-w4"}, "has 'a b', which is not of the form"),
    ("precisions/w4a16/checkpoint", "awqw4", "did you mean awq-w4?"),
    ("precisions/constant", {"checkpoint": "awq-w4"}, "precisions.constant is a reserved name"),
    ("precisions/other", {"checkpoint": "original"}, "and no other, uses the checkpoint original"),
    ("precisions/original", ..., "precisions.original is missing"),
    ("precisions/original/activations", {"bits": 8}, "takes no activations"),
    ("precisions/w4a8/activations", {}, "precisions.w4a8.activations.bits is missing"),
    ("precisions/w4a8/activations/bits", 16, "the valid ones are 4, 8"),
    ("precisions/w4a8/activations/grain", "token", "w4a8.activations.grain is not a known key"),
    ("precisions/w4a8/activations/granularity", "tokens", "did you mean token?"),
    ("precisions/w4a8/activations/granularity", "head", "the valid ones are tensor, token, group"),
    ("precisions/w4a8/activations/clip_ratio", 0, "clip_ratio is 0 and must be greater than 0"),
    ("precisions/w4a8/activations/clip_ratio", 1.5, "clip_ratio is 1.5 and must be at most 1"),
    ("precisions/w4a8/activations/group_size", 0, "group_size is 0 and must be at least 1"),
    (
        "precisions/w4a8/activations",
        {"bits": 8, "range": "static"},
        "config: precisions.w4a8.activations: a static range cannot be of a token",
    ),
    (
        "precisions/w4a8/activations",
        {"bits": 8, "range": "static", "granularity": "tensor", "clip_ratio": 0.9},
        "config: precisions.w4a8.activations: static ranges are searched; leave clip_ratio out",
    ),
    (
        "precisions/w4a8/activations",
        {"bits": 8, "range": "static", "granularity": "tensor"},
        "config: precisions.w4a8.activations has range static, whose ranges are stored with the",
    ),
    ("precisions/original/lm_head", {"bits": 8}, "takes no lm_head"),
    ("precisions/w4a16/lm_head", {}, "precisions.w4a16.lm_head.bits is missing"),
    ("precisions/w4a16/lm_head", {"bits": 4}, "lm_head.bits is 4"),
    (
        "precisions/w4a16/lm_head",
        {"bits": 8, "group_size": 20},
        "lm_head.group_size: 20 is not a multiple of 8",
    ),
    ("precisions/original/kv_cache", {"bits": 8}, "takes no kv_cache"),
    ("precisions/w4a16/kv_cache", {}, "precisions.w4a16.kv_cache.bits is missing"),
    ("precisions/w4a16/kv_cache", {"bits": 4, "granularity": "tensor"}, "use head, token or group"),
    ("precisions/w4a16/kv_cache", {"bits": 4, "range": "static"}, "kv_cache.range is not a known"),
    ("checkpoints/awq-w4/transform", "rotate", "the valid ones are none, smooth, hadamard"),
    (
        "checkpoints/awq-w4/transform",
        "smooth",
        "config: checkpoints.awq-w4: transform smooth does not go with method awq",
    ),
    ("checkpoints/awq-w4/smooth_attention", "yes", "smooth_attention must be of type boolean"),
    ("checkpoints/awq-w4/prefix", "bos", "the valid ones are none, auto"),
    ("checkpoints/awq-w4/activations", {"bits": 5}, "awq-w4.activations.bits is 5"),
    (
        "checkpoints/awq-w4/activations",
        {"bits": 8, "range": "static"},
        "config: checkpoints.awq-w4.activations: a static range cannot be of a token",
    ),
    *(
        (
            "checkpoints/other",
            {"method": method, "tool": tool, key: value},
            f"config: checkpoints.other: {name} cannot do {what}",
        )
        for method, tool, name in (
            ("awq", "autoawq", "AutoAWQ"),
            ("gptq", "gptqmodel", "GPTQModel"),
        )
        for key, value, what in (
            ("transform", "hadamard", "transform hadamard; leave transform out"),
            ("smooth_attention", True, "smooth_attention"),
            ("prefix", "auto", "prefix auto"),
            ("activations", {"bits": 8}, "weights fitted to activations"),
        )
    ),
    ("model/name", ..., "model.name is missing"),
    ("model/path", "here", "exactly one of wheel, hub and path, not wheel and path"),
    ("model/wheel", None, "exactly one of wheel, hub and path, not none"),
    ("model/wheel/sha256", "abc", "has 'abc', which is not of the form: 64 lowercase"),
    ("scoring/annotator", "radgraph", "scoring.radgraph.revision is None and no commit"),
    (
        "scoring",
        {"annotator": "radgraph", "radgraph": {"revision": "main", "encoder_revision": "a" * 40}},
        "scoring.radgraph.revision is 'main' and no commit of 40 digits",
    ),
    (
        "scoring",
        {"annotator": "radgraph", "radgraph": {"revision": "a" * 40}},
        "scoring.radgraph.encoder_revision is None and no commit",
    ),
    ("corpus/path", "here", "needs exactly one of wheel, path, not wheel with path"),
    ("corpus/train", "a.csv", "are given together or not at all"),
    ("corpus/format", "table", "format table needs exactly one of path, train and eval, not wheel"),
    ("corpus/split_file", "a.csv", "corpus.split_file is not used by format openi"),
    ("corpus/columns", {"text": "report"}, "corpus.columns is for format table"),
    ("corpus/headings", {"findings": ["Befund"]}, "corpus.headings is for table, mimic-tree"),
    (
        "corpus/headings",
        {"findings": [" "]},
        "has a heading that holds no letter",
    ),
    (
        "corpus/headings",
        {"findings": ["A\nB"]},
        "has a heading that holds a line break",
    ),
    (
        "corpus/headings",
        {"findings": ["A: B"]},
        "corpus.headings.findings has a heading that holds a",
    ),
    (
        "corpus/headings",
        {"findings": ["a" * 81]},
        "a heading that is longer than 80",
    ),
    (
        "corpus/headings",
        {"findings": ["Befund"], "impression": ["BEFUND:"]},
        "corpus.headings.impression has the heading 'BEFUND:', as findings has; leave it in one",
    ),
    ("cleaning/min_input_words", 0, "must be at least 1"),
    ("generation/prompt", "prompts/{x}.txt", "a path may hold no braces"),
    ("task/inputs", ["impression"], "task.inputs holds impression, which is the target"),
    ("cleaning", {"min_words": 3, "max_words": 2}, "must not exceed"),
    ("statistics/confidence", 0.5, "statistics.confidence is 0.5 and must be at least 0.9"),
    ("statistics/resamples", 100, "statistics.resamples is 100, of which no p is small enough"),
    ("generation/reports", 0, "generation.reports is 0 and must be at least 1"),
    ("generation/reports", 151, "generation.reports is 151 and must not exceed evaluation.reports"),
    ("evaluation/reports", 0, "evaluation.reports is 0 and must be at least 1"),
    ("generation/prompt", "prompts/impresion.txt", "did you mean prompts/impression.txt?"),
    ("calibration/prompt", "prompts/none.txt", "which does not exist"),
    ("calibration/packed", True, "calibration.packed is not a known key; did you mean pack?"),
    ("calibration/pack", 1, "calibration.pack must be of type boolean, not 1"),
    ("calibration/table", {"column": "text"}, "calibration.table.path is missing"),
    ("calibration/table", {"path": "t.xls"}, "'t.xls', which is not of the form: a .csv"),
    ("calibration/table", {"path": "{t}.csv"}, "a path may hold no braces"),
    ("calibration/table", {"path": "t.csv", "colum": "t"}, "did you mean column?"),
    ("calibration/hub", {"id": "a/b", "file": "c.csv"}, "calibration.hub.revision is missing"),
    ("calibration/hub", {**TEXTS, "id": "a/b/c"}, "is not of the form: owner/name"),
    ("calibration/hub", {**TEXTS, "file": "../c.csv"}, "is not of the form: path in the"),
    ("calibration/hub", {**TEXTS, "file": "c/../../c.csv"}, "is not of the form: path in the"),
    ("calibration", {"hub": TEXTS, "table": {"path": "t.csv"}}, "not from both; remove one"),
    (8, {}, "8 is a key that is not text"),
    ("task/inputs", [], "task.inputs is empty; give it a value, or an image_column"),
    ("task/image_column", "image", "task.image_column and corpus.image_root, the folder of the"),
    ("corpus/image_root", "images", "task.image_column and corpus.image_root, the folder of the"),
    ("corpus/views", "frontal", "corpus.views is frontal, but the task shows no images; set it to"),
    ("corpus/views", "lateral", "corpus.views is 'lateral', which is not allowed; the valid ones"),
    ("report/images", True, "report.images is true, but the task shows no images; set it to false"),
]

IMAGE_CORPUS = {"name": "own", "format": "table", "path": "t.csv", "image_root": "images"}
IMAGE_MISTAKES: list[tuple[str, Any, str]] = [
    (
        "corpus/views",
        "frontal",
        "corpus.views and views_file choose among images that format openi",
    ),
    (
        "corpus/image_root",
        "x.tgz",
        "corpus.image_root is an archive, which format openi reads, not",
    ),
    ("generation/examples", 1, "generation.examples is 1, but examples show no images; set it"),
    ("generation/examples", ..., "generation.examples is 2, but examples show no images; set it"),
    ("model", WHEEL_MODEL, "the GGUF file of model.wheel holds text layers only"),
    (
        "corpus",
        {"name": "own", "format": "text-folder", "path": "t", "image_root": "images"},
        "is not for a corpus of format text-folder, but for openi, table, mimic-tree, mimic",
    ),
    (
        "corpus",
        {"name": "own", "format": "mimic-tree", "path": "t", "image_root": "images"},
        "with format mimic-tree, task.image_column is a column of corpus.split_file; give one",
    ),
    ("task/inputs", ["findings"], "task.inputs holds findings, which is the target"),
]


def image_config(path: str = "seed", value: Any = 7) -> dict[str, Any]:
    """A run in which the findings are written from images alone."""
    base = read("config/mimic-medgemma.yaml")
    base = {**base, "corpus": IMAGE_CORPUS, "model": {"name": "own", "path": "model"}}
    base |= {"checkpoints": {}, "precisions": {"original": {"checkpoint": "original"}}}
    del base["calibration"]
    return changed(base, path, value)


@pytest.mark.parametrize(("path", "value", "sentence"), IMAGE_MISTAKES)
def test_a_mistake_about_images_gets_one_sentence(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        resolved(image_config(path, value))


def test_a_prompt_for_images_needs_no_column(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Describe the chest X-ray.")
    checkpoints = {"awq": {"method": "awq"}}
    precisions = {"original": {"checkpoint": "original"}, "w4": {"checkpoint": "awq"}}
    base = {**image_config(), "checkpoints": checkpoints, "precisions": precisions}
    base["generation"]["prompt"] = str(prompt)
    base["calibration"] = {"prompt": str(prompt)}
    full = resolved(base)
    assert full["task"] == {
        **{"inputs": [], "target": "findings", "image_column": "image", "date": "2025-01-01"}
    }
    prompt.write_text("{images}")
    with pytest.raises(UserError, match=r"uses \{images\}, which is no column"):
        resolved(base)
    del base["task"]["image_column"], base["corpus"]
    base = {**base, "corpus": {"name": "own", "format": "table", "path": "t.csv"}}
    base["task"]["inputs"] = ["indication"]
    prompt.write_text("Describe the chest X-ray.")
    with pytest.raises(UserError, match="uses no column, so every report would get the same one"):
        resolved(base)


def test_the_image_folder_reaches_the_scripts(repository: Path) -> None:
    (repository / "images.yaml").write_text(yaml.safe_dump(image_config()))
    run = dry_run(repository, "--configfile", "images.yaml", "-p")
    assert run.code == 0, run.err
    commands = {
        name: [line for line in run.out.splitlines() if f"/{name}.py " in line]
        for name in ("fetch_model", "fetch_corpus", "clean", "generate", "baselines")
    }
    for name in ("clean", "generate"):
        assert all("--image-root=images" in line for line in commands[name]), name
    assert "--image-column=image" in commands["fetch_corpus"][0]
    assert "--with-images" in commands["fetch_model"][0]
    for name in ("clean", "baselines"):
        assert all("--inputs --" in line for line in commands[name]), name
    assert all(commands.values())


@pytest.mark.parametrize(("path", "value", "sentence"), MISTAKES)
def test_a_mistake_gets_one_sentence(path: Any, value: Any, sentence: str) -> None:
    base = read("config.yaml")
    wrong = {**base, path: value} if isinstance(path, int) else changed(base, path, value)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        resolved(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("Findings: {finding}", "findings"),
        ("Write an impression.", "column"),
        ("Impression: {impression}", "impression"),
        ("Report: {text}", "text"),
        ("", "empty"),
    ],
)
def test_a_wrong_prompt_is_noticed_before_anything_runs(
    tmp_path: Path, template: str, sentence: str
) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(template, encoding="utf-8")
    for section in ("generation", "calibration"):
        with pytest.raises(UserError, match=sentence) as caught:
            resolved(changed(read("config.yaml"), f"{section}/prompt", str(prompt)))
        assert str(prompt) in str(caught.value)


def test_the_calibration_prompt_of_a_run_without_calibration_is_not_looked_at() -> None:
    plain = changed(read("config.yaml"), "calibration/prompt", "prompts/none.txt")
    for name in ("w4a16", "w4a8", "w4a8-naive", "w4a4-naive"):
        del plain["precisions"][name]
    full = configuration.resolve(plain)
    assert full.used_checkpoints == ["rtn-w4"]
    assert full.calibrated_checkpoints == []


@pytest.mark.parametrize("source", [{"hub": TEXTS}, {"table": {"path": "t.csv"}}])
def test_the_calibration_prompt_is_not_looked_at_for_other_texts(source: dict[str, Any]) -> None:
    calibration = {"prompt": "prompts/none.txt", **source}
    full = resolved({**read("config.yaml"), "calibration": calibration})
    (texts,) = source
    assert full["calibration"][texts]["column"] == "text"


def as_text(value: Any) -> Any:
    """Return `value` as Snakemake hands over what stands inside --config: every leaf is text."""
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("name", READY)
def test_numbers_that_arrive_as_text_are_numbers(name: str) -> None:
    given = read(name)
    assert resolved(as_text(given)) == resolved(given)


@pytest.mark.slow
@given(st.data())
@settings(deadline=None)  # a machine that is busy is no error
def test_whatever_stands_at_a_key_either_resolves_or_gets_one_sentence(data: st.DataObject) -> None:
    base = read("config/smoke.yaml")
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    value = st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4
    )
    section = data.draw(st.sampled_from([*base, "task", "scoring", "unknown"]))
    keys = list(base.get(section) or []) if isinstance(base.get(section), dict) else []
    path = "/".join([section, *([data.draw(st.sampled_from(keys))] if keys else [])])
    wrong = changed(base, path, data.draw(value))
    with contextlib.suppress(UserError):  # any other exception fails the test
        jsonschema.validate(resolved(wrong), read("config/schema.yaml"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("workflow") / "a clone's (path) {x}")


def assert_one_sentence(run: DryRun, sentence: str) -> None:
    assert run.code == 1
    assert len(errors(run.err)) == 1
    assert sentence in errors(run.err)[0]
    assert "Traceback" not in run.out + run.err


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (['generation={"shard": 3}'], "did you mean shards?"),
        (['generation={"shards": 0}'], "must be at least 1"),
        (['corpus={"format": "openii"}'], "did you mean openi?"),
        (
            ['generation={"prompt": "prompts/impressions.txt"}'],
            "did you mean prompts/impression.txt?",
        ),
    ],
)
def test_snakemake_ends_with_one_sentence(
    repository: Path, overrides: list[str], sentence: str
) -> None:
    assert_one_sentence(dry_run(repository, "--config", *overrides), sentence)
    assert not (repository / "results").exists()


def test_braces_in_texts_reach_the_scripts(repository: Path) -> None:
    """To Snakemake they are wildcards, except in what a function returns."""
    config = image_config()
    config["corpus"] |= {"image_root": "images {a}", "columns": {"id": "id {b}"}}
    config["task"]["image_column"] = "image {c}"
    hub = {"id": "a/b", "revision": "main {e}"}
    config["model"] = {"name": "m {d}", "hub": hub, "weights": ["model.safetensors"]}
    config["calibration"] = {"table": {"path": "texts.csv", "column": "text {f}"}}
    config["generation"]["stop"] = ["{g}", "{{h}}"]
    config["checkpoints"] = {"w4": {"method": "awq"}}
    config["precisions"]["w4"] = {"checkpoint": "w4"}
    (repository / "braces.yaml").write_text(yaml.safe_dump(config))
    run = dry_run(repository, "--configfile", "braces.yaml", "-p")
    assert run.code == 0, run.err
    for name, option in (
        ("clean", "image-root=images {a}"),
        ("fetch_corpus", "id-column=id {b}"),
        ("fetch_corpus", "image-column=image {c}"),
        ("fetch_model", "revision=main {e}"),
        ("calibration_set", "column=text {f}"),
        ("generate", "stop={g}"),
        ("generate", "stop={{h}}"),
    ):
        assert re.search(rf"/{name}\.py .*'--{re.escape(option)}'", run.out), option
    config["calibration"] = {"hub": {"id": "a/b", "revision": "main {i}", "file": "c.csv"}}
    (repository / "braces.yaml").write_text(yaml.safe_dump(config))
    run = dry_run(repository, "--configfile", "braces.yaml", "-p")
    assert run.code == 0, run.err
    assert re.search(r"/fetch_texts\.py .*'--revision=main \{i\}'", run.out)


def test_a_command_does_not_grow_with_the_shards(repository: Path) -> None:
    """Linux takes 128 KiB as one command, and four lists of 700 shards' files are more."""
    shards = ("--config", 'generation={"shards": 40}')
    run = dry_run(repository, "results/scores/original.parquet", *SMOKE, "-p", *shards)
    command = next(line for line in run.out.splitlines() if "score.py --system" in line)
    assert "--generations results/generations/original/shard-*-of-40.parquet " in command
    assert len(command) < 1000


def test_the_default_run_is_planned(repository: Path) -> None:
    full = resolved(read("config.yaml"))
    precisions, shards = len(full["precisions"]), full["generation"]["shards"]
    assert dry_run(repository).jobs == {
        "fetch_model": 1,
        "fetch_corpus": 1,
        "clean": 1,
        "check_model": 1,
        "check_prompts": 1,
        "calibration_set": 1,
        "quantize": len(full["checkpoints"]),
        "verify_checkpoint": len(full["checkpoints"]),
        "generate": precisions * shards,
        "likelihood": precisions,
        "baselines": 1,
        "annotate_reference": 1,
        "annotate": precisions * shards + 3,
        "measure_speed": 1,
        "score": precisions + 3,
        "write_config": 1,
        "report": 1,
    }


def test_a_models_folder_is_looked_at_where_it_is_there(repository: Path) -> None:
    config = {**read("config.yaml"), "model": {"name": "own", "path": "own-model"}}
    (repository / "own.yaml").write_text(yaml.safe_dump(config))
    assert dry_run(repository, "--configfile", "own.yaml").code == 0
    (repository / "own-model").mkdir()
    (repository / "own-model" / "config.json").write_text("{}")
    (repository / "own-model" / "adapter_config.json").write_text("{}")
    run = dry_run(repository, "--configfile", "own.yaml")
    assert_one_sentence(run, "own-model/adapter_config.json belongs to an adapter")


@pytest.mark.parametrize(
    ("source", "fetched", "read"),
    [
        ({"table": {"path": "own.csv"}, "pack": True}, 0, ["own.csv", "results/data/eval.csv"]),
        (
            {"hub": TEXTS},
            1,
            [
                "results/calibration/texts/raw/texts.jsonl",
                "results/calibration/texts.json",
                "results/data/eval.csv",
            ],
        ),
    ],
)
def test_calibration_on_other_texts_is_planned(
    repository: Path, source: dict[str, Any], fetched: int, read: list[str]
) -> None:
    (repository / "own.csv").write_text("text\n")
    run = dry_run(repository, "--config", f"calibration={json.dumps(source)}")
    assert run.code == 0
    assert run.jobs["calibration_set"] == 1
    assert run.jobs.get("fetch_texts", 0) == fetched
    inputs = re.search(r"^rule calibration_set:\n    input: (.*)$", run.out, re.M)
    assert inputs
    assert inputs[1].split(", ")[-len(read) :] == read
    assert "train.csv" not in inputs[1]
    assert "prompts/" not in inputs[1]


def test_a_dry_run_says_why_each_job_runs(repository: Path) -> None:
    out = dry_run(repository).out
    assert out.count("    reason: ") == len(re.findall(r"^(?:local)?rule \w+:$", out, re.M))


def test_a_given_configfile_stands_alone(repository: Path) -> None:
    """Merged into configuration.yaml, it would have all of the default run's precisions too."""
    jobs = dry_run(repository, "--configfile", "config/mimic-mistral.yaml").jobs
    assert (jobs["quantize"], jobs["likelihood"]) == (2, 4)


def test_single_values_are_overridden_on_top_of_either(repository: Path) -> None:
    override = ["--config", 'generation={"shards": 3}']
    for source in ([], ["--configfile", "config/smoke.yaml"]):
        before = dry_run(repository, *source).jobs
        assert dry_run(repository, *source, *override).jobs == {
            **before,
            "generate": 3 * before["likelihood"],
            "annotate": 3 * before["likelihood"] + 3,
        }


def test_references_are_scored_where_all_reports_are_written_by_an_engine_that_scores(
    repository: Path,
) -> None:
    """Else, and where an engine has an environment of its own, by jobs of their own."""
    base = ["--configfile", "config/smoke.yaml", "--config"]
    for engine in ("auto", "lean", "transformers"):
        jobs = dry_run(repository, *base, f'compute={{"engine": "{engine}"}}').jobs
        assert (jobs["generate"], jobs["likelihood"]) == (6, 3)
        assert not {"generate_only", "likelihood_only"} & set(jobs)
    another = 'precisions={"gguf": {"checkpoint": "q8", "engine": "llama.cpp"}}'
    checkpoint = 'checkpoints={"q8": {"tool": "llama.cpp", "type": "q8_0"}}'
    jobs = dry_run(repository, *base, another, checkpoint).jobs
    assert (jobs["generate"], jobs["likelihood"]) == (6, 3)
    assert (jobs["generate_only"], jobs["likelihood_only"]) == (2, 1)


@pytest.mark.parametrize("name", ["study", "study-gemma3", "methods"])
def test_every_checkpoint_about_activations_is_used(name: str) -> None:
    full = configuration.resolve(read(f"config/activation-{name}.yaml"))
    assert set(full.used_checkpoints) == set(full.checkpoints)


def test_the_study_of_activations_is_planned(repository: Path) -> None:
    full = resolved(read("config/activation-study.yaml"))
    run = dry_run(repository, "--configfile", "config/activation-study.yaml", "-p")
    assert run.jobs["quantize"] == len(full["checkpoints"])
    assert run.jobs["likelihood_only"] == len(full["precisions"])
    asked = {
        script: {
            "--reports=128" in line for line in run.out.splitlines() if f"/{script}.py " in line
        }
        for script in ("generate", "likelihood", "baselines", "score", "annotate", "clean")
    }
    assert asked == {
        **{script: {True} for script in ("generate", "baselines", "score")},
        **{script: {False} for script in ("likelihood", "annotate", "clean")},
    }


@pytest.mark.parametrize("name", ["mimic-mistral", "mimic-medgemma", "openi-medgemma"])
@pytest.mark.parametrize("profile", [[], ["--workflow-profile", "profiles/slurm"]])
def test_runs_of_the_real_models_are_planned_without_their_data(
    repository: Path, name: str, profile: list[str]
) -> None:
    run = dry_run(repository, "--configfile", f"config/{name}.yaml", *profile)
    assert run.code == 0
    assert run.jobs.get("build_env") == (None if name == "openi-medgemma" else 1)
    assert run.jobs["quantize"] == (2 if name == "mimic-mistral" else 3)
    assert run.jobs.get("quantize_to_gguf") == (None if name == "mimic-mistral" else 1)
    # The Open-I run writes some of its reports alone, and scores the references of all.
    scoring = "likelihood_only" if name == "openi-medgemma" else "likelihood"
    assert run.jobs[scoring] == (4 if name == "mimic-mistral" else 6)
    assert run.jobs["calibration_set"] == 1


def test_an_archive_of_images_is_unpacked_once_and_read_from_there(repository: Path) -> None:
    run = dry_run(repository, "--configfile", "config/openi-medgemma.yaml", "-p")
    assert run.code == 0, run.err
    commands = {
        name: [line for line in run.out.splitlines() if f"/{name}.py " in line]
        for name in ("fetch_corpus", "clean", "check_prompts", "encode_images")
    }
    assert len(commands["fetch_corpus"]) == 1
    for option in (
        *("--image-root=NLMCXR_png.tgz", "--images=results/images", "--views=frontal"),
        *("--image-column=parentImage", "--wheel-views-file=torchxrayvision/data/nlmcxr_tsne_pa"),
    ):
        assert option in commands["fetch_corpus"][0]
    for name in commands.keys() - {"fetch_corpus"}:
        assert commands[name], name
        assert all("--image-root=results/images" in line for line in commands[name]), name


def test_plain_rounding_needs_no_calibration(repository: Path) -> None:
    jobs = dry_run(repository, "results/checkpoints/rtn-w4/model.safetensors").jobs
    assert jobs == {"fetch_model": 1, "check_model": 1, "quantize": 1}


@pytest.mark.parametrize(
    "also",
    [
        {"transform": "hadamard"},
        {"transform": "smooth"},
        {"smooth_attention": True},
        {"prefix": "auto"},
        {"activations": {"bits": 8}},
    ],
)
def test_plain_rounding_after_a_look_at_activations_does(
    repository: Path, also: dict[str, Any]
) -> None:
    recipe = {"rtn-w4": {"method": "rtn", "group_size": 64, **also}}
    target = "results/checkpoints/rtn-w4/model.safetensors"
    planned = dry_run(repository, target, "-p", "--config", f"checkpoints={json.dumps(recipe)}")
    assert (planned.jobs["calibration_set"], planned.jobs["quantize"]) == (1, 1)
    full = configuration.resolve(
        changed(read("config.yaml"), "checkpoints/rtn-w4", recipe["rtn-w4"])
    )
    assert "rtn-w4" in full.calibrated_checkpoints


def test_settings_reach_the_scripts_as_json(repository: Path) -> None:
    """In one form, however they were written, and through the shell as they are."""
    given = '"activations": {"skip": ["it\'s {x} $HOME"], "clip_ratio": "0.9", "bits": "8"}'
    override = f'precisions={{"w4a8": {{{given}, "kv_cache": {{"bits": 4}}}}}}'
    target = "results/generations/w4a8/shard-1-of-1.parquet"
    planned = dry_run(repository, target, "-p", "--config", override)
    command = next(line for line in planned.out.splitlines() if " scripts/generate.py " in line)
    words = shlex.split(command.removeprefix("Shell command: "))
    found = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    expected = Activations(bits=8, clip_ratio=0.9, skip=("it's {x} $HOME",))
    assert activations_of(json.loads(found["--activations"])) == expected
    assert found["--activations"] == json.dumps(as_values(expected), sort_keys=True)
    assert found["--kv-cache"] == json.dumps(as_values(KVCache(bits=4)), sort_keys=True)


def test_three_precisions_of_one_checkpoint_share_its_job(repository: Path) -> None:
    targets = [f"results/likelihood/{name}.parquet" for name in ("w4a16", "w4a8", "w4a4-naive")]
    assert dry_run(repository, *targets).jobs["quantize"] == 1


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("\nstray: [\n", "config.yaml is no YAML: line"),
        ("\ncompute:\n  threads: 2\n", "'compute' stands in line"),
    ],
)
def test_a_config_that_cannot_be_read_says_where(tmp_path: Path, added: str, said: str) -> None:
    """Snakemake names no line of the one, and takes the second section of the other, unasked."""
    place = copy_repository(tmp_path / "clone")
    config = place / "config.yaml"
    config.write_text(config.read_text() + added)
    assert_one_sentence(dry_run(place), said)
    if "stands" in said:  # Snakemake reads a --configfile before anything of ours runs
        assert_one_sentence(dry_run(place, "--configfile", str(config)), said)
