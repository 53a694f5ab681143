"""From a table with image files to reports and likelihoods, by the scripts and by the workflow."""

import hashlib
import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny_images import random_gray, tiny_vision_model, write_dicom, write_png
from tiny_models import SCRIPTS, tiny_llama
from workflow_helpers import copy_repository, dry_run, errors, finish, snakemake

from radquant.files import read_json
from radquant.vision.features import open_features

PROMPT = "describe this image"
FINDINGS = ["the lungs are clear .", "no acute effusion .", "heart size is normal ."]
ENDINGS = ["png", "dcm", "jpg"]


def run_script(name: str, *options: object) -> None:
    with mock.patch.object(sys, "argv", [f"{name}.py", *map(str, options)]):
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")


def write_corpus(folder: Path, count: int = 24) -> Path:
    """A table of `count` studies with one or two images each, the last with none; `folder`."""
    rows = []
    for n in range(count):
        names = [f"p{n}/{n}-{k}.{ENDINGS[(n + k) % 3]}" for k in range(1 + n % 2)]
        for k, name in enumerate(names):
            path, seed = folder / "images" / name, 2 * n + k
            if name.endswith(".dcm"):
                kind = {"PhotometricInterpretation": "MONOCHROME1"} if n % 4 else {}
                write_dicom(path, random_gray(seed, levels=4096), **kind)
            else:
                write_png(path, random_gray(seed))
        cell = ";".join(names) if n < count - 1 else ""
        words = f"{FINDINGS[n % 3]} {'cough ' * (n % 5)}"
        rows.append({"study": f"s{n}", "patient": f"p{n}", "findings": words, "files": cell})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder


