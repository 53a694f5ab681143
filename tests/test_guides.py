"""The technical guides are true: their example computes what they print, their links lead
somewhere, and their figures are those of the benchmarks."""

import ast
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
QUANTIZATION, ROAD, GLOSSARY = (
    DOCS / name for name in ("how-quantization-works.md", "w4a8-road.md", "glossary.md")
)
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
TERM = re.compile(r"^## (.+)\n\n((?:.+\n)+)", re.M)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get on GitHub."""
    bare = re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", bare, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def defined(module: Path) -> set[str]:
    """The names that a Python file defines at its top."""
    tree = ast.parse(text(module))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def links(page: Path) -> list[tuple[str, str]]:
    return [(words, to) for words, to in LINK.findall(text(page)) if "://" not in to]


def test_the_example_in_numbers_is_what_the_library_computes() -> None:
    """All blocks are one session. Between outputs stand fences, which are no output."""
    blocks = re.findall(r"^```python\n(.*?)^```$", text(QUANTIZATION), re.M | re.S)
    session = doctest.DocTestParser().get_doctest(
        "\n".join(blocks), {}, QUANTIZATION.name, str(QUANTIZATION), 0
    )
    assert len(session.examples) > 30
    told: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(session, out=told.append)
    assert not failed, "".join(told)


@pytest.mark.parametrize("page", [QUANTIZATION, ROAD, GLOSSARY], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for _, to in links(page):
        path, _, anchor = to.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{to} is not there"
        assert not anchor or anchor in anchors(target), f"{to} has no such heading"


@pytest.mark.parametrize("page", [QUANTIZATION, ROAD], ids=lambda page: page.name)
def test_a_link_to_code_names_what_the_file_defines(page: Path) -> None:
    to_code = [(words, to) for words, to in links(page) if to.endswith(".py")]
    assert len(to_code) > 5
    for words, to in to_code:
        name = re.fullmatch(r"`(\w+)`", words)
        if name:
            module = page.parent / to
            assert name[1] in {*defined(module), module.stem}, f"{to} has no {name[1]}"


def test_the_guide_points_at_every_step_of_quantizing() -> None:
    """The functions that a run goes through, as the code itself calls them."""
    named = {words.strip("`") for words, _ in links(QUANTIZATION)}
    steps = {"collect_statistics", "scale_group", "static_ranges", "rotate_layer"}
    layerwise = ROOT / "src/radquant/quantization/layerwise.py"
    called = {
        node.func.id
        for node in ast.walk(ast.parse(text(layerwise)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert steps <= called
    assert steps - {"static_ranges"} <= named  # of which the page names search_range, its part


def rows(page: Path) -> list[list[str]]:
    """The cells of all rows of all tables of a page."""
    lines = [line for line in text(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_figures_of_the_road_are_those_of_the_benchmarks() -> None:
    measured = [set(row) for row in rows(DOCS / "benchmarks.md")]
    # Ratios: "6.99" of the products, "119 (6.22×)" of whole models.
    figures = [row for row in rows(ROAD) if any(re.search(r"\d\.\d\d", cell) for cell in row)]
    assert len(figures) == 10
    for row in figures:
        assert any(set(row) <= known for known in measured), f"not in benchmarks.md: {row}"
    sources = " ".join(text(DOCS / f"{name}.md") for name in ("benchmarks", "engines", "gpu"))
    prose = "\n".join(line for line in text(ROAD).splitlines() if not line.startswith("|"))
    for number in re.findall(r"\d+\.\d+", prose):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", sources), number


def terms() -> dict[str, str]:
    return dict(TERM.findall(text(GLOSSARY)))


def test_terms_stand_once_in_the_order_of_the_alphabet() -> None:
    titles = re.findall(r"^## (.+)$", text(GLOSSARY), re.M)
    assert titles == sorted(titles, key=str.casefold)
    assert len(set(map(str.casefold, titles))) == len(titles) == len(terms())


@pytest.mark.parametrize("term", terms())
def test_a_term_takes_two_sentences_at_most(term: str) -> None:
    plain = LINK.sub(r"\1", " ".join(terms()[term].split()))
    assert plain.endswith(".")
    assert len(re.findall(r"[.?](?= [A-Z]|$)", plain)) <= 2


def test_every_link_to_the_glossary_finds_its_term() -> None:
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    known = anchors(GLOSSARY)
    used = re.compile(r"glossary\.md#([\w-]+)")
    found = {(page.name, anchor) for page in pages for anchor in used.findall(text(page))}
    assert {(page, anchor) for page, anchor in found if anchor not in known} == set()
    assert found, "no page links to a term"
