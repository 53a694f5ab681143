"""docs/from-scripts.md: its commands run as they stand, one after another, with a tiny model."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from local_hub import local_hub
from test_scripts import Script
from tiny_models import tiny_llama
from workflow_helpers import REPOSITORY, errors

from radquant.files import read_json, read_table

PAGE = (REPOSITORY / "docs" / "from-scripts.md").read_text(encoding="utf-8")
MODEL = "mistralai/Mistral-7B-v0.1"
PLACES = ["chest", "left lung", "right lung", "mediastinum", "pleura", "heart", "hilum", "spine"]
SIGNS = ["clear", "normal", "unremarkable", "stable", "enlarged", "small", "hazy", "dense"]


def commands(kind: str) -> list[list[str]]:
    """The words of each command in the page's blocks of this kind."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def write_reports(path: Path, count: int) -> list[str]:
    """A table of `count` invented reports, each other than all others; its rows."""
    rows = [
        f"p{n},The {PLACES[n % 8]} is {SIGNS[n // 8 % 8]} and the {PLACES[n // 64]} is "
        f"{SIGNS[n * 5 % 8]} at level {n}.,No acute change of the {PLACES[n % 8]} at level {n}."
        for n in range(count)
    ]
    path.write_text("\n".join(["patient_id,findings,impression", *rows]) + "\n")
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a person would stand: the repository's programs, a table, and a hub to ask."""
    made = tmp_path_factory.mktemp("old")
    for name in ("scripts", "prompts", "src", "rules", "Snakefile", "config.yaml", "profiles"):
        (made / name).symlink_to(REPOSITORY / name)
    rows = write_reports(made / "mimic.csv", 400)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "max_position_embeddings": 512}
    tiny_llama(made / "hub" / MODEL, texts=rows, **sizes)
    return made


def call(folder: Path, words: list[str], environment: dict[str, str]) -> str:
    python, *others = words
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *others],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def last(folder: Path) -> list[str]:
    """The last line of each command before the comparison."""
    *new, _compare, _plan = commands("sh")
    with local_hub(folder / "hub") as hub:
        said = [call(folder, words, hub.environment(folder / "home")) for words in new]
    return [each.strip().splitlines()[-1] for each in said]


def test_a_table_is_cleaned_and_a_model_quantized(folder: Path, last: list[str]) -> None:
    assert len(last) == 5
    assert last[0] == "raw.parquet: 400 reports"
    assert re.fullmatch(r"eval.csv: 100 reports, and \d+ in train.csv", last[1])
    train, evaluation = (read_table(folder / f"{name}.csv") for name in ("train", "eval"))
    assert len(evaluation) == 100
    assert not set(train["group"]) & set(evaluation["group"])
    size = (folder / "models/Mistral-7B-v0.1/model.safetensors").stat().st_size
    assert last[2] == f"models/Mistral-7B-v0.1: {size / 1e6:.3g} MB of weights"
    assert re.fullmatch(r"samples.parquet: 64 samples, \d+ tokens", last[3])
    small = (folder / "models/Mistral-7B-v0.1-awq/model.safetensors").stat().st_size
    assert small < 0.8 * size
    whole = f"{small / 1e3:.3g} kB of weights, where the original has {size / 1e6:.3g} MB"
    assert last[4] == f"models/Mistral-7B-v0.1-awq: {whole}"
    recipe = read_json(folder / "models/Mistral-7B-v0.1-awq/quantization.json")["recipe"]
    assert (recipe["method"], recipe["bits"], recipe["group_size"]) == ("awq", 4, 128)


@pytest.mark.usefixtures("last")
def test_the_comparison_ends_with_a_report(folder: Path) -> None:
    *_, compare, _plan = commands("sh")
    said = call(folder, compare, {"HF_HUB_OFFLINE": "1"})
    run = folder / "evaluations" / "Mistral-7B-v0.1-awq"
    assert said.splitlines()[-1] == f"Report: {run / 'results/report.md'} (and report.html)"
    summary = read_json(run / "results" / "summary.json")
    assert summary["verdict"]
    scores = read_table(run / "results/scores/Mistral-7B-v0.1-awq.parquet")
    assert len(scores) == 100


def test_the_configuration_of_the_page_is_planned(folder: Path, tmp_path: Path) -> None:
    """Of the hub, which file holds the weights is asked and nothing else."""
    *_, words = commands("sh")
    (config,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "mine.yaml").write_text(config)
    assert "weights" not in yaml.safe_load(config)["model"]
    shutil.copy(folder / "mimic.csv", tmp_path)
    os.symlink(REPOSITORY / "prompts", tmp_path / "prompts")
    with local_hub(folder / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-m", *words, "-p", "--snakefile", str(REPOSITORY / "Snakefile")],
            cwd=tmp_path,
            env={**os.environ, **hub.environment(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        asked = {path.rpartition("/")[2] for _, path in hub.requests if MODEL in path}
    assert done.returncode == 0, errors(done.stderr)
    assert "results/models/original/model.safetensors" in done.stdout + done.stderr
    assert asked == {"model.safetensors.index.json"}


@pytest.mark.parametrize("words", commands("sh old"), ids=lambda words: words[1])
def test_the_old_commands_are_told_what_to_do(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is parsed as it was; of the others the message names the way."""
    monkeypatch.chdir(folder)
    name = Path(words[1]).stem
    if name == "evaluate":
        args, _ = Script(name).parse(*words[2:])
        assert (args.data, args.num_samples, args.text_column) == ("reports.csv", 100, "impression")
        assert str(args.prompt_file) == "prompts/x.txt"
        return
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    (said,) = errors(done.stderr)
    assert {
        "clean": "python scripts/fetch_corpus.py --format table --path mimic.csv",
        "quantize": f"python scripts/fetch_model.py --hub {MODEL} --revision main",
    }[name] in said
