"""The official RadGraph annotator, run for real on a tiny archive in the published layout."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from reading import read_jsonl

from radquant.environments import build
from radquant.errors import UserError
from radquant.files import sha256_file, sha256_text, write_table

REPOSITORY = Path(__file__).parents[1]
TEXTS = {
    "a": "No pleural effusion.\nThe heart is normal in size (12.5 cm).",
    "blank": " \n ",
    "b": "Mild opacity in the left lower lobe; edema.",
    "c": "No pleural effusion.\nThe heart is normal in size (12.5 cm).",
    "escaped": "\\n\\f",
    "d": "stable tube without pneumothorax of the right lung " * 8,  # more tokens than the encoder
    "e": "肺 😀 \u200b",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "outputs.parquet"
    write_table(path, pd.DataFrame({"id": list(TEXTS), "output": list(TEXTS.values())}))
    return path


def annotate(python, directory, texts, output, model="radgraph-xl", more=()):
    command = [str(python), "scripts/annotate.py", "--annotator", "radgraph"]
    command += ["--radgraph-model", model, "--radgraph-directory", str(directory)]
    command += ["--texts", str(texts), "--column", "output", "--output", str(output), *more]
    environment = {**os.environ, "PYTHONPATH": "src", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def annotated(radgraph_python, tiny_radgraph_directory, texts, tmp_path_factory):
    """The annotations; the folder `cache` beside them keeps each by its text."""
    output = tmp_path_factory.mktemp("annotated") / "outputs.jsonl"
    more = ["--cache", str(output.parent / "cache")]
    done = annotate(radgraph_python, tiny_radgraph_directory, texts, output, more=more)
    assert done.returncode == 0, done.stderr
    said = rf"{re.escape(str(output))}: \d+ texts annotated by radgraph\n"
    assert re.fullmatch(said, done.stdout)
    return output


PACKAGE = """
import json, sys
from radgraph import RadGraph
cache, texts = sys.argv[1:]
model = RadGraph(model_type="radgraph-xl", model_cache_dir=cache, cuda=-1)
texts = json.loads(texts)
answers = model(list(texts.values()))
with open(f"{cache}/answers.json", "w") as file:
    json.dump({name: answers[str(index)] for index, name in enumerate(texts)}, file)
