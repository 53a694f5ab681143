"""llama.cpp's own quantizer: the original as plain GGUF, and what llama.cpp makes of it.

The quantizer runs in the environment of envs/llama-cpp.txt (`llama_cpp_quantizing.py`). The file
goes in with every weight exact, in float32, and what comes out is taken as a given GGUF file is.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import radquant
from radquant import llama_cpp
from radquant.checkpoints.given_gguf import take_file
from radquant.checkpoints.writing import RECORD
from radquant.errors import UserError
from radquant.failures import how_it_ended
from radquant.files import atomic_directory, hash_directory, write_json
from radquant.gguf.writing import original_config, write_float
from radquant.model_checks import check_model
from radquant.quantization import llama_cpp_quantizing
from radquant.quantization.importance import importance_of
from radquant.quantization.job import Job
from radquant.quantization.other_packages import calibration_record, read_sequences
from radquant.settings.llama_cpp import GGUF_FILE, ByLlamaCpp


def quantize(job: Job, asked: ByLlamaCpp, python: Path) -> None:
    """Let llama.cpp quantize the model of `job`, and write the checkpoint.

    python: of the environment that has llama.cpp. Raises UserError if llama.cpp cannot do it.
    """
    if not python.is_file():
        raise UserError(
            f"--tool-python {python} does not exist; scripts/build_env.py makes an environment "
            "from envs/llama-cpp.txt"
        )
    if asked.importance and job.calibration is None:
        raise UserError("importance needs --calibration, the samples of scripts/calibration_set.py")
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(job.threads)
    check_model(job.model)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.output.parent, prefix=".llama-cpp-") as place:
        folder = Path(place)
        plain, made = folder / "plain.gguf", folder / GGUF_FILE
        write_float(job.model, plain, "f32", job.trust_remote_code)
        calibration = None
        importance = folder / "importance.npz" if asked.importance else None
        if importance is not None:
            calibration = write_importance(job, importance)
        run_quantizer(
            folder,
            python,
            {
                "input": str(plain),
                "output": str(made),
                "file_type": asked.file_type,
                "threads": job.threads,
                "importance": importance and str(importance),
            },
        )
        with atomic_directory(job.output) as part:
            record = take_file(made, job.model, part, GGUF_FILE, job.trust_remote_code)
            record["says"] |= {"importance": asked.importance}
            record |= {
                "tool": {"name": "llama.cpp", "version": llama_cpp.BUILD},
                "type": asked.type,
                "importance": asked.importance,
                "model": str(job.model),
                "threads": job.threads,
                **({} if calibration is None else {"calibration": calibration}),
            }
            files = hash_directory(part, exclude=[RECORD])
            write_json(part / RECORD, {**record, **job.costs(), "files": files})


def run_quantizer(folder: Path, python: Path, job: dict[str, Any]) -> None:
    """Run the quantizer in its environment; what it says of an error is shown."""
    asked = folder / "job.json"
    asked.write_text(json.dumps(job), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(radquant.__file__).parents[1]),
        "PYTHONSAFEPATH": "1",  # no module of the working directory is meant
    }
    command = [str(python), "-m", llama_cpp_quantizing.__name__, str(asked)]
    if code := subprocess.run(command, env=environment, check=False).returncode:
        raise UserError(f"llama.cpp {how_it_ended(code)}")


def write_importance(job: Job, path: Path) -> dict[str, Any]:
    """Write the importance matrix of the calibration texts; the record of these.

    {GGUF's name: the mean square of every input channel, [in] float32}. It is what llama.cpp's own
    `llama-imatrix` gathers (tools/imatrix/imatrix.cpp), over whole samples; like that it leaves the
    head out. One decoder layer is in memory at a time.
    """
    config = original_config(job.model, job.trust_remote_code)
    sequences = read_sequences(job.calibration, config, "llama.cpp")
    assert job.calibration is not None
    found = importance_of(job.model, job.calibration, job.device, job.trust_remote_code)
    means: dict[str, Any] = {name: each / found.tokens for name, each in found.sums.items()}
    with path.open("wb") as file:
        np.savez(file, **means)
    return calibration_record(job, sequences)
