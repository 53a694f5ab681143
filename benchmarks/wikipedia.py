"""General English from PyPI: paragraphs of Wikipedia, out of a test file in gensim's wheel.

The file is the beginning of a dump of March 2016 that was cut to its first 206 pages, of which 106
are articles. Their text is under CC BY-SA 3.0 and is not copied anywhere but into a working folder.
"""

import bz2
import html
import os
import re
import zipfile
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

from radquant.wheels import download_wheel

REQUIREMENT = "gensim==4.4.0"
SHA256 = "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8"
MEMBER = (
    "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
# The wheel is made for one Python, but only read: any other's pip must ask for the same.
PIP_TARGET = {
    "PIP_PYTHON_VERSION": "3.11",
    "PIP_IMPLEMENTATION": "cp",
    "PIP_ABI": "cp311",
    "PIP_PLATFORM": "manylinux_2_28_x86_64",
}
FEWEST_WORDS = 40
# Stands for what has a place in a sentence but no plain text: such a paragraph is left out.
HOLE = "\ufffc"
WITHOUT_TEXT = re.compile(
    r"<!--.*?-->|<ref[^>]*/>|<ref[^>]*>.*?</ref>|<gallery.*?</gallery>|\{\|.*?\n\|\}", re.DOTALL
)
IN_A_SENTENCE = re.compile(r"<(math|code|nowiki|source)\b.*?</\1>", re.DOTALL)
CITING = re.compile(
    r"\{\{\s*(?:sfn|cit|cn\b|fact\b|rp\b|main\b|see also|refn|page needed|who\b|clarify|when\b)"
    r"[^{}]*\}\}",
    re.IGNORECASE,
)
TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
EXTERNAL = re.compile(r"\[(?:https?:)?//\S+ ?([^\]\[]*)\]")
LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
TAG = re.compile(r"</?[a-z]+[^<>]*>")
PROSE = re.compile(rf"[A-Z\"“](?:(?!http)[^{{}}\[\]|<>=*#{HOLE}])*[.!?][\"”)]?")


def paragraphs(downloads: Path) -> list[str]:
    """Return the paragraphs of prose of all articles, in the dump's order."""
    with mock.patch.dict(os.environ, PIP_TARGET):
        wheel = download_wheel(REQUIREMENT, SHA256, downloads)
    with zipfile.ZipFile(wheel) as archive:
        root = ElementTree.fromstring(bz2.decompress(archive.read(MEMBER)))
    pages = (element.text or "" for element in root.iter() if element.tag.endswith("}text"))
    articles = (page for page in pages if not page.lower().startswith("#redirect"))
    return list(dict.fromkeys(text for page in articles for text in prose(page)))


def prose(page: str) -> list[str]:
    """Return the paragraphs of a page in wiki markup that are whole sentences and nothing else.

    What a reader would see stays; one in which something would be missing is left out.
    """
    page = IN_A_SENTENCE.sub(HOLE, WITHOUT_TEXT.sub("", page))
    page = EXTERNAL.sub(r"\1", CITING.sub("", page))
    # From the innermost outwards.
    for pattern, plain in ((TEMPLATE, lambda found: HOLE), (LINK, _shown)):
        changed = 1
        while changed:
            page, changed = pattern.subn(plain, page)
    page = html.unescape(TAG.sub("", page.replace("'''", "").replace("''", "")))
    lines = (" ".join(line.split()) for line in page.split("\n"))
    return [line for line in lines if len(line.split()) >= FEWEST_WORDS and PROSE.fullmatch(line)]


def _shown(link: re.Match[str]) -> str:
    target, *_ = link[1].split(":")
    if target.strip().lower() in ("file", "image", "category"):
        return ""
    return link[1].split("|")[-1]
