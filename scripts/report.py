"""Write report.md, report.html, reporting.md, summary.json, provenance.json, figures and the main
tables of a finished run."""

import argparse
import os
import sys
from pathlib import Path

from radquant.cli import new_parser, run
from radquant.files import atomic_path, read_json, write_json, write_text

EXAMPLE = r"""python scripts/report.py --results results --config results/config.json \
    --output results/report.md --html results/report.html \
    --summary results/summary.json --provenance results/provenance.json \
    --reporting results/reporting.md --figures results/figures --tables results/tables"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
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
    parser.add_argument(
        "--tables", type=Path, required=True, help="folder for the main tables, a page each"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    # These are imported after the options are parsed. matplotlib and scipy take seconds that --help
    # can spare.
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
    from radquant.reporting.ruined import ruined
    from radquant.reporting.summary import summarize
    from radquant.reporting.tables import write_tables
    from radquant.reporting.verdict_section import closing

    results = collect(args.results, read_json(args.config))
    recheck(args.results, results)
    summary = summarize(results)
    summary["readers"] = read_record(args.readers, results)
    figures_path = Path(os.path.relpath(args.figures, args.output.parent)).as_posix()
    report = render(summary, example_texts(results, summary), figures_path)
    write_figures(summary, args.figures)
    write_tables(summary, args.tables)
    figures = read_figures(args.figures, figures_path)
    payload = payload_pieces(results, ruined(summary["quality"]))
    pictures = images(results) if pictured(results.config) else ()
    if pictured(results.config):
        print(f"{args.html}: {BURNED_IN}", file=sys.stderr)
    heads = meanings(summary)
    page = pieces(report, figures, len(results.reports), payload, pictures, heads)
    # The page takes longest to make and fails most easily. So nothing else is written before it.
    with atomic_path(args.html) as part:
        with open(part, "w", encoding="utf-8") as file:
            file.writelines(page)
        write_json(args.summary, summary)
        write_json(args.provenance, summary["provenance"])
        write_text(args.reporting, reporting_page(summary))
        write_text(args.output, report)
    print(closing(summary, args.output, args.html))


if __name__ == "__main__":
    run(main)
