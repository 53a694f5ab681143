"""What the readers of a blinded study said of a finished run: agreement and paired comparisons.

The reading files are those that report.html's reading mode exports (docs/reading.md).
"""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.files import read_json, write_json, write_text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the run (%(default)s)"
    )
    parser.add_argument(
        "--config", type=Path, help="the run's resolved configuration (config.json in --results)"
    )
    parser.add_argument(
        "--readings", type=Path, nargs="+", required=True, help="reading files, one a reader"
    )
    parser.add_argument("--output", type=Path, help="readers.json to write (in --results)")
    parser.add_argument("--markdown", type=Path, help="readers.md to write (in --results)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from radquant.reporting.readers import readers_record
    from radquant.reporting.readers_comparison import Settings
    from radquant.reporting.readers_section import readers_page
    from radquant.reporting.readers_study import read_study

    results = arguments.results
    config = read_json(arguments.config or results / "config.json")
    statistics = config["statistics"]
    settings = Settings(statistics["resamples"], statistics["confidence"], config["seed"])
    record = readers_record(read_study(results, config), arguments.readings, settings)
    write_json(arguments.output or results / "readers.json", record)
    write_text(arguments.markdown or results / "readers.md", readers_page(record))


if __name__ == "__main__":
    run(main)
