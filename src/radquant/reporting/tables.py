"""Sections of the report as pages of their own, which `snakemake --report` shows. They hold numbers
and no text of any report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from radquant.files import write_text
from radquant.reporting.cost_section import cost_section
from radquant.reporting.differences_section import differences_section
from radquant.reporting.html import FOLDS
from radquant.reporting.quality_section import quality_section

SECTIONS = {
    "scores": quality_section,
    "costs": cost_section,
    "differences": differences_section,
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.4 sans-serif; margin: 1em; color: #000; background: #fff }}
table {{ border-collapse: collapse; margin: 1em 0 }}
th, td {{ border-bottom: 1px solid #767676; padding: 0.2em 0.6em }}
</style></head><body>
{body}</body></html>
"""


def write_tables(summary: Mapping[str, Any], directory: Path) -> None:
    """Write {name}.html for each of SECTIONS that this run has."""
    directory.mkdir(parents=True, exist_ok=True)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    for name, section in SECTIONS.items():
        if text := FOLDS.sub("\n", section(summary)):
            body = parser.render(text)
            write_text(directory / f"{name}.html", PAGE.format(title=name, body=body))
