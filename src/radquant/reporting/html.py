"""report.html: report.md as a page, with its figures and the explorer, all in one file.

Nothing in it is loaded from anywhere, and no text in it can become markup. Markdown's raw HTML is
shown as text, but for the two lines that fold a part away. A Content-Security-Policy lets only this
file's own style and script run, which build the explorer from text nodes.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from radquant.reporting.dressing import (
    Abouts,
    dress_facts,
    dress_figures,
    dress_tables,
    dress_texts,
)
from radquant.reporting.formatting import MORE, as_shown
from radquant.reporting.verdict_section import VERDICT

ASSETS = Path(__file__).with_name("assets")
STYLES = ("report.css", "explorer.css")
# In this order: each uses what those before it define. They are one script, with one hash.
SCRIPTS = (
    *("page.js", "search.js", "differences.js", "cards.js", "findings.js", "selection.js"),
    *("filters.js", "export.js", "explorer.js"),
    *("ratings.js", "copy.js", "reading.js", "tables.js", "views.js"),
)
# The only raw HTML that report.md has.
FOLDS = re.compile(
    r"(?:<details(?: open)?><summary>(?:[^<>&]|&(?:lt|gt|amp);)*</summary>|</details>)\n?"
)
AFTER_HEADING = 3  # a heading is three tokens: its start, what it says, its end


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading of the second level."""

    name: str
    title: str
    body: str


def pieces(
    markdown: str,
    figures: Mapping[str, str],
    count: int,
    payload: Iterable[str],
    images: Iterable[tuple[int, str]] = (),
    meanings: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield report.html of `count` reports.

    `figures` holds the SVG behind each path to which `markdown` refers. `payload` is the explorer's
    (see explorer.py), as pieces of its JSON. `images` are the numbers and data URIs of its images,
    which stand apart so that the page reads each when it is shown. `meanings` say what the heads of
    columns mean (see columns.py).
    """
    abouts = Abouts(meanings)
    title, head, sections = _sections(markdown, figures, abouts)
    style, script = "".join(map(_asset, STYLES)), "".join(map(_asset, SCRIPTS))
    before, rest = _asset("page.html").split("$payload")
    between, after = rest.split("$images")
    fields = dict(
        policy=html.escape(_policy(style, script)),
        name=re.sub("<.*?>", "", title),
        title=title,
        style=style,
        script=script,
        head=head,
        contents="\n".join(f'<li><a href="#{s.name}">{s.title}</a></li>' for s in sections),
        sections="\n".join(map(_section, sections)),
        abouts="".join(
            f'<p id="{name}">{html.escape(text)}</p>\n' for text, name in abouts.names.items()
        ),
        count=f"{count:,}",
    )
    yield Template(before).substitute(fields)
    yield from map(escape_json, payload)
    yield between
    for number, uri in images:
        yield f'<script type="text/plain" id="image-{number}">{html.escape(uri)}</script>\n'
    yield Template(after).substitute(fields)


def read_figures(directory: Path, path: str) -> dict[str, str]:
    """Return {path as report.md has it: SVG} of the figures in `directory`."""
    files = sorted(directory.glob("*.svg"))
    return {f"{path}/{file.name}": file.read_text(encoding="utf-8") for file in files}


def escape_json(text: str) -> str:
    """Write what could end a script element by its number; in JSON it stands in strings alone."""
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(section: Section) -> str:
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-title">\n'
        f'<h2 id="{section.name}-title">{section.title}</h2>\n{section.body}</section>'
    )


def _sections(
    markdown: str, figures: Mapping[str, str], abouts: Abouts
) -> tuple[str, str, list[Section]]:
    """Return the title, what stands before the first section, and the sections."""
    parser = _parser(figures)
    tokens = parser.parse(markdown)
    dress_figures(tokens, figures)
    dress_texts(tokens)
    heads = [i for i, token in enumerate(tokens) if token.type == "heading_open"]
    if not heads or tokens[heads[0]].tag != "h1":
        raise ValueError("a report begins with its title")
    starts = [i for i in heads if tokens[i].tag == "h2"]
    title = _inline(parser, tokens[heads[0] + 1])
    head = _render(parser, tokens[heads[0] + AFTER_HEADING : starts[0]], None, abouts)
    names = set(re.findall(r'id="([\w-]+)"', _asset("page.html")))
    sections = []
    for start, end in pairwise([*starts, len(tokens)]):
        heading = tokens[start + 1]
        name = _name(heading.content, names)
        names |= {name, f"{name}-title"}
        body = _render(parser, tokens[start + AFTER_HEADING : end], heading, abouts)
        sections.append(Section(name, _inline(parser, heading), body))
    return title, head, sections


def _name(heading: str, taken: set[str]) -> str:
    """Return an id for `heading` that nothing else on the page has."""
    stem = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"
    name, number = stem, 1
    while {name, f"{name}-title"} & taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def _parser(figures: Mapping[str, str]) -> MarkdownIt:
    def image(
        self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any
    ) -> str:
        alt = html.escape(tokens[at].content)
        svg = figures.get(str(tokens[at].attrs["src"]))
        if svg is None:
            return alt
        data = base64.b64encode(svg.encode()).decode()
        shown = f'<img src="data:image/svg+xml;base64,{data}" alt="{alt}">'
        if not tokens[at].meta.get("figure"):
            return shown
        # A figure scrolls where the screen is too small to read it.
        return f'<div class="figure" role="region" tabindex="0" aria-label="{alt}">{shown}</div>'

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.add_render_rule("image", image)
    parser.add_render_rule("html_block", _raw_block)
    parser.add_render_rule("html_inline", _raw_inline)
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    return parser


def _raw_block(
    self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any
) -> str:
    """Let the known lines through and show all other raw HTML as the text that it is."""
    text = tokens[at].content
    if not FOLDS.fullmatch(text):
        return html.escape(text)
    # The class lets print unfold them, as paper has no clicks.
    return text.replace(f"<details><summary>{MORE}", f'<details class="columns"><summary>{MORE}')


def _raw_inline(
    self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any
) -> str:
    return html.escape(tokens[at].content)


def _table_open(
    self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any
) -> str:
    """Begin a table in a box of its own, which scrolls where the table is wider than the page."""
    label = tokens[at].meta["label"]
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>\n'


def _table_close(
    self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: Any
) -> str:
    return "</table></div>\n"


def _inline(parser: MarkdownIt, token: Token) -> str:
    return str(parser.renderer.render([token], parser.options, {}))


def _render(parser: MarkdownIt, tokens: list[Token], heading: Token | None, abouts: Abouts) -> str:
    """Return a section, or what stands before the first, as HTML."""
    title = heading.content if heading else ""
    if title == VERDICT:
        dress_facts(tokens)
    dress_tables(tokens, as_shown(title), abouts)
    return str(parser.renderer.render(tokens, parser.options, {}))
