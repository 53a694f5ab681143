"""What the report's Markdown becomes on the page: facts, tables and figures with what they need.

Each function changes tokens of markdown-it before they are rendered.
"""

import re
from collections.abc import Container, Mapping, Sequence
from html import escape

from markdown_it.token import Token

from radquant.reporting.facts import MARKS
from radquant.reporting.formatting import LABELLED, as_shown
from radquant.reporting.judgement import BETTER, NO_WORSE, NOT_SETTLED, UNFIT, WORSE

# The class of a cell that holds one of the five words.
WORD_CLASSES = {WORSE: "bad", NO_WORSE: "good", BETTER: "good", NOT_SETTLED: "open", UNFIT: "unfit"}


class Abouts:
    """What heads of columns mean, each text once and by the id that it has on the page."""

    def __init__(self, meanings: Mapping[str, Mapping[str, str]]) -> None:
        self.meanings = meanings
        self.names: dict[str, str] = {}

    def name(self, section: str, head: str) -> str | None:
        """Return the id of what `head` means in `section`; None if it is not known."""
        for start, heads in self.meanings.items():
            if start and section.startswith(start) and head in heads:
                return self._named(heads[head])
        text = self.meanings.get("", {}).get(head)
        return None if text is None else self._named(text)

    def _named(self, text: str) -> str:
        return self.names.setdefault(text, f"about-{len(self.names) + 1}")


def dress_tables(tokens: Sequence[Token], section: str, abouts: Abouts) -> None:
    """Name each table, give numbers and words a class, and rows and columns their headers."""
    tables, headed, body, cell = 0, False, False, ""
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            tables += 1
            token.meta["label"] = escape(f"{section}, table {tables}")
        elif token.type == "tr_open":
            headed = False
        elif token.type in ("tbody_open", "tbody_close"):
            body = token.type == "tbody_open"
        elif token.type in ("th_open", "td_open"):
            text = tokens[place + 1].content.strip()
            # The alignment comes as a style attribute, which the policy forbids.
            if "right" in str(token.attrs.pop("style", "")):
                token.attrs["class"] = "number"
            if not body:
                token.attrs["scope"] = "col"
                if name := abouts.name(section, as_shown(text)):
                    token.attrs["data-about"] = name
            elif not headed and text:  # a group's name stands in its first row
                token.tag, token.attrs["scope"], headed = "th", "row", True
            elif text in WORD_CLASSES:
                token.attrs["class"] = f"word {WORD_CLASSES[text]}"
            cell = token.tag
        elif token.type == "td_close":
            token.tag = cell


def dress_texts(tokens: list[Token]) -> None:
    """Make a list of each block of labelled texts, so that lines break where the page ends."""
    for at in reversed(range(len(tokens))):
        if tokens[at].type == "fence" and tokens[at].info == LABELLED:
            texts = re.findall(r"^(\S+) +(.*(?:\n .*)*)$", tokens[at].content, re.M)
            inside = [
                token
                for label, text in texts
                for token in (*_block("dt", label), *_block("dd", " ".join(text.split())))
            ]
            start = Token("dl_open", "dl", 1, attrs={"class": "labelled"}, block=True)
            tokens[at : at + 1] = [start, *inside, Token("dl_close", "dl", -1, block=True)]


def _block(tag: str, content: str) -> list[Token]:
    inline = Token("inline", "", 0, content=content, children=[_text(content)])
    start = Token(f"{tag}_open", tag, 1, block=True)
    return [start, inline, Token(f"{tag}_close", tag, -1, block=True)]


def dress_figures(tokens: list[Token], known: Container[str]) -> None:
    """Make a figure of each image that is a paragraph of its own, with its caption if one follows.

    A caption is a paragraph that is emphasised as a whole. known: the paths that have a figure.
    """
    for at in reversed(range(len(tokens) - 2)):
        image = tokens[at + 1].children or []
        if tokens[at].type != "paragraph_open" or [x.type for x in image] != ["image"]:
            continue
        if image[0].attrs["src"] not in known:
            continue
        image[0].meta["figure"] = True
        tokens[at].tag = tokens[at + 2].tag = "figure"
        caption = tokens[at + 3 : at + 6]
        if _is_emphasised(caption):
            caption[1].children = (caption[1].children or [])[1:-1]
            caption[0].tag = caption[2].tag = "figcaption"
            tokens.insert(at + 5, tokens.pop(at + 2))  # the figure's end


def _is_emphasised(tokens: Sequence[Token]) -> bool:
    if [token.type for token in tokens] != ["paragraph_open", "inline", "paragraph_close"]:
        return False
    kinds = [child.type for child in tokens[1].children or []]
    return kinds[:1] == ["em_open"] and kinds.index("em_close") == len(kinds) - 1


def dress_facts(tokens: Sequence[Token]) -> None:
    """Mark the verdict's list of facts: its mark, question, word, and what is said of it."""
    for place, token in enumerate(tokens):
        if token.type != "inline" or tokens[place - 2].type != "list_item_open":
            continue
        mark = MARKS.get(token.content[0]) if token.content[1:2] == " " else None
        children = token.children or []
        kinds = [child.type for child in children]
        if mark is None or "strong_close" not in kinds:
            continue
        start, end = kinds.index("strong_open"), kinds.index("strong_close") + 1
        tokens[place - 2].attrs["class"] = f"fact {mark}"
        children[0].content = children[0].content[2:]
        sign = {"class": "mark", "aria-hidden": "true"}
        token.children = [
            *_span([_text(token.content[0])], sign),
            *_span(children[:start], {"class": "question"}),
            *children[start:end],
            *_span(children[end:], {"class": "says"}),
        ]


def _span(children: Sequence[Token], attributes: Mapping[str, str]) -> list[Token]:
    start = Token("span_open", "span", 1, attrs=dict(attributes))
    return [start, *children, Token("span_close", "span", -1)]


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)
