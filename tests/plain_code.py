"""The sentences of source code: of its comments, its docstrings and its messages."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from plain_english import CODE, Sentence, sentences, split

# Comments, and strings, in which a # begins none. `tokenize` takes ten times as long.
COMMENT_OR_STRING = re.compile(
    r"(?P<quote>\"\"\"|'''|\"|')(?:\\.|(?!(?P=quote))[^\\])*(?P=quote)|#(?P<comment>[^\n]*)",
    re.DOTALL,
)
FOR_TOOLS = re.compile(r"!| ?(noqa|type:|fmt:|mypy:)")  # and not for a reader
FILLED = "000"  # what an f-string fills in
# A command to run counts as one word.
COMMAND = re.compile(r"python scripts/\w+\.py(?: --[\w-]+ [^\s;,]+)*")
# What tells prose from a list of words.
MARK = re.compile(r"[.,;:!?](?:\s|$)")


def long_sentences(path: Path, most: int, messages: bool) -> list[Sentence]:
    """The sentences of more than `most` words in a file of Python or Snakemake code.

    messages: whether strings are read, too. Of Snakemake code only comments are read.
    """
    code = path.read_text(encoding="utf-8")
    found = list[Sentence]()
    for line, text in comment_paragraphs(code):
        if may_be_long(text, most):
            found += sentences_at(line, text)
    docs = any(may_be_long(each, most) for each in code.split('"""')[1::2])
    if path.suffix == ".py" and (docs or messages):
        tree = ast.parse(code)
        for line, text in docstrings([tree]):
            if may_be_long(text, most):
                found += [Sentence(line + each.line - 1, each.text) for each in sentences(text)]
        for line, text in strings(tree) if messages else ():
            if may_be_long(text, most) and is_prose(text):
                found += message_sentences(line, text)
    return [each for each in found if each.words > most]


def may_be_long(text: str, most: int) -> bool:
    """Whether one of the sentences can be long. What cannot need not be taken apart."""
    return text.count(" ") + text.count("\n") >= most and any(
        len(each.split()) > most for each in split(text.replace("`", ""))
    )


def comment_paragraphs(code: str) -> Iterator[tuple[int, str]]:
    """The comments that fill lines, each with its first line; those in a row are one.

    An indented line is an example, and ends a comment.
    """
    block, begin, last, line, read = list[str](), 0, (0, 0), 1, 0
    for found in COMMENT_OR_STRING.finditer(code):
        line += code.count("\n", read, found.start())
        read = found.start()
        column = read - code.rfind("\n", 0, read)
        text = re.sub(r"^:? ?", "", found["comment"] or "")
        if found["quote"] or code[read - column + 1 : read].strip() or FOR_TOOLS.match(text):
            continue
        example = text.startswith(" ") or not text
        if last != (line - 1, column) or example:
            yield begin, " ".join(block)
            block, begin = [], line
        if not example:
            block.append(text)
        last = (line, column)
    yield begin, " ".join(block)


def docstrings(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """The docstrings of nodes and of what is defined in them, with their first lines."""
    for node in nodes:
        defined = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, defined) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text
        for block in ("body", "orelse", "handlers", "finalbody"):
            inside = getattr(node, block, ())
            if isinstance(inside, list):
                yield from docstrings(inside)


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The strings over several lines below a node, whole, but for docstrings and lists.

    A line has no room for a sentence that is too long, so what fits into one is passed over.
    """
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [
                each.value if isinstance(each, ast.Constant) else FILLED for each in node.values
            ]
            yield node.lineno, "".join(map(str, parts))
        nodes += [each for each in ast.iter_child_nodes(node) if not is_left_out(each, node)]


def is_left_out(node: ast.AST, parent: ast.AST) -> bool:
    """Whether no string in it counts: one line, a docstring, a part of an f-string, a list."""
    if isinstance(node, ast.Constant):
        return isinstance(parent, ast.Expr | ast.JoinedStr)
    if isinstance(node, ast.Attribute) and node.attr == "split":
        return True
    return hasattr(node, "lineno") and node.lineno == node.end_lineno


def is_prose(text: str) -> bool:
    """Whether a string is for a reader: no list of words, no template, no HTML."""
    return bool(MARK.search(text)) and "\n  " not in text and not text.startswith("<!")


def message_sentences(line: int, text: str) -> list[Sentence]:
    """The sentences of a message. An empty line ends one."""
    parts = re.split(r"\n\s*\n", COMMAND.sub(FILLED, text))
    return [each for part in parts for each in sentences_at(line, part)]


def sentences_at(line: int, text: str) -> list[Sentence]:
    return [Sentence(line, each) for each in split(text.replace(CODE, FILLED))]
