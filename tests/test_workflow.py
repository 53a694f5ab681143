"""What reruns when, on the job tables of dry runs of a finished run."""

import json
import os
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_helpers import (
    REPOSITORY,
    SMOKE,
    SOURCES,
    copy_repository,
    copy_run,
    dry_run,
    local_modules,
    snakemake,
)

import radquant.code
from radquant.files import write_json
from radquant.reporting.method_sections import REPRODUCE
from radquant.settings.configuration import resolve

OUTPUTS = {"generate": 6, "annotate": 6, "score": 6}  # 3 precisions of 2 shards, 3 baselines
NEVER = ["fetch_model", "fetch_corpus", "clean"]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return copy_run(finished_run, tmp_path / "run")


def jobs(run: Path, *overrides: str) -> dict[str, int]:
    config = ["--config", *overrides] if overrides else []
    planned = dry_run(run, *SMOKE, *config)
    assert planned.code == 0, planned.out + planned.err
    return planned.jobs


def edit(file: Path) -> None:
    """Change what the file says: one more comment in Python, one more sentence elsewhere."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text + ("# edited\n" if file.suffix == ".py" else "\nBe brief.\n"))


@pytest.mark.slow
def test_a_finished_run_has_nothing_to_do(run: Path) -> None:
    assert jobs(run) == {}


@pytest.mark.slow
def test_a_second_call_does_nothing_and_ends_soon(run: Path) -> None:
    before = os.times()
    done = snakemake(run, *SMOKE)
    after = os.times()
    seconds = sum(after[2:4]) - sum(before[2:4])  # CPU time: others may be busy on the machine
    assert done.returncode == 0
    assert "Nothing to be done" in done.stderr
    assert seconds < 5


@pytest.mark.slow
def test_touching_every_file_reruns_nothing(run: Path) -> None:
    touched = 0
    for name in [*SOURCES, "profiles"]:
        for file in [run / name, *(run / name).rglob("*")]:
            os.utime(file)
            touched += file.is_file()
    assert touched > 50
    assert jobs(run) == {}


@pytest.mark.slow
def test_touching_the_data_reruns_nothing(run: Path) -> None:
    for file in (run / "results" / "data").iterdir():
        os.utime(file)
    assert jobs(run) == {}


@pytest.mark.slow
def test_editing_the_generation_prompt(run: Path) -> None:
    edit(run / "prompts" / "impression.txt")
    assert jobs(run) == {"check_prompts": 1, **OUTPUTS, "likelihood": 3, "report": 1}


@pytest.mark.slow
def test_editing_the_calibration_prompt(run: Path) -> None:
    edit(run / "prompts" / "calibration.txt")
    found = jobs(run)
    assert (found.pop("calibration_set"), found.pop("quantize")) == (1, 1)
    assert found.pop("verify_checkpoint") == 1
    assert found == {"generate": 4, "likelihood": 2, "annotate": 4, "score": 2, "report": 1}


@pytest.mark.slow
def test_editing_awq(run: Path) -> None:
    edit(run / "src" / "radquant" / "quantization" / "awq.py")
    found = jobs(run)
    assert (found.pop("quantize"), found.pop("verify_checkpoint")) == (1, 1)
    assert found == {"generate": 4, "likelihood": 2, "annotate": 4, "score": 2, "report": 1}


@pytest.mark.slow
def test_changing_one_precision(run: Path) -> None:
    assert jobs(run, 'precisions={"w4a8": {"activations": {"bits": 4}}}') == {
        "write_config": 1,
        "generate": 2,
        "likelihood": 1,
        "annotate": 2,
        "score": 1,
        "report": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"activations": {"granularity": "tensor"}},
        {"activations": {"clip_ratio": 0.9}},
        {"activations": {"skip": ["down_proj"]}},
        {"kv_cache": {"bits": 4}},
    ],
)
def test_changing_what_a_precision_rounds(run: Path, settings: dict[str, Any]) -> None:
    found = jobs(run, f'precisions={{"w4a8": {json.dumps(settings)}}}')
    assert (found["generate"], found["likelihood"], found["score"]) == (2, 1, 1)
    assert not {"quantize", "calibration_set", *NEVER} & set(found)


@pytest.mark.slow
def test_saying_what_holds_anyway_reruns_nothing(run: Path) -> None:
    """Nor does another order of the keys."""
    said = {"symmetric": True, "granularity": "token", "range": "dynamic", "skip": [], "bits": 8}
    checkpoint = {"transform": "none", "prefix": "none", "smooth_attention": False}
    overrides = [
        f'precisions={{"w4a8": {{"activations": {json.dumps(said)}, "kv_cache": null}}}}',
        f'checkpoints={{"awq-w4": {json.dumps(checkpoint)}}}',
        'generation={"reports": null}',
    ]
    assert jobs(run, *overrides) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        {"transform": "hadamard"},
        {"smooth_attention": True},
        {"prefix": "auto"},
        {"activations": {"bits": 8}},
    ],
)
def test_changing_a_checkpoints_transform(run: Path, recipe: dict[str, Any]) -> None:
    found = jobs(run, f'checkpoints={{"awq-w4": {json.dumps(recipe)}}}')
    assert (found["quantize"], found["generate"], found["likelihood"]) == (1, 4, 2)
    assert not {"calibration_set", *NEVER} & set(found)


@pytest.mark.slow
def test_what_authors_and_readers_say_reruns_the_report_alone(run: Path) -> None:
    assert jobs(run, 'study={"leak": "no", "ethics": "Waived."}') == {
        "write_config": 1,
        "report": 1,
    }
    (run / "a reader's file.json").write_text("{}")
    readings = """study={"readings": ["a reader's file.json"]}"""
    assert jobs(run, readings) == {"write_config": 1, "readers": 1, "report": 1}


@pytest.mark.slow
def test_writing_fewer_reports_scores_all_references_by_themselves(run: Path) -> None:
    assert jobs(run, 'generation={"reports": 4}') == {
        **{"write_config": 1, "baselines": 1, "report": 1, "score": OUTPUTS["score"]},
        "generate_only": OUTPUTS["generate"],
        "likelihood_only": 3,
        "annotate": OUTPUTS["annotate"] + 3,
    }


@pytest.mark.slow
def test_from_two_to_three_shards(run: Path) -> None:
    assert jobs(run, 'generation={"shards": 3}') == {
        "write_config": 1,
        "generate": 9,
        "likelihood": 3,
        "annotate": 9,
        "score": 6,
        "report": 1,
    }


@pytest.mark.slow
def test_changing_one_recipe(run: Path) -> None:
    found = jobs(run, 'checkpoints={"awq-w4": {"group_size": 32}}')
    assert (found["quantize"], found["generate"], found["likelihood"]) == (1, 4, 2)
    assert not {"calibration_set", *NEVER} & set(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("seed=8", "clean"),
        ('evaluation={"reports": 7}', "clean"),
        ('calibration={"samples": 9}', "calibration_set"),
        ('generation={"max_new_tokens": 9}', "generate"),
        ('compute={"threads": 2}', "quantize"),
        ('statistics={"margin": 0.02}', "report"),
    ],
)
def test_an_option_reruns_its_first_user_and_what_follows(
    run: Path, override: str, first: str
) -> None:
    order = ["fetch_model", "fetch_corpus", "clean", "calibration_set", "quantize", "generate"]
    order += ["annotate", "score", "report"]
    found = jobs(run, override)
    assert next(rule for rule in order if rule in found) == first
    assert {*order[order.index(first) :]} <= set(found)


BY_ENGINES = {"check_prompts", "generate", "likelihood", "annotate", "score", "report"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("statistics.py", {"report"}),
        ("reporting/__init__.py", {"report"}),
        ("reporting/assets/explorer.css", {"report"}),
        ("scoring/scores.py", {"score", "report"}),
        ("scoring/lexicon_agreement.json", {"report"}),
        ("registry.py", set()),
        ("generation/likelihood.py", BY_ENGINES - {"check_prompts"}),
        ("generation/joined_likelihood.py", {"likelihood", "report"}),
        # An engine writes and scores: all of it counts where one is opened.
        ("generation/transformers_writing.py", BY_ENGINES),
        ("generation/lean_likelihood.py", BY_ENGINES),
        ("kernels/cpp/linear.h", BY_ENGINES),
        ("generation/vllm_job.py", set()),  # of an engine that the run does not use
        ("corpus/formats/table.py", set()),
        ("settings/configuration.py", set()),
    ],
)
def test_editing_a_module_reruns_the_stages_that_import_it(
    run: Path, module: str, rules: set[str]
) -> None:
    edit(run / "src" / "radquant" / module)
    assert set(jobs(run)) == rules


@pytest.mark.slow
@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_another_version_reruns_what_computes_with_a_model(
    run: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(
        radquant.code, "version", lambda name: "0" if name == package else version(name)
    )
    found = jobs(run)
    assert (found["calibration_set"], found["quantize"], found["likelihood"]) == (1, 1, 3)
    assert found["generate"] == OUTPUTS["generate"]
    assert not set(NEVER) & set(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "rule"),
    [
        ("models/original/tokenizer_config.json", "fetch_model"),
        ("checkpoints/awq-w4/model.safetensors", "quantize"),
        ("data/train.csv", "clean"),
    ],
)
def test_a_lost_file_is_made_again_where_it_is_needed(run: Path, file: str, rule: str) -> None:
    (run / "results" / file).unlink()
    assert jobs(run) == {}
    edit(run / "prompts" / "impression.txt")
    assert jobs(run)[rule] == 1


@pytest.mark.slow
@pytest.mark.parametrize("file", ["report.md", "report.html", "reporting.md"])
def test_a_lost_result_is_made_again(run: Path, file: str) -> None:
    (run / "results" / file).unlink()
    assert jobs(run) == {"report": 1}


@pytest.mark.slow
def test_a_run_with_other_precisions_builds_only_what_is_new(run: Path) -> None:
    found = jobs(
        run,
        'checkpoints={"rtn": {"method": "rtn", "group_size": 64}}',
        'precisions={"w4-rtn": {"checkpoint": "rtn"}}',
    )
    assert found == {
        "write_config": 1,
        "quantize": 1,
        "verify_checkpoint": 1,
        "generate": 2,
        "likelihood": 1,
        "annotate": 2,
        "score": 1,
        "report": 1,
    }


@pytest.mark.slow
def test_editing_an_environment_rebuilds_it_and_reruns_its_users(run: Path) -> None:
    other = 'scoring={"annotator": "radgraph", "radgraph": {"directory": "somewhere"}}'
    assert jobs(run, other)["build_env"] == 1
    assert jobs(run, other)["annotate"] == 9
    (run / "envs" / "radgraph.txt").write_text("other==1\n")
    assert jobs(run) == {}  # the lexicon does not need it


def test_the_code_inputs_of_each_rule_are_all_that_its_script_imports(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    radgraph = 'scoring={"annotator": "radgraph", "radgraph": {"directory": "somewhere"}}'
    readings = 'study={"readings": ["config.yaml"]}'
    found = dry_run(run, "--config", radgraph, readings).code_inputs
    engines = ["lean", "transformers"]
    chosen = {"CORPUS_FORMATS": ["openi"], "ANNOTATORS": ["radgraph"], "ENGINES": engines}
    chosen["MEASURES"] = []
    found.pop("all")
    assert len(found) == 19
    # Rules of shards have the same list hashed in a parameter, and their script as input.
    for rule in ("generate", "annotate"):
        assert found.pop(rule) == {f"scripts/{rule}.py"}
    alone = dry_run(run, "--config", 'generation={"reports": 4}').code_inputs
    assert alone["generate_only"] == {"scripts/generate.py"}
    found["likelihood_only"] = alone["likelihood_only"]
    scripts = {"annotate_reference": "annotate", "likelihood": "join_likelihood"}
    scripts["likelihood_only"] = "likelihood"
    for rule, inputs in found.items():
        script = scripts.get(rule, rule)
        expected = local_modules(REPOSITORY / "scripts" / f"{script}.py", chosen)
        assert inputs == expected, rule


def test_each_job_has_a_log_of_its_own(tmp_path: Path) -> None:
    planned = dry_run(copy_repository(tmp_path / "run"))
    logs = re.findall(r"^    log: (.*)$", planned.out, re.M)
    assert len(logs) == len(set(logs)) == sum(planned.jobs.values())


def arrows(mermaid: str) -> set[tuple[str, str]]:
    """Every pair of rules of which the second depends on the first, directly or not."""
    names = dict(re.findall(r"(\w+)\[(\w+)\]", mermaid))
    found = re.findall(r"(\w+) --> (\w+)", mermaid)
    pairs = {(names.get(first, first), names.get(second, second)) for first, second in found}
    while implied := {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs:
        pairs |= implied
    return pairs


def test_the_page_shows_the_workflows_graph(tmp_path: Path) -> None:
    shown = re.search(r"```mermaid\n(.*?)```", (REPOSITORY / "docs/workflow.md").read_text(), re.S)
    run = copy_repository(tmp_path / "run")
    drawn = snakemake(run, "results/report.md", "--rulegraph", "mermaid-js")
    assert shown
    assert drawn.returncode == 0
    assert arrows(shown[1]) == arrows(drawn.stdout)


def test_the_command_of_a_report_runs_in_the_runs_folder(tmp_path: Path) -> None:
    """Which need not be the code's."""
    config = yaml.safe_load((REPOSITORY / SMOKE[1]).read_text(encoding="utf-8"))
    for part in ("generation", "calibration"):
        prompt = resolve(config).model_dump()[part]["prompt"]
        config.setdefault(part, {})["prompt"] = str(REPOSITORY / prompt)
    (tmp_path / "results").mkdir()
    write_json(tmp_path / "results" / "config.json", config)
    program, *words = shlex.split(REPRODUCE.replace("RADQUANT", str(REPOSITORY)))
    planned = dry_run(tmp_path, *words)
    assert (program, planned.code) == ("snakemake", 0), planned.out + planned.err
    assert planned.jobs["report"] == 1
