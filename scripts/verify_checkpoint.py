"""Check a packed checkpoint numerically, or the packing itself on layers with known contents."""

import argparse
import os
from pathlib import Path

from radquant.bounds import between
from radquant.cli import run
from radquant.errors import UserError

EPILOG = """exit status: 0 if every check holds, 1 if a bound is broken or the checkpoint cannot be
read; with --output a broken bound stands in the record, and the status is 0. To compare outputs,
both models are in memory at once; with --output one decoder layer of each is."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    add("checkpoint", type=Path, nargs="?", metavar="CHECKPOINT", help="directory to check")
    add(
        "--synthetic",
        action="store_true",
        help="check packing in every format, rounding and activation quantization against closed "
        "forms, on small square and non-square layers; needs no checkpoint",
    )
    add("--original", type=Path, metavar="DIR", help="the model that the checkpoint was made from")
    add(
        "--output",
        type=Path,
        metavar="JSON",
        help="compare weights alone, and write what was found here",
    )
    add("--trust-remote-code", action="store_true", help="let the models' own program code run")
    add(
        "--samples",
        type=Path,
        metavar="PARQUET",
        help="table whose column input_ids holds the sequences to compare outputs on, as written "
        "by scripts/calibration_set.py; random tokens without it",
    )
    add(
        "--count",
        type=between("--count", int, 1, 1e6),
        default=4,
        metavar="N",
        help="sequences (%(default)s)",
    )
    add(
        "--length",
        type=between("--length", int, 1, 1e6),
        default=64,
        metavar="N",
        help="tokens of each (%(default)s)",
    )
    add(
        "--seed",
        type=between("--seed", int, 0, 2**53 - 1),
        default=0,
        help="of random tokens (%(default)s)",
    )
    add(
        "--max-weight-error",
        type=between("--max-weight-error", float, 0, 1e9),
        metavar="X",
        help="of any linear layer, relative",
    )
    add(
        "--max-layer-error",
        type=between("--max-layer-error", float, 0, 1e9),
        metavar="X",
        help="of any decoder layer's output",
    )
    add(
        "--max-divergence",
        type=between("--max-divergence", float, 0, 1e9),
        metavar="X",
        help="of the next token, in nats",
    )
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="to compute in")
    add(
        "--threads",
        type=between("--threads", int, 1, 4096),
        default=1,
        metavar="N",
        help="CPU threads (%(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.synthetic == (arguments.checkpoint is not None):
        parser.error("give either a CHECKPOINT or --synthetic")
    if arguments.output and not arguments.original:
        parser.error("--output needs --original, the model to compare with")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    checkpoint = arguments.checkpoint
    if checkpoint is not None and checkpoint.suffix == ".gguf" and checkpoint.is_file():
        raise UserError(
            f"{checkpoint} is a GGUF file; make a directory of it with scripts/take_checkpoint.py "
            f"--original DIR --path {checkpoint} --output DIR, and check that"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"

    import torch

    from radquant.verification.checkpoints import refuse_broken, table_of
    from radquant.verification.verifying import check_stored, verify, verify_packing

    torch.set_num_threads(arguments.threads)
    if arguments.output:
        code = arguments.trust_remote_code
        check_stored(arguments.checkpoint, arguments.original, arguments.output, code)
        return
    if arguments.synthetic:
        found = verify_packing()
    else:
        found = verify(
            arguments.checkpoint,
            arguments.original,
            arguments.samples,
            {
                "weight": arguments.max_weight_error,
                "layer": arguments.max_layer_error,
                "divergence": arguments.max_divergence,
            },
            arguments.dtype,
            (arguments.count, arguments.length, arguments.seed),
        )
    print(*found.notes, table_of(found.checks), sep="\n")
    refuse_broken(found.checks)


if __name__ == "__main__":
    run(main)
