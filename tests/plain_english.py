"""The sentences of a page, as a reader meets them, and the defaults that it states."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

MARKDOWN = MarkdownIt("commonmark").enable("table")
# A code span is one word, and its own full stops end nothing.
CODE = "\N{WHITE SQUARE}"
# What a full stop belongs to without ending a sentence; a single letter is an initial.
ABBREVIATION = re.compile(
    r"(?:^|[\s(\"“])(?:e\.g|i\.e|cf|vs|et al|etc|approx|ca|Dr|Fig|No|Eq|Sec|St|[A-Z])\.$"
)
# The end of a sentence: a stop, what closes behind it, and a space.
END = re.compile(r"[.!?…]+[\"”’)\]]*(?=\s)")


@dataclass(frozen=True)
class Sentence:
    line: int  # where its paragraph begins, from 1
    text: str  # without marks; each code span as it stands

    @property
    def words(self) -> int:
        """Words as a reader counts them: a code span is one, a dash or an arrow none."""
        text = re.sub(r"`[^`]*`", CODE, self.text)
        return sum(any(c.isalnum() or c == CODE for c in word) for word in text.split())


def sentences(page: str) -> list[Sentence]:
    """The prose of a Markdown page: paragraphs and list items.

    Tables, headings, blocks of code and quotations are not prose of the page.
    """
    return [Sentence(line, each) for line, text in paragraphs(page) for each in split(text)]


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    tokens = MARKDOWN.parse(page)
    quoted = 0
    for opened, inline in pairwise(tokens):
        quoted += (opened.type == "blockquote_open") - (opened.type == "blockquote_close")
        if opened.type == "paragraph_open" and not quoted:
            assert opened.map is not None
            yield opened.map[0] + 1, "".join(map(shown, inline.children or []))


def shown(token: Token) -> str:
    """What a reader sees of a token: of a link its words, of a picture nothing."""
    if token.type == "code_inline":
        return f"`{token.content.replace('`', ' ')}`"
    if token.type == "text":
        return token.content.replace("`", "'")
    return " " if token.type in ("softbreak", "hardbreak") else ""


def split(paragraph: str) -> list[str]:
    """The sentences of a paragraph. A full stop in a number, a name or a code span ends none."""
    spans = re.findall(r"`[^`]*`", paragraph)
    text = re.sub(r"`[^`]*`", CODE, paragraph)
    found, begin = [], 0
    for end in END.finditer(text):
        if not ABBREVIATION.search(text[begin : end.end()]):
            found.append(text[begin : end.end()])
            begin = end.end()
    found.append(text[begin:])
    kept = iter(spans)
    full = [re.sub(CODE, lambda _: next(kept), each).strip() for each in found]
    return [each for each in full if each]


def comments(text: str) -> list[Sentence]:
    """The sentences of the comments that fill lines of a YAML file, but for indented examples."""
    found, block, begin = list[Sentence](), list[str](), 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        words = re.match(r"\s*# ?(?! )(.*)", line)
        if words:
            begin = begin if block else number
            block.append(words[1])
        else:
            found += [Sentence(begin, each) for each in split(" ".join(block))]
            block = []
    return found
