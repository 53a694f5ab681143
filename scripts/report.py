"""Write report.md, report.html, reporting.md, summary.json, provenance.json and the figures of a
finished run."""

import argparse
import os
import sys
from pathlib import Path

from radquant.cli import run
from radquant.files import atomic_path, read_json, write_json, write_text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of the finished run")
    parser.add_argument(
        "--config", type=Path, required=True, help="the run's resolved configuration (config.json)"
    )
    parser.add_argument("--output", type=Path, required=True, help="report.md to write")
    parser.add_argument(
        "--html", type=Path, required=True, help="report.html to write, with the explorer"
    )
    parser.add_argument("--summary", type=Path, required=True, help="summary.json to write")
    parser.add_argument("--provenance", type=Path, required=True, help="provenance.json to write")
    parser.add_argument(
        "--reporting", type=Path, required=True, help="reporting.md to write, the checklists' items"
    )
    parser.add_argument(
        "--readers", type=Path, help="readers.json of this run, for what readers said of it"
    )
    parser.add_argument("--figures", type=Path, required=True, help="folder for the figures (SVG)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    # Not before the options are parsed: matplotlib and scipy take seconds that --help can spare.
    from radquant.reporting.changes_section import example_texts
    from radquant.reporting.checklist import reporting_page
    from radquant.reporting.collect import collect
    from radquant.reporting.columns import meanings
    from radquant.reporting.explorer import payload_pieces
    from radquant.reporting.figures import write_figures
    from radquant.reporting.html import pieces, read_figures
    from radquant.reporting.inputs import BURNED_IN, images, pictured
    from radquant.reporting.markdown import render
    from radquant.reporting.readers_study import read_record
    from radquant.reporting.recheck import recheck
    from radquant.reporting.summary import summarize
    from radquant.reporting.verdict_section import closing

    results = collect(arguments.results, read_json(arguments.config))
    recheck(arguments.results, results)
    summary = summarize(results)
    summary["readers"] = read_record(arguments.readers, results)
    figures_path = Path(os.path.relpath(arguments.figures, arguments.output.parent)).as_posix()
    report = render(summary, example_texts(results, summary), figures_path)
    write_figures(summary, arguments.figures)
    write_json(arguments.summary, summary)
    write_json(arguments.provenance, summary["provenance"])
    write_text(arguments.reporting, reporting_page(summary))
    write_text(arguments.output, report)
    figures = read_figures(arguments.figures, figures_path)
    payload = payload_pieces(results)
    pictures = images(results) if pictured(results.config) else ()
    if pictured(results.config):
        print(f"{arguments.html}: {BURNED_IN}", file=sys.stderr)
    heads = meanings(summary)
    page = pieces(report, figures, len(results.reports), payload, pictures, heads)
    with atomic_path(arguments.html) as part, open(part, "w", encoding="utf-8") as file:
        file.writelines(page)
    print(closing(summary, arguments.output, arguments.html))


if __name__ == "__main__":
    run(main)