def clean(data: Path, output: Path, *options: object) -> None:
    names = {"train": "csv", "eval": "csv", "rejected": "csv", "funnel": "json"}
    places = [
        word for name, end in names.items() for word in (f"--{name}", output / f"{name}.{end}")
    ]
    run_script(
        *("clean", "--raw", data / "raw.parquet", "--inputs", "--target", "findings", "--seed", 3),
        *("--eval-reports", 5, "--eval-fraction", 0.5, *places, *options),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, corpus, splits, calibration texts and a checkpoint, each by its script."""
    folder = write_corpus(tmp_path_factory.mktemp("images"))
    tiny_vision_model(folder / "source", sliding_window=128)
    run_script(
        *("fetch_model", "--path", folder / "source", "--with-images"),
        *("--downloads", folder, "--output", folder / "original"),
    )
    run_script(
        *("fetch_corpus", "--format", "table", "--path", folder / "table.csv"),
        *("--id-column", "study", "--group-column", "patient", "--image-column", "files"),
        *("--output", folder / "raw.parquet"),
    )
    clean(folder, folder, "--image-root", folder / "images")
    run_script(
        *("calibration_set", "--model", folder / "original", "--train", folder / "train.csv"),
        *("--prompt-text", PROMPT, "--with-images", "--target", "findings", "--samples", 4),
        *("--output", folder / "samples.parquet", "--record", folder / "set.json"),
    )
    run_script(
        *("quantize", "--model", folder / "original", "--method", "awq", "--bits", 4),
        *("--group-size", 32, "--calibration", folder / "samples.parquet", "--device", "cpu"),
        *("--output", folder / "checkpoint"),
    )
    encode(folder, folder / "features", 2)
    return folder


def encode(data: Path, folder: Path, shards: int) -> None:
    """Encode the evaluation's images by the script, in so many jobs."""
    for shard in range(1, shards + 1):
        stem = folder / f"shard-{shard}-of-{shards}"
        run_script(
            *("encode_images", "--model", data / "original", "--reports", data / "eval.csv"),
            *("--image-root", data / "images", "--device", "cpu", "--store", data / "store"),
            *("--shards", shards, "--shard", shard),
            *("--output", f"{stem}.parquet", "--metrics", f"{stem}.json"),
        )


def shown(name: str, data: Path, out: Path, *options: object, model: str = "checkpoint") -> Any:
    """Run generate or likelihood; its table by id and its measures."""
    run_script(
        *(name, "--model", data / model, "--precision", "p", "--train", data / "train.csv"),
        *("--eval", data / "eval.csv", "--target", "findings", "--prompt-text", PROMPT),
        *("--image-root", data / "images", "--device", "cpu", "--dtype", "float32"),
        *("--examples", 0),
        *("--output", f"{out}.parquet", "--metrics", f"{out}.json", *options),
    )
    table = pd.read_parquet(f"{out}.parquet").set_index("id")
    return table, json.loads(Path(f"{out}.json").read_text())


def test_names_of_images_come_through_cleaning(data: Path) -> None:
    source = pd.read_csv(data / "table.csv", keep_default_na=False).set_index("study")
    rejected = pd.read_csv(data / "rejected.csv").set_index("id")
    assert rejected.loc["s23", "reason"] == "no image"
    kept = 0
    for name in ("train", "eval"):
        table = pd.read_csv(data / f"{name}.csv", keep_default_na=False).set_index("id")
        assert (table["images"] == source.loc[table.index, "files"]).all()
        kept += len(table)
    # Equal findings of two images are no duplicates.
    assert kept + len(rejected) == 24
    assert set(rejected["reason"]) <= {"no image", "not drawn"}


def test_cleaning_records_what_was_done_to_each_image(data: Path) -> None:
    ways = read_json(data / "funnel.json")["images"]
    files = [name for way in ways for name in way["files"]]
    shown_ = pd.read_csv(data / "eval.csv")["images"].str.split(";").explode()
    assert sorted(files) == sorted(shown_)
    for way in ways:
        assert way["images"] == len(way["files"])
        ends = {Path(name).suffix for name in way["files"]}
        if "as it is" in way["steps"]:
            assert ends <= {".png", ".jpg"}
        else:
            assert ends == {".dcm"}
            assert way["steps"][0] == "stretched over its own range"
    assert any("inverted (MONOCHROME1)" in way["steps"] for way in ways)


def test_calibration_may_be_text_and_its_prompt_the_same_for_all(data: Path) -> None:
    samples = pd.read_parquet(data / "samples.parquet")
    assert len(set(samples["text"])) == 4
    assert all(PROMPT in text and "image_soft_token" not in text for text in samples["text"])
    assert not any(49 in ids for ids in samples["input_ids"])


@pytest.mark.parametrize("model", ["original", "checkpoint"])
def test_outputs_and_likelihoods_are_of_the_report_alone(
    data: Path, tmp_path: Path, model: str
) -> None:
    more = ("--max-new-tokens", 6)
    whole, record = shown("generate", data, tmp_path / "a", "--batch-size", 4, *more, model=model)
    alone, _ = shown("generate", data, tmp_path / "b", "--batch-size", 1, *more, model=model)
    pd.testing.assert_frame_equal(whole, alone)
    stored = ("--features", data / "features")
    read, _ = shown(
        "generate", data, tmp_path / "e", "--batch-size", 4, *more, *stored, model=model
    )
    pd.testing.assert_frame_equal(whole, read)
    evaluation = pd.read_csv(data / "eval.csv").set_index("id")
    names = evaluation["images"].str.split(";")
    assert record["images"] == names.str.len().sum() > 5
    assert record["shared_prefix_tokens"] > 0
    assert record["layers_quantized"] == (14 if model == "checkpoint" else 0)
    for report in evaluation.index:
        count = len(names[report])
        text = f"<s><start_of_turn>user\n{'<start_of_image>' * count}{PROMPT}<end_of_turn>\n"
        parts = [f"{text}<start_of_turn>model\n".encode()]
        for name in names[report]:
            digest = hashlib.sha256((data / "images" / name).read_bytes()).hexdigest()
            parts.append(digest.encode())
        assert whole.loc[report, "prompt_hash"] == hashlib.sha256(b"\0".join(parts)).hexdigest()
        # Turn and role, prompt, end, turn and role; an image's begin and end.
        assert whole.loc[report, "prompt_tokens"] == 3 + 6 * count + 3 + 1 + 2

    many, measured = shown("likelihood", data, tmp_path / "c", "--batch-size", 4, model=model)
    one, _ = shown("likelihood", data, tmp_path / "d", "--batch-size", 1, model=model)
    np.testing.assert_allclose(many["nll"], one["nll"], rtol=1e-5)
    again, _ = shown("likelihood", data, tmp_path / "f", "--batch-size", 4, *stored, model=model)
    pd.testing.assert_frame_equal(many, again)
    assert measured["images"] == record["images"]
    scored = ("--likelihood", tmp_path / "h.parquet", "--likelihood-metrics", tmp_path / "h.json")
    both, _ = shown(
        "generate", data, tmp_path / "g", "--batch-size", 4, *more, *scored, model=model
    )
    pd.testing.assert_frame_equal(whole, both)
    assert (tmp_path / "h.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()
    words = evaluation["findings"].str.findall(r"\w+|\S").str.len()
    assert (many["tokens"] == words).all()


def test_another_image_is_another_prompt(data: Path, tmp_path: Path) -> None:
    before, _ = shown("likelihood", data, tmp_path / "a")
    hashes, _ = shown("generate", data, tmp_path / "b", "--max-new-tokens", 1)
    changed = shutil.copytree(data, tmp_path / "changed")
    table = pd.read_csv(data / "eval.csv").set_index("id")
    report = next(name for name in table.index if ";" not in table.loc[name, "images"])
    path = changed / "images" / table.loc[report, "images"]
    write_png(path.with_suffix(".png"), 255 - random_gray(99)).rename(path)
    after, _ = shown("likelihood", changed, tmp_path / "c")
    other, _ = shown("generate", changed, tmp_path / "d", "--max-new-tokens", 1)
    assert list(before.index[before["nll"] != after["nll"]]) == [report]
    different = hashes["prompt_hash"] != other["prompt_hash"]
    assert list(hashes.index[different]) == [report]


def refused(capsys: pytest.CaptureFixture[str], run: Any) -> str:
    """The one sentence with which a script ends."""
    with pytest.raises(SystemExit) as exit_:
        run()
    assert exit_.value.code == 1
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error: " in each]
    return line


@pytest.mark.parametrize("stage", ["clean", "generate", "likelihood"])
def test_a_bad_image_stops_with_file_column_and_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    table = pd.read_csv(data / "eval.csv").set_index("id")
    report, name = table.index[2], table["images"].iloc[2].split(";")[0]
    path = copy / "images" / name

    def run() -> None:
        if stage == "clean":
            clean(copy, tmp_path / "out", "--image-root", copy / "images")
        else:
            more = ("--max-new-tokens", 2) if stage == "generate" else ()
            shown(stage, copy, tmp_path / "out", *more)

    named = f"error: {path}, named in column 'images' of report {report},"
    path.write_bytes(b"Doe^Jane" * 100)
    line = refused(capsys, run)
    assert line.startswith(f"{named} cannot be read as a PNG, JPEG or DICOM image")
    assert "Doe" not in line
    path.unlink()
    assert refused(capsys, run).startswith(f"{named} does not exist or is not a file")
    assert not list(tmp_path.glob("out*"))


def test_what_goes_with_images_and_what_does_not(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*options: object, name: str = "generate", model: str = "original") -> str:
        return refused(capsys, lambda: shown(name, data, tmp_path / "x", *options, model=model))

    tiny_llama(tmp_path / "llama")
    model = str(tmp_path / "llama")  # absolute: it is not under `data`
    for name in ("generate", "likelihood"):
        assert "of type 'llama', which is shown no images" in refuse(name=name, model=model)
    assert "1 few-shot examples were asked for, but examples show no" in refuse("--examples", 1)
    assert "nowhere does not exist or is not a folder" in refuse("--image-root", "nowhere")
    assert "a.tgz is an archive, which fetch_corpus alone" in refuse("--image-root", "a.tgz")
    assert "uses {images}, which is no column" in refuse("--prompt-text", "{images}")
    text_only = pd.read_csv(data / "eval.csv").drop(columns="images")
    text_only.to_csv(tmp_path / "text.csv", index=False)
    said = refuse("--eval", tmp_path / "text.csv")
    assert "text.csv has no column 'images', which --image-root needs" in said
    arguments = ("fetch_model", "--path", model, "--with-images", "--downloads", tmp_path)
    line = refused(capsys, lambda: run_script(*arguments, "--output", tmp_path / "original"))
    assert "of type 'llama', which is shown no images" in line
    assert not (tmp_path / "original").exists()


FEATURES = "results/features/original/evaluation"


def unchanged_and_changed_images(run: Path) -> None:
    """Neither a touched image nor another prompt or batch encodes images; another image does."""

    def plan() -> str:
        batch = 'generation={"prompt": "prompts/own.txt", "batch_size": 3}'
        found = dry_run(run, "--configfile", "own.yaml", "--config", batch)
        assert found.code == 0, found.err
        return found.out + found.err

    name = pd.read_csv(run / "results" / "data" / "eval.csv")["images"].iloc[0].split(";")[0]
    path, prompt = run / "images" / name, run / "prompts" / "own.txt"
    os.utime(path, (1, 1))
    prompt.write_text(f"{PROMPT} findings")
    told = plan()
    assert "rule generate:" in told
    assert "rule encode_images:" not in told
    before = path.read_bytes()
    write_png(path.with_suffix(".png"), 255 - random_gray(99)).rename(path)
    assert "rule encode_images:" in plan()
    path.write_bytes(before)
    prompt.write_text(PROMPT)


@pytest.mark.slow
def test_the_workflow_shows_images(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    write_corpus(run)
    tiny_vision_model(run / "model", sliding_window=128)
    prompt = run / "prompts" / "own.txt"
    prompt.write_text(PROMPT)
    (run / "prompts" / "calibrated.txt").write_text(PROMPT)
    columns = {"id": "study", "group": "patient"}
    corpus = {"name": "own", "format": "table", "path": "table.csv", "columns": columns}
    config = {
        "model": {"name": "tiny", "path": "model"},
        "checkpoints": {"awq": {"method": "awq", "bits": 4, "group_size": 32}},
        "precisions": {"original": {"checkpoint": "original"}, "w4": {"checkpoint": "awq"}},
        "calibration": {"samples": 4, "prompt": "prompts/calibrated.txt"},
        "corpus": {**corpus, "image_root": "images"},
        "task": {"inputs": [], "target": "findings", "image_column": "files"},
        "cleaning": {"eval_fraction": 0.5},
        "evaluation": {"reports": 5},
        "generation": {
            "prompt": "prompts/own.txt",
            "examples": 0,
            "max_new_tokens": 4,
            "shards": 1,
        },
        "statistics": {"resamples": 100},
        "speed": {"repeats": 0},
        "report": {"images": True},
    }
    (run / "own.yaml").write_text(yaml.safe_dump(config))
    finish(run, "--cores", "1", "--configfile", "own.yaml")
    report = " ".join((run / "results" / "report.md").read_text().split())
    assert "wrote the findings from the images of 5 reports" in report
    assert "copy-input is empty, for there is no text to repeat, and so is nearest" in report
    handed_in = pd.read_parquet(run / "results/generations/nearest/all.parquet")["output"]
    assert set(handed_in) == {""}
    assert "nearest training report's" not in report
    assert "Images were made what a model is shown by these steps: " in report
    assert "report.html has small copies of the images: names, dates and numbers that are" in report
    assert 'id="image-0">data:image/jpeg;base64,' in (run / "results" / "report.html").read_text()
    assert "Images were encoded once, by the original's vision part" in report
    summary = (run / "results" / "summary.json").read_text()
    assert '"as it is"' in summary
    encoded = json.loads(summary)["performance"]["encoding"]["original"]
    assert encoded["images"] == len(open_features(run / FEATURES).listed) > 5
    unchanged_and_changed_images(run)
    assert ".png" not in summary
    assert read_json(run / "results" / "likelihood" / "original.json")["images"] > 5
    # Calibration sees images, too, and its features are those of its own reports.
    quantized = read_json(run / "results" / "checkpoints" / "awq" / "quantization.json")
    assert quantized["calibration"]["images"] >= 4
    samples = pd.read_parquet(run / "results" / "calibration" / "samples.parquet")
    assert all(
        sum(ids == 49) == 4 * len(names.split(";"))
        for ids, names in zip(samples["input_ids"], samples["images"], strict=True)
    )
    # An image that is lost is noticed where it is first read, in a sentence.
    shutil.rmtree(run / "images")
    (run / "images").mkdir()
    done = snakemake(run, "--configfile", "own.yaml", "--forcerun", "clean")
    assert done.returncode == 1
    assert all("does not exist or is not a file" in line for line in errors(done.stderr))
    assert errors(done.stderr)
