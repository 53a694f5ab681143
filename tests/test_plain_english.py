"""Pages are read once: short sentences, and no default that the program does not have."""

import ast
from pathlib import Path

import pytest
from plain_code import comment_paragraphs, docstrings, is_prose, long_sentences, message_sentences
from plain_code import strings as strings_of
from plain_english import Sentence, comments, sentences, split
from stated_defaults import Defaults, problems

from radquant.settings.documents import sections

REPOSITORY = Path(__file__).parents[1]
MOST_WORDS = 25
PAGES = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "profiles/README.md")),
        *(REPOSITORY / "docs").glob("*.md"),
    ]
)
CONFIGURATIONS = sorted(
    [
        REPOSITORY / "config.yaml",
        *(REPOSITORY / "config").glob("*.yaml"),
        *(REPOSITORY / "profiles").glob("*/*.yaml"),
    ]
)
CODE = ["Snakefile", "rules/*.smk"] + [
    f"{folder}/**/*.py" for folder in ("src", "scripts", "examples", "benchmarks", "tests")
]


@pytest.fixture(scope="module")
def defaults() -> Defaults:
    return Defaults(REPOSITORY)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_no_sentence_is_too_long(path: Path) -> None:
    long = [
        f"line {each.line}, {each.words} words: {each.text}"
        for each in sentences(path.read_text(encoding="utf-8"))
        if each.words > MOST_WORDS
    ]
    assert not long, "\n".join([f"split these sentences of {path.name}:", *long])


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_no_comment_of_a_configuration_is_too_long(path: Path) -> None:
    long = [
        f"line {each.line}, {each.words} words: {each.text}"
        for each in comments(path.read_text(encoding="utf-8"))
        if each.words > MOST_WORDS
    ]
    assert not long, "\n".join([f"split these sentences of {path.name}:", *long])


@pytest.mark.parametrize("name", sorted(sections()))
def test_no_sentence_on_a_key_is_too_long(name: str) -> None:
    """They are the tables of keys in the pages, and the help of the options."""
    for key, field in sections()[name].model_fields.items():
        long = [each for each in sentences(field.description or "") if each.words > MOST_WORDS]
        assert not long, f"split in the description of {name}.{key}: {long}"


@pytest.mark.parametrize("pattern", CODE)
def test_no_sentence_of_the_code_is_too_long(pattern: str) -> None:
    """In comments and docstrings, and in messages; the strings of tests are seldom messages."""
    found = [
        f"{path.relative_to(REPOSITORY)}, line {each.line}, {each.words} words: {each.text}"
        for path in sorted(REPOSITORY.glob(pattern))
        for each in long_sentences(path, MOST_WORDS, messages=not pattern.startswith("tests"))
    ]
    assert not found, "\n".join(["split these sentences:", *found])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_stated_defaults_are_those_of_the_program(path: Path, defaults: Defaults) -> None:
    assert list(problems(path.read_text(encoding="utf-8"), defaults)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (
            "At 0.5 it is 1.25 %. Then vLLM 0.32.0 ends.",
            ["At 0.5 it is 1.25 %.", "Then vLLM 0.32.0 ends."],
        ),
        (
            "Lin et al. 2024 say so, e.g. there. It holds.",
            ["Lin et al. 2024 say so, e.g. there.", "It holds."],
        ),
        ("It reads `a.b. C`. `x` follows.", ["It reads `a.b. C`.", "`x` follows."]),
        (
            "It ends (so it does.) llama.cpp goes on.",
            ["It ends (so it does.)", "llama.cpp goes on."],
        ),
        ('He said "no." She left…  All left.', ['He said "no."', "She left…", "All left."]),
        ("J. Smith wrote it. No end", ["J. Smith wrote it.", "No end"]),
        ("snakemake -n prints it: one, two; three", ["snakemake -n prints it: one, two; three"]),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert split(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Five words are in here.", 5),
        ("`python scripts/plan.py --gpu-gb 24` is one word.", 4),
        ("A range – from 1 to 2 — has W4A8/W4A4 → once.", 9),
        ("±0.5 and 10⁻⁶ are numbers.", 5),
    ],
)
def test_how_words_are_counted(text: str, words: int) -> None:
    assert Sentence(1, text).words == words


def test_prose_is_told_from_the_rest() -> None:
    page = """# A heading is none

A paragraph with *marks*, a [link](to/a/page.md)
over two lines. `code: 1.5` begins a sentence.

- an item
  of a list
  1. an item inside it

> quoted text of a report

| a table | of cells. |
|---|---|
| no | prose |

```
code in a block. And more.
```
<!-- a comment -->
"""
    assert sentences(page) == [
        Sentence(3, "A paragraph with marks, a link over two lines."),
        Sentence(3, "`code: 1.5` begins a sentence."),
        Sentence(6, "an item of a list"),
        Sentence(8, "an item inside it"),
    ]


