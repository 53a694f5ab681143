"""Write the resolved configuration of a run, every default filled in, for its report."""

import argparse
import json

from radquant.cli import done, new_parser, run
from radquant.files import write_text

EXAMPLE = """python scripts/write_config.py --config '{"seed": 1}' --output config.json"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--config", required=True, type=json.loads, help="the configuration as JSON"
    )
    parser.add_argument("--output", required=True, help="file to write (.json)")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # The keys' order stays: it is the order of the precisions in the report.
    write_text(options.output, json.dumps(options.config, indent=2, ensure_ascii=False) + "\n")
    done(options.output, f"{len(options.config.get('precisions', {}))} precisions")


if __name__ == "__main__":
    run(main)
