"""What a run was made from and what it made, as hashes: provenance.json.

It holds no time and no report text. A rerun from the same files by the same code and packages on
the same machine gives the same file, byte for byte.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from radquant import code
from radquant.errors import UserError
from radquant.files import read_json, sha256_file, sha256_text
from radquant.reporting.finished_run import Run, annotator_of
from radquant.settings import engines
from radquant.settings.checkpoint import OWN
from radquant.settings.chosen import kinds
from radquant.settings.precision import LLAMA_CPP
from radquant.settings.run import BASELINES, ORIGINAL

FORMAT = 2  # 1 did not say which code each stage read
PACKAGE = code.SOURCE / "radquant"
# What a stage's own record says of where and how it ran; times are left out.
RAN = [
    *("engine", "device", "device_name", "cpu_capability", "cpu_limits", "dtype", "threads"),
    *("batch_size", "kernel", "versions"),
]
# The scripts that a run calls, a stage each.
STAGES = (
    *("fetch_model", "fetch_corpus", "clean", "fetch_texts", "calibration_set", "encode_images"),
    "quantize",
    *("take_checkpoint", "verify_checkpoint"),
    *("check_model", "check_prompts", "measure_speed"),
    *("generate", "likelihood", "join_likelihood", "baselines", "build_env", "annotate"),
    *("score", "measure"),
    *("subgroups", "write_config", "readers", "report"),
)
# Other packages and engines, in environments of their own, have scripts quantize_* and generate_*.
IN_ENVIRONMENTS = ("quantize", "generate")
CARD = "README.md"  # of a checkpoint: documentation, which no stage reads


def provenance(run: Run) -> dict[str, Any]:
    """Return the record of a finished run.

    `config` to `stages` are what the run depends on, `results` is what came of it. Raises UserError
    if the prompt's file is no longer there.
    """
    return {
        "format": FORMAT,
        "seed": run.config["seed"],
        "config": {"sha256": sha256_text(canonical(run.config)), "values": run.config},
        "code": code_version(run.config),
        "prompts": _prompts(run),
        "data": {name: digest for name, digest in run.hashes.items() if name.startswith("data/")},
        "calibration": run.calibration,
        "checkpoints": _checkpoints(run),
        "annotator": run.annotator,
        "rewards": run.rewards,
        "packages": packages(),
        "environments": _environments(run),
        "machine": machine(),
        "stages": _stages(run),
        "results": _results(run),
    }


def canonical(value: Any) -> str:
    """JSON of equal values is equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def code_version(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sha256 of every file of the package, the scripts and the rules.

    `commit` is git's, None outside a git checkout; `changed` says whether the checkout differs
    from it in one of these files. `stages` names those that each stage of a run with this
    configuration reads.
    """
    chosen, scripts = kinds(config, of_precisions=True), code.script("report.py").parent
    stages = {stage: code.names(path, chosen) for stage, path in _scripts(scripts)}
    return {**_checkout(), "stages": stages}


@cache
def _checkout() -> dict[str, Any]:
    """The part of `code_version` that is the same for all runs."""
    root = code.script("report.py").parents[1]
    files = {path.relative_to(root).as_posix(): sha256_file(path) for path in _code_files(root)}
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = None if commit is None else bool(_git(root, "status", "--porcelain", "--", *files))
    return {
        "sha256": sha256_text(canonical(files)),
        "files": files,
        "commit": commit,
        "changed": changed,
    }


def _scripts(folder: Path) -> Iterator[tuple[str, Path]]:
    yield from ((stage, folder / f"{stage}.py") for stage in STAGES)
    for stage in IN_ENVIRONMENTS:
        yield from ((path.stem, path) for path in sorted(folder.glob(f"{stage}_*.py")))


def _code_files(root: Path) -> list[Path]:
    found = [
        *PACKAGE.rglob("*"),
        *PACKAGE.parent.glob("snakemake_logger_plugin_radquant/*.py"),
        *(root / "scripts").glob("*.py"),
        *(root / "rules").glob("*.smk"),
        *(root / "envs").glob("*.txt"),
        root / "Snakefile",
        root / "config" / "schema.yaml",
    ]
    compiled = {"__pycache__"}
    return sorted(path for path in found if path.is_file() and not compiled & set(path.parts))


def _git(root: Path, *words: str) -> str | None:
    """What git says, None where it is not installed or refuses the checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()


def _prompts(run: Run) -> dict[str, Any]:
    """Of the files, and of what was rendered from them: with examples, in the chat template."""
    path = run.config["generation"]["prompt"]
    if not Path(path).is_file():
        raise UserError(f"{path}, the run's prompt, is no longer there; put it back and run again")
    calibration = None if run.calibration is None else run.calibration["prompt_hash"]
    return {
        "generation": sha256_file(path),
        "calibration": calibration,
        "rendered": run.hashes["rendered prompts"],
    }


def _checkpoints(run: Run) -> dict[str, dict[str, str]]:
    """{checkpoint: {file: sha256}} as its record has it; every stage that loads one checks them."""
    records = {ORIGINAL: run.source, **run.quantization}
    return {
        name: {file: digest for file, digest in record["files"].items() if file != CARD}
        for name, record in records.items()
    }


@cache
def packages() -> dict[str, str]:
    """{name: version} of all installed packages."""
    return dict(sorted((found.name.lower(), found.version) for found in distributions()))


def _environments(run: Run) -> dict[str, Any]:
    """What is installed where other tools, engines and annotators ran: AutoAWQ, vLLM, RadGraph."""
    recipes = [run.config["checkpoints"][name] for name in run.quantization]
    names = {str(recipe["tool"]) for recipe in recipes if recipe.get("tool")} - {OWN}
    ran = {(shard["engine"], shard["device"]) for each in run.shards.values() for shard in each}
    if LLAMA_CPP in names:  # as tool and engine it has one environment
        names.remove(LLAMA_CPP)
        ran.add((LLAMA_CPP, "cpu"))
    names |= {place for each in ran if (place := engines.environment(*each)) is not None}
    if annotator_of(run.config).ENVIRONMENT:
        names.add(str(annotator_of(run.config).ENVIRONMENT))
    places = {name: run.folder / "venvs" / name / "ready.json" for name in sorted(names)}
    # Without Snakemake, a tool's environment may lie anywhere.
    return {name: read_json(path) for name, path in places.items() if path.is_file()}


def machine() -> dict[str, Any]:
    """Describe the machine that this process runs on."""
    return {
        "cpu": _cpu_name(),
        "logical_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except FileNotFoundError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _stages(run: Run) -> dict[str, Any]:
    """{stage: {precision or checkpoint: how it ran}}."""
    return {
        "quantize": {name: _ran([record]) for name, record in run.quantization.items()},
        "generate": {name: _ran(records) for name, records in run.shards.items()},
        "likelihood": {name: _ran([record]) for name, record in run.likelihood_costs.items()},
    }


def _ran(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """{key: the values that it has in `records`}; one unless shards ran on several machines."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        for key in RAN:
            if key in record:
                found.setdefault(key, {})[canonical(record[key])] = record[key]
    return {key: [values[text] for text in sorted(values)] for key, values in found.items()}


def _results(run: Run) -> dict[str, str]:
    """{file: sha256} of what the scripts made: outputs, likelihoods, scores."""
    names = [f"scores/{name}.parquet" for name in [*run.precisions, *BASELINES]]
    count = run.config["generation"]["shards"]
    for name in run.precisions:
        names.append(f"likelihood/{name}.parquet")
        names += [
            f"generations/{name}/shard-{number}-of-{count}.parquet"
            for number in range(1, count + 1)
        ]
    return {name: sha256_file(run.folder / name) for name in sorted(names)}