def test_comments_are_read_by_the_line() -> None:
    text = """# One comment
# over two lines. Another.
#   an: example
key: value  # beside a value
  # Inside a section
"""
    assert comments(text) == [
        Sentence(1, "One comment over two lines."),
        Sentence(1, "Another."),
        Sentence(5, "Inside a section"),
    ]


CODE_OF_ALL_KINDS = '''#!/usr/bin/env python
"""A module. It has

    an example, of code. And more

- an item."""

import ast  # noqa: F401


def f(x):
    """Doubles x."""
    # A comment with "one quote
    # over two lines. Another.
    #   an: example
    y = "# no comment"  # beside code
    #: About a name.
    raise ValueError(f"{x} is no number, "
        "and {x} is none; take 1")


WORDS = """a list of words.""".split()
'''


def test_comments_of_code() -> None:
    assert [found for found in comment_paragraphs(CODE_OF_ALL_KINDS) if found[1]] == [
        (13, 'A comment with "one quote over two lines. Another.'),
        (17, "About a name."),
    ]


def test_docstrings_of_code() -> None:
    found = list(docstrings([ast.parse(CODE_OF_ALL_KINDS)]))
    assert [line for line, _ in found] == [2, 12]
    assert [each.text for _, text in found for each in sentences(text)] == [
        "A module.",
        "It has",
        "an item.",
        "Doubles x.",
    ]


def test_messages_of_code() -> None:
    assert list(strings_of(ast.parse(CODE_OF_ALL_KINDS))) == [
        (18, "000 is no number, and {x} is none; take 1")
    ]
    assert is_prose("000 is no number, and 000 is one")
    assert not is_prose("a list of words")
    assert not is_prose("def f(x):\n    return x, 1")
    said = "Say `a. b`. Run python scripts/a.py --b c --d e, or not.\n\nThe end"
    assert message_sentences(7, said) == [
        Sentence(7, "Say `a. b`."),
        Sentence(7, "Run 000, or not."),
        Sentence(7, "The end"),
    ]


@pytest.mark.parametrize("words", [25, 26])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a.py", "# {}\n"),
        ("Snakefile", "rule all:\n    # {}\n    input: 1\n"),
        ("a.py", '"""{}"""\n'),
        ("a.py", 'def f():\n    if x:\n        def g():\n            """A.\n\n            {}"""\n'),
        ("a.py", "raise ValueError('{}'\n    '')\n"),
        ("a.py", "x = [f(help='{}'\n    f'')]\n"),
    ],
)
def test_long_sentences_are_found_everywhere(
    tmp_path: Path, name: str, code: str, words: int
) -> None:
    sentence = "word, " + "word " * (words - 2) + "word."
    (tmp_path / name).write_text(code.replace("{}", f"Short. {sentence} Short."))
    found = long_sentences(tmp_path / name, 25, messages=True)
    assert [each.text for each in found] == [sentence] * (words > 25)


@pytest.mark.parametrize(
    "page",
    [
        "`statistics.resamples` (default `10000`) are drawn.",
        "By default `statistics.resamples` is 10,000.",
        "The default of `statistics.resamples` is 10,000.",
        "`statistics.resamples` is by default 10,000.",
        "`report.images` is by default `false`.",
        "`task.inputs` (default `[findings]`) are shown.",
        "`seed`: default 7.",
        "Set `--port` (default 8000) and `serve.py --batch-size` (default 32).",
        "| key | default |\n|---|---|\n| `speed.repeats` | 5 |\n| `--port N` | `8000` |\n",
        "`config.yaml` has `generation.batch_size: 20` and `generation.examples_by: nearest`.",
        "The default run takes 398 seconds, and a default is a default.",
    ],
)
def test_a_true_default_passes(page: str, defaults: Defaults) -> None:
    assert list(problems(page, defaults)) == []


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("`statistics.resamples` (default `1000`).", "is 10000, not `1000`"),
        ("By default `statistics.resamples` is 1,000.", "is 10000, not 1,000"),
        ("`report.images` is by default `true`.", "is False, not `true`"),
        ("Images are shown with a default of 3.", "the default 3 is of no key"),
        ("`statistics.resample` (default 10000).", "the default 10000 is of no key"),
        ("`group_size` (default 64) holds.", "group_size means several"),
        ("Set `--batch-size` (default 32).", "--batch-size means several"),
        ("Set `--port` (default 8001).", "is 8000, not 8001"),
        ("| key | default |\n|---|---|\n| `speed.repeats` | 6 |\n", "is 5, not 6"),
        ("`config.yaml` has `generation.batch_size: 8`.", "does not have generation.batch_size: 8"),
    ],
)
def test_a_wrong_default_is_found(page: str, problem: str, defaults: Defaults) -> None:
    (found,) = problems(page, defaults)
    assert problem in found
