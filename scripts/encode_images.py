"""Encode the images of reports once, by the vision part of a model, for all that read them."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.bounds import between
from radquant.cli import done, new_parser, run
from radquant.image_files import listed_images
from radquant.meant import model_folder
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/encode_images.py --model models/medgemma --reports eval.csv \
    --image-root /data/xrays --output seen/evaluation/shard-1-of-1.parquet \
    --metrics seen/evaluation/shard-1-of-1.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    help_text = "original model or checkpoint, whose own vision part encodes"
    add("--model", type=model_folder, required=True, metavar="DIR", help=help_text)
    help_text = "reports, with a column of their images"
    add("--reports", type=Path, required=True, metavar="CSV", help=help_text)
    shard = between("--shard", int, 1, 1e6)
    add("--shard", type=shard, default=1, metavar="I", help="which shard, from 1")
    help_text = "where features are kept, and found again (default: beside the output's folder)"
    add("--store", type=Path, metavar="DIR", help=help_text)
    help_text = "table to write, DIR/shard-I-of-N.parquet; DIR is then the --features of others"
    add("--output", type=Path, required=True, metavar="PARQUET", help=help_text)
    help_text = "record to write, beside it and of its name"
    add("--metrics", type=Path, required=True, metavar="JSON", help=help_text)
    return parse(parser, stages.ENCODE_IMAGES)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    files = listed_images(args.reports, settings.corpus.image_root)

    from radquant.files import write_json, write_table
    from radquant.vision.features import check_names
    from radquant.vision.stage import Encoding, encode_images

    check_names(args.output, args.metrics, args.shard, settings.images.shards)
    wanted = Encoding(
        model=args.model,
        files=files,
        device=settings.compute.device,
        dtype=settings.compute.dtype,
        threads=settings.compute.threads,
        store=args.store or args.output.parent.parent / "store",
        shard=args.shard,
        shards=settings.images.shards,
        trust_remote_code=settings.model.trust_remote_code,
    )
    table, record = encode_images(wanted, args.output)
    write_json(args.metrics, record)
    write_table(args.output, table)
    done(args.output, f"{record['images']} images, {record['tokens']} tokens")


if __name__ == "__main__":
    run(main)
