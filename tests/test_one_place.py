"""A kind is added by a file and a line, a key of a recipe by its declaration and its use.

Both are done to copies of the repository, which then run as users run them.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import test_corpus_formats
import test_families
import test_scoring_kinds
import test_stored_formats
import yaml
from tiny_models import tiny_llama
from workflow_helpers import REPOSITORY, copy_repository, finish

MORE = '''

def layers_of(model: Any) -> int:
    """As many as the checkpoint has: the report refuses others."""
    import json

    record = model / "quantization.json"
    return len(json.loads(record.read_text())["layers"]) if record.is_file() else 0


def score(opened: Opened, task: Task) -> Done:
    """As the model does: a run stops at an engine that computes with another one."""
    import torch

    from radquant.checkpoints.loading import load

    model = load(opened.wanted.model, torch.device("cpu"), torch.float32).model
    results = []
    for prompt in task.prompts:
        ids = torch.tensor([[*prompt.ids, *prompt.answer_ids]])
        with torch.inference_mode():
            said = model(input_ids=ids).logits[0].log_softmax(-1)
        places = range(len(prompt.ids), ids.shape[1])
        results.append(-sum(float(said[place - 1, ids[0, place]]) for place in places))
    return done(opened, task, results)
'''
# A report a line; its sections are parted by |.
CORPUS = test_corpus_formats.TOY.replace(
    "name, text, name,", 'name, text.replace("|", "\\n"), name,'
)
# {file: text} and {table: (name, module)} of all that is added.
FILES = {
    "generation/engines/toy.py": (REPOSITORY / "tests/toy_engine.py")
    .read_text(encoding="utf-8")
    .replace("weight_bytes=0", "weight_bytes=1")
    .replace("layers_quantized=0", "layers_quantized=layers_of(opened.wanted.model)")
    + MORE,
    "packed/formats/toy.py": test_stored_formats.TOY,
    "scoring/annotators/toy.py": test_scoring_kinds.ANNOTATOR.replace('"toy-environment"', "None"),
    "scoring/metrics/toy.py": test_scoring_kinds.METRIC,
    "corpus/formats/toy.py": CORPUS,
    "families/toy.py": test_families.TOY,
}
LINES = {
    "ENGINES": '"toy": "radquant.generation.engines.toy"',
    "STORED_FORMATS": '"toy": "radquant.packed.formats.toy"',
    "ANNOTATORS": '"toy": "radquant.scoring.annotators.toy"',
    "METRICS": '"toy": "radquant.scoring.metrics.toy"',
    "CORPUS_FORMATS": '"toy": "radquant.corpus.formats.toy"',
    # Transformers knows it, this program does not.
    "MODEL_FAMILIES": '"helium": "radquant.families.toy"',
}
CONFIG = {
    "model": {"name": "a toy's model", "path": "model"},
    "corpus": {"name": "a toy's corpus", "format": "toy", "path": "corpus.txt"},
    "evaluation": {"reports": 3},
    "calibration": {"samples": 4, "max_tokens": 64},
    "checkpoints": {"w4": {"method": "awq", "group_size": 32, "format": "toy"}},
    "precisions": {"original": {"checkpoint": "original"}, "w4a16": {"checkpoint": "w4"}},
    "generation": {"examples": 1, "batch_size": 2, "max_new_tokens": 8},
    "scoring": {"annotator": "toy"},
    "statistics": {"resamples": 200},
    "speed": {"repeats": 0},
    "compute": {"engine": "toy"},
}


def add_toys(repository: Path) -> None:
    """Six files, and six lines of one table each."""
    package = repository / "src" / "radquant"
    for name, text in FILES.items():
        assert not (package / name).exists()
        (package / name).write_text(text, encoding="utf-8")
    lines = (package / "registry.py").read_text(encoding="utf-8").splitlines()
    for table, line in LINES.items():
        lines.insert(lines.index(f"{table}: dict[str, str] = {{") + 1, f"    {line},")
    (package / "registry.py").write_text("\n".join(lines) + "\n", encoding="utf-8")


def toy_model(folder: Path, texts: Iterable[str]) -> None:
    tiny_llama(folder, texts=texts, max_position_embeddings=512)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "helium", "architectures": ["HeliumForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.long
def test_a_run_with_six_toys_ends_in_a_report_that_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_repository(tmp_path / "run")
    add_toys(run)
    reports = [
        f"r{n}:FINDINGS: The lungs are clear and the heart is normal {n}.|"
        f"IMPRESSION: No acute cardiopulmonary abnormality {n}."
        for n in range(12)
    ]
    toy_model(run / "model", reports)
    (run / "corpus.txt").write_text("\n".join(reports) + "\n")
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setenv("PYTHONPATH", str(run / "src"))
    finish(run, "--cores", "2")

    report = (run / "results" / "report.md").read_text(encoding="utf-8")
    summary = json.loads((run / "results" / "summary.json").read_text(encoding="utf-8"))
    assert "toy F1" in report  # the annotator's measure
    assert "full stops" in report  # the metric's column
    assert "toy_stops" in summary["quality"]["systems"]["w4a16"]
    assert "engine toy" in report
    assert summary["performance"]["systems"]["w4a16"]["engine"] == "toy"
    assert summary["config"]["corpus"]["format"] == "toy"
    assert report.count("format: toy") == 2  # of the corpus and of the checkpoint
    config = json.loads((run / "results/checkpoints/w4/config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "toy-bytes"
    # The family says what AWQ's scales fold into; of an unknown one nothing is folded.
    assert summary["quantization"]["w4"]["checks"]["largest_change_by_folding"] > 0
    assert "nothing is known" not in (run / "results/logs/quantize/w4.log").read_text()
    card = (run / "results/checkpoints/w4/README.md").read_text(encoding="utf-8")
    assert "overflow in float16" in card


KEY = """    loudness: int = Field(
        0, ge=0, le=11, description="How loudly the toy says that it has begun"
    )

    @model_validator(mode="before")
    @classmethod
    def with_own_rounding("""
USE = """    print("BEGUN" + "!" * recipe.loudness)
    form = format_for(recipe, asked)
"""


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow
def test_a_recipes_key_is_one_declaration_and_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in the schema, the options, a configuration, the record, the card and the docs."""
    copy = copy_repository(tmp_path / "copy")
    (copy / "docs").mkdir()
    page = (REPOSITORY / "docs" / "quantization.md").read_text(encoding="utf-8")
    (copy / "docs" / "quantization.md").write_text(page, encoding="utf-8")
    declared = copy / "src/radquant/settings/recipe.py"
    changed(declared, KEY.partition("\n\n")[2], KEY)
    used = copy / "src/radquant/quantization/quantizing.py"
    changed(used, "    form = format_for(recipe, asked)\n", USE)
    monkeypatch.setenv("PYTHONPATH", str(copy / "src"))

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=copy, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    python("-m", "radquant.settings")
    schema = yaml.safe_load((copy / "config" / "schema.yaml").read_text(encoding="utf-8"))
    assert schema["$defs"]["Checkpoint"]["properties"]["loudness"]["maximum"] == 11
    assert "`loudness`" in (copy / "docs" / "quantization.md").read_text(encoding="utf-8")
    assert "--loudness N how loudly the toy" in " ".join(
        python("scripts/quantize.py", "--help").split()
    )
    check = (
        "import sys, yaml; from radquant.settings.configuration import resolve;"
        "config = yaml.safe_load(open('config.yaml'));"
        "config['checkpoints']['awq-w4']['loudness'] = int(sys.argv[1]);"
        "print(resolve(config).checkpoints['awq-w4'].loudness)"
    )
    assert python("-c", check, "3").strip() == "3"
    tiny_llama(copy / "model")
    options = ["--method", "rtn", "--group-size", "32", "--loudness", "2"]
    said = python("scripts/quantize.py", "--model", "model", *options, "--output", "quantized")
    assert "BEGUN!!\n" in said
    record = json.loads((copy / "quantized" / "quantization.json").read_text())
    assert record["recipe"]["loudness"] == 2
    assert "- loudness: 2" in (copy / "quantized" / "README.md").read_text(encoding="utf-8")
