"""Write an importance matrix for llama.cpp's own quantizer (`llama-quantize --imatrix`)."""

import argparse
from pathlib import Path

from radquant.cli import done, new_parser, run, size_of
from radquant.meant import model_folder, samples

EXAMPLE = r"""python scripts/importance_matrix.py --model models/SmolLM2 \
    --calibration samples.parquet --output SmolLM2.imatrix.gguf"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
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
        required=True,
        metavar="PARQUET",
        help="samples of scripts/calibration_set.py",
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="to write, .gguf; .dat for releases of llama.cpp before July 2025 and its forks",
    )
    help_text = "of the samples' images, where they show some: a folder of encode_images.py"
    add("--features", type=Path, metavar="DIR", help=help_text)
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what to compute on")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")
    return parser.parse_args()


def main() -> None:
    args = arguments()

    from radquant.quantization.importance import make_importance

    where = (args.device, args.trust_remote_code, args.features)
    make_importance(args.model, args.calibration, args.output, *where)
    done(args.output, size_of(args.output))


if __name__ == "__main__":
    run(main)