"""


def unpacked(directory, target):
    """Unpack the tiny archive as its users do by hand, into `target`/radgraph-xl."""
    model = target / "radgraph-xl"
    with tarfile.open(directory / "radgraph-xl.tar.gz") as archive:
        archive.extractall(model)  # made here
    shutil.copytree(directory / "tiny-encoder", target / "tiny-encoder")
    return model


def test_annotations_equal_the_package_text_by_text(
    annotated, radgraph_python, tiny_radgraph_directory, tmp_path
):
    model = unpacked(tiny_radgraph_directory, tmp_path)
    config = (model / "config.json").read_text()
    encoder = str(tiny_radgraph_directory / "tiny-encoder")
    (model / "config.json").write_text(config.replace('"tiny-encoder"', json.dumps(encoder)))
    texts = {name: TEXTS[name] for name in "abcde"}  # a blank one would crash the package
    command = [str(radgraph_python), "-c", PACKAGE, str(tmp_path), json.dumps(texts)]
    subprocess.run(command, check=True)
    expected = json.loads((tmp_path / "answers.json").read_text())

    records = {record["id"]: record for record in read_jsonl(annotated)}
    assert list(records) == list(TEXTS)
    for name in texts:
        assert records[name]["text"] == expected[name]["text"]
        assert records[name]["entities"] == expected[name]["entities"]
    assert sum(len(records[name]["entities"]) for name in texts) > 20
    relations = [
        relation
        for name in texts
        for entity in records[name]["entities"].values()
        for relation in entity["relations"]
    ]
    assert relations


@pytest.fixture(scope="module")
def compared(radgraph_python, tmp_path_factory):
    """What tests/compare_radgraph.py found, model by model."""
    directory = tmp_path_factory.mktemp("compared")
    command = [str(radgraph_python), "tests/compare_radgraph.py", str(directory), "found.json"]
    command[-1] = str(directory / "found.json")
    environment = {**os.environ, "PYTHONPATH": "src", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
    return json.loads((directory / "found.json").read_text())


@pytest.mark.parametrize("model", ["radgraph", "radgraph-xl", "modern-radgraph-xl"])
def test_odd_annotations_equal_the_package_text_by_text(compared, model):
    found = compared[model]
    assert found["texts"] > 50
    assert found["different"] == 0
    assert {"\\n\\f" if model != "radgraph" else "\u200b", " \n "} <= set(found["blank"])
    assert all(set(text) <= set("\\nf \n\u200b") for text in found["blank"])
    assert found["entities"] > 1000
    assert found["relations"] > 1000


def test_what_is_kept_is_not_annotated_again(
    annotated, radgraph_python, tiny_radgraph_directory, texts, tmp_path
):
    cache = tmp_path / "cache"
    shutil.copytree(annotated.parent / "cache", cache)
    entries = [path for path in cache.rglob("*") if path.is_file()]
    assert len(entries) == len(set(TEXTS.values()) - {TEXTS["blank"]})
    # An annotation that no model gives shows where this run takes its own from.
    for path in entries:
        path.write_text(path.read_text().replace("effusion", "EFFUSION"))
    output = tmp_path / "again.jsonl"
    more = ["--cache", str(cache)]
    done = annotate(radgraph_python, tiny_radgraph_directory, texts, output, more=more)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == annotated.read_bytes().replace(b"effusion", b"EFFUSION")


def test_blank_texts_have_no_entities(annotated):
    records = {record["id"]: record for record in read_jsonl(annotated)}
    for name in ("blank", "escaped"):
        assert records[name]["entities"] == {}
        assert records[name]["text_hash"] == sha256_text(TEXTS[name])


def test_record_names_package_model_and_weights(annotated):
    annotators = {record["annotator"] for record in read_jsonl(annotated)}
    assert len(annotators) == 1
    assert annotators.pop().startswith("radgraph 0.1.18 radgraph-xl (sha256 ")


def test_a_read_only_folder_gives_the_same(
    annotated, radgraph_python, tiny_radgraph_directory, texts, tmp_path
):
    model = unpacked(tiny_radgraph_directory, tmp_path)
    before = sorted(path.name for path in model.rglob("*"))
    for path in [*model.rglob("*"), model]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        output = tmp_path / "outputs.jsonl"
        done = annotate(radgraph_python, tmp_path, texts, output)
    finally:
        for path in [model, *model.rglob("*")]:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == annotated.read_bytes()
    # Permissions do not bind root, so see that nothing was written either.
    assert sorted(path.name for path in model.rglob("*")) == before


def test_incomplete_folder_is_refused(radgraph_python, tiny_radgraph_directory, texts, tmp_path):
    model = unpacked(tiny_radgraph_directory, tmp_path)
    (model / "weights.th").unlink()
    done = annotate(radgraph_python, tmp_path, texts, tmp_path / "x.jsonl")
    assert done.returncode == 1
    assert "is no complete RadGraph model, it lacks weights.th" in done.stderr


def test_a_folder_without_the_model_is_refused(radgraph_python, texts, tmp_path):
    done = annotate(radgraph_python, tmp_path, texts, tmp_path / "x.jsonl", "modern-radgraph-xl")
    assert done.returncode == 1
    assert "holds neither the folder modern-radgraph-xl/ nor the archive" in done.stderr


def test_a_missing_encoder_is_named(radgraph_python, tiny_radgraph_directory, texts, tmp_path):
    unpacked(tiny_radgraph_directory, tmp_path)
    shutil.rmtree(tmp_path / "tiny-encoder")
    done = annotate(radgraph_python, tmp_path, texts, tmp_path / "x.jsonl")
    assert done.returncode == 1
    assert "text encoder 'tiny-encoder'" in done.stderr


def test_a_fetched_folder_that_was_changed_is_refused(
    radgraph_python, tiny_radgraph_directory, texts, tmp_path
):
    model = unpacked(tiny_radgraph_directory, tmp_path)
    files = {"radgraph-xl/weights.th": sha256_file(model / "weights.th")}
    files["tiny-encoder/vocab.txt"] = "0" * 64
    record = {"radgraph-xl": {"encoder": {"files": files}}, "radgraph": {}}
    (tmp_path / "source.json").write_text(json.dumps(record))
    done = annotate(radgraph_python, tmp_path, texts, tmp_path / "x.jsonl")
    assert done.returncode == 1
    assert "vocab.txt was changed after it was written" in done.stderr


def test_a_model_from_the_hub_needs_both_commits(radgraph_python, texts, tmp_path):
    command = [str(radgraph_python), "scripts/annotate.py", "--annotator", "radgraph"]
    command += ["--radgraph-revision", "a" * 40, "--texts", str(texts), "--column", "output"]
    command += ["--output", str(tmp_path / "x.jsonl")]
    environment = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs --radgraph-revision and --radgraph-encoder-revision" in done.stderr


def test_weights_that_run_code_are_refused(
    radgraph_python, tiny_radgraph_directory, texts, tmp_path
):
    model = unpacked(tiny_radgraph_directory, tmp_path)
    evil = (
        "import torch, os, sys\n"
        "class Evil:\n"
        "    def __reduce__(self): return os.mkdir, (sys.argv[1] + '/evil',)\n"
        "torch.save({'w': Evil()}, sys.argv[1] + '/weights.th')"
    )
    subprocess.run([str(radgraph_python), "-c", evil, str(model)], check=True)
    done = annotate(radgraph_python, tmp_path, texts, tmp_path / "x.jsonl")
    assert done.returncode == 1
    assert "cannot be loaded as plain tensors" in done.stderr
    assert not (model / "evil").exists()


def test_an_archive_that_climbs_out_is_refused(
    radgraph_python, tiny_radgraph_directory, texts, tmp_path
):
    directory = tmp_path / "models"
    shutil.copytree(tiny_radgraph_directory / "tiny-encoder", directory / "tiny-encoder")
    with tarfile.open(directory / "radgraph-xl.tar.gz", "w:gz") as archive:
        archive.add(texts, arcname="../../climbed")
    done = annotate(radgraph_python, directory, texts, tmp_path / "x.jsonl")
    assert done.returncode == 1
    assert "radgraph-xl.tar.gz cannot be unpacked" in done.stderr
    assert not (tmp_path / "climbed").exists()
    assert list((directory / ".unpacked").iterdir()) == []


def test_a_cut_archive_is_refused(radgraph_python, tiny_radgraph_directory, texts, tmp_path):
    shutil.copytree(tiny_radgraph_directory / "tiny-encoder", tmp_path / "tiny-encoder")
    whole = (tiny_radgraph_directory / "radgraph-xl.tar.gz").read_bytes()
    (tmp_path / "radgraph-xl.tar.gz").write_bytes(whole[: len(whole) // 2])
    done = annotate(radgraph_python, tmp_path, texts, tmp_path / "x.jsonl")
    assert done.returncode == 1
    assert "radgraph-xl.tar.gz cannot be unpacked" in done.stderr


def test_an_environment_is_ready_or_made_anew(tmp_path):
    requirements = tmp_path / "nothing.txt"
    requirements.write_text("# no packages\n")
    environment = tmp_path / "venv"
    build(requirements, environment)
    record = json.loads((environment / "ready.json").read_text())
    assert "pip" in record["packages"]
    stamp = (environment / "pyvenv.cfg").stat().st_mtime_ns
    build(requirements, environment)
    assert (environment / "pyvenv.cfg").stat().st_mtime_ns == stamp
    # Killed before the end: no ready.json, and whatever stood there goes.
    (environment / "ready.json").unlink()
    (environment / "half").write_text("")
    build(requirements, environment)
    assert not (environment / "half").exists()
    # Other requirements.
    requirements.write_text("# still no packages\n")
    (environment / "old").write_text("")
    build(requirements, environment)
    assert not (environment / "old").exists()


def test_an_environment_never_replaces_another_folder(tmp_path):
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("")
    with pytest.raises(UserError, match="not a virtual environment"):
        build(tmp_path / "requirements.txt", tmp_path / "precious")
    assert (tmp_path / "precious" / "file").exists()


def test_a_package_that_does_not_exist_is_one_sentence(tmp_path):
    (tmp_path / "requirements.txt").write_text("./no-such-package\n")
    with pytest.raises(UserError, match="could not install into it"):
        build(tmp_path / "requirements.txt", tmp_path / "venv")
    assert not (tmp_path / "venv" / "ready.json").exists()
