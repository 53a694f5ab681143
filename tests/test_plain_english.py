"""Pages are read once: short sentences, and no default that the program does not have."""

from pathlib import Path

import pytest
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
