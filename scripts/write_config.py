"""Write the resolved configuration of a run, every default filled in, for its report."""

import argparse
import json

from radquant.cli import run
from radquant.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", required=True, type=json.loads, help="the configuration as JSON"
    )
    parser.add_argument("--output", required=True, help="file to write (.json)")
    options = parser.parse_args()
    # The keys' order stays: it is the order of the precisions in the report.
    write_text(options.output, json.dumps(options.config, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run(main)
