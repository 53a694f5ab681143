"""What the readers of a blinded study said of a finished run: agreement and paired comparisons.

The reading files are those that report.html's reading mode exports (docs/reading.md).
"""

import argparse
from pathlib import Path

from radquant.cli import done, new_parser, run
from radquant.files import read_json, write_json, write_text

EXAMPLE = r"""python scripts/readers.py --results results \
    --readings readings/one.json readings/two.json"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the run")
    parser.add_argument(
        "--config",
        type=Path,
        help="the run's resolved configuration (default: config.json in --results)",
    )
    parser.add_argument(
        "--readings", type=Path, nargs="+", required=True, help="reading files, one a reader"
    )
    parser.add_argument(
        "--output", type=Path, help="record to write (default: readers.json in --results)"
    )
    parser.add_argument(
        "--markdown", type=Path, help="page to write (default: readers.md in --results)"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    from radquant.reporting.readers import readers_record
    from radquant.reporting.readers_comparison import Settings
    from radquant.reporting.readers_section import readers_page
    from radquant.reporting.readers_study import read_study

    results = options.results
    config = read_json(options.config or results / "config.json")
    statistics = config["statistics"]
    settings = Settings(statistics["resamples"], statistics["confidence"], config["seed"])
    record = readers_record(read_study(results, config), options.readings, settings)
    write_json(options.output or results / "readers.json", record)
    page = options.markdown or results / "readers.md"
    write_text(page, readers_page(record))
    done(page, f"{len(options.readings)} readers")


if __name__ == "__main__":
    run(main)
