"""Check a packed checkpoint numerically, or the packing itself on layers with known contents."""

import argparse
import os
from pathlib import Path

from radquant.bounds import between
from radquant.cli import done, new_parser, run
from radquant.meant import model_folder

EXAMPLE = r"""python scripts/verify_checkpoint.py models/SmolLM2-awq \
    --original models/SmolLM2"""

EPILOG = """exit status: 0 if every check holds, 1 if a bound is broken or the checkpoint cannot be
read. With --output a broken bound stands in the record, and the status is 0. To compare outputs,
both models are in memory at once; with --output one decoder layer of each is."""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE, EPILOG)
    add = parser.add_argument
    add("checkpoint", type=model_folder, nargs="?", metavar="CHECKPOINT", help="directory to check")
    add(
        "--synthetic",
        action="store_true",
        help="check packing in every format, rounding and activation quantization against closed "
        "forms, on small square and non-square layers; needs no checkpoint",
    )
    add(
        "--original",
        type=model_folder,
        metavar="DIR",
        help="the model that the checkpoint was made from",
    )
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
        help="sequences",
    )
    add(
        "--length",
        type=between("--length", int, 1, 1e6),
        default=64,
        metavar="N",
        help="tokens of each",
    )
    add(
        "--seed",
        type=between("--seed", int, 0, 2**53 - 1),
        default=0,
        help="of random tokens",
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
        help="CPU threads",
    )
    args = parser.parse_args()
    if args.synthetic == (args.checkpoint is not None):
        parser.error("give either a CHECKPOINT or --synthetic")
    if args.output and not args.original:
        parser.error("--output needs --original, the model to compare with")
    return args


def main() -> None:
    args = arguments()
    checkpoint = args.checkpoint
    os.environ["HF_HUB_OFFLINE"] = "1"

    import torch

    from radquant.verification.checkpoints import refuse_broken, table_of, told
    from radquant.verification.verifying import check_stored, verify, verify_packing

    torch.set_num_threads(args.threads)
    if args.output:
        code = args.trust_remote_code
        checked = check_stored(args.checkpoint, args.original, args.output, code)
        done(args.output, told(checked.checks))
        return
    if args.synthetic:
        found = verify_packing()
    else:
        found = verify(
            args.checkpoint,
            args.original,
            args.samples,
            {
                "weight": args.max_weight_error,
                "layer": args.max_layer_error,
                "divergence": args.max_divergence,
            },
            args.dtype,
            (args.count, args.length, args.seed),
        )
    print(*found.notes, table_of(found.checks), sep="\n")
    refuse_broken(found.checks)
    done(checkpoint or "synthetic layers", told(found.checks))


if __name__ == "__main__":
    run(main)
