"""One quantization as it is asked for, and what it has cost; needs no PyTorch."""

import argparse
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radquant.files import read_json
from radquant.meant import model_folder, samples


@dataclass(frozen=True)
class Job:
    """A model to quantize, by this package or another, and the machine's part in it."""

    model: Path  # Hugging Face directory
    output: Path  # checkpoint to write
    calibration: Path | None = None  # samples of scripts/calibration_set.py
    calibration_record: Path | None = None  # where they come from (set.json)
    device: str = "auto"  # or "cpu", "cuda"
    threads: int = 1
    trust_remote_code: bool = False
    features: Path | None = None  # of the samples' images, a folder of scripts/encode_images.py
    started: float = field(default_factory=time.monotonic)

    def origin(self) -> dict[str, Any]:
        """Where the calibration samples come from, if that was given."""
        found: dict[str, Any] = {}
        if self.calibration_record:
            found = read_json(self.calibration_record)
        return found

    def costs(self) -> dict[str, Any]:
        """What the process has used so far."""
        return {
            "wall_seconds": time.monotonic() - self.started,
            "cpu_seconds": time.process_time(),
            "peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def add_arguments(parser: argparse.ArgumentParser, other_package: bool = False) -> None:
    """Add what names the files of a quantization; another package always needs the samples."""
    add = parser.add_argument
    add(
        "--model",
        type=model_folder,
        required=True,
        metavar="DIR",
        help="Hugging Face model directory",
    )
    add(
        "--calibration",
        type=samples,
        required=other_package,
        metavar="PARQUET",
        help="samples of scripts/calibration_set.py"
        + "; awq and gptq need them, rtn does not" * (not other_package),
    )
    add(
        "--calibration-record",
        type=Path,
        metavar="JSON",
        help="where the samples come from, for the record (set.json beside them)",
    )
    if not other_package:
        help_text = "of the samples' images, where they show some: a folder of encode_images.py"
        add("--features", type=Path, metavar="DIR", help=help_text)
    add("--output", type=Path, required=True, metavar="DIR", help="checkpoint to write")


def job_of(args: argparse.Namespace, settings: Any) -> Job:
    """What the options ask for, begun now. settings: as `options.parse` returns them."""
    return Job(
        args.model,
        args.output,
        args.calibration,
        args.calibration_record,
        settings.compute.device,
        settings.compute.threads,
        settings.model.trust_remote_code,
        getattr(args, "features", None),
    )
