"""Quantize the weights of a model and store them packed, in AutoAWQ's GEMM format."""

import argparse
import os
import resource
import time
from pathlib import Path

from radquant.cli import run
from radquant.errors import UserError


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face model directory")
    parser.add_argument("--calibration", type=Path, help="samples.parquet; AWQ needs it, rtn not")
    parser.add_argument(
        "--method", choices=["awq", "rtn"], default="awq", help="rtn is plain rounding to nearest"
    )
    parser.add_argument("--bits", type=int, choices=[4, 8], default=4, help="bits of a weight")
    parser.add_argument(
        "--group-size",
        type=int,
        choices=[32, 64, 128],
        default=128,
        help="input channels that share a scale",
    )
    parser.add_argument(
        "--symmetric", action="store_true", help="a grid about 0 instead of one with zero points"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the model"
    )
    parser.add_argument("--output", type=Path, required=True, help="checkpoint directory to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.method == "awq" and arguments.calibration is None:
        raise UserError("method awq needs --calibration; scripts/calibration_set.py makes one")
    os.environ["HF_HUB_OFFLINE"] = "1"
    started = time.monotonic()

    import torch

    from radquant.compute import onednn_products
    from radquant.models import resolve_device
    from radquant.quantization.checkpoint import write_checkpoint
    from radquant.quantization.engine import load_original, quantize_model, read_calibration
    from radquant.quantization.grid import Recipe

    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    recipe = Recipe(arguments.method, arguments.bits, arguments.group_size, not arguments.symmetric)
    calibration = read_calibration(arguments.calibration) if recipe.method == "awq" else None
    model = load_original(arguments.model, arguments.trust_remote_code)
    with onednn_products():
        result = quantize_model(model, recipe, calibration, device)
    record = {
        "recipe": vars(recipe),
        "model": str(arguments.model),
        "calibration": calibration
        and {"samples": len(calibration), "tokens": sum(map(len, calibration))},
        "layers": result.layers,
        "checks": {
            "layers_quantized": len(result.layers),
            "largest_change_by_folding": result.largest_change,
            "unpacked_equals_evaluated": True,
        },
        "device": str(device),
        "threads": arguments.threads,
        "wall_seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time(),
        "peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    write_checkpoint(arguments.model, arguments.output, model, result.tensors, recipe, record)


if __name__ == "__main__":
    run(main)
