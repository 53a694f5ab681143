"""From raw reports to training, evaluation and rejected ones, with a funnel that adds up."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.cli import progress as show_progress
from radquant.corpus.cleaning import clean_text, count_words, is_cut, normalise, refers_elsewhere
from radquant.corpus.marks import same_id
from radquant.corpus.reports import SECTIONS, Report, check_ids, shown_id
from radquant.corpus.sections import find_sections
from radquant.corpus.splitting import assign_splits, check_no_leak, draw, leaks
from radquant.errors import UserError
from radquant.image_files import COLUMN, image_files, read_shown
from radquant.image_roots import require_folder

EXAMPLES = 3
TEXT_COLUMNS = (*SECTIONS, "text")


@dataclass(frozen=True)
class Settings:
    """What to keep. The words are those of the target, bounds included, and of each input."""

    inputs: Sequence[str]
    target: str
    eval_reports: int
    eval_fraction: float = 0.3
    min_words: int = 1
    max_words: int = 150
    min_input_words: int = 1
    seed: int = 7
    images: bool = False  # whether a report needs an image


@dataclass
class Cleaned:
    """`train` is in the corpus's order, `evaluation` in the order in which it was drawn.

    `rejected` holds (report, reason, detail); raw = train + evaluation + rejected.
    """

    train: list[Report] = field(default_factory=list)
    evaluation: list[Report] = field(default_factory=list)
    rejected: list[tuple[Report, str, str]] = field(default_factory=list)
    funnel: dict[str, Any] = field(default_factory=dict)


class TooFewError(UserError):
    """Cleaning left fewer reports than are needed; `cleaned` says what became of all."""

    def __init__(self, message: str, cleaned: Cleaned) -> None:
        super().__init__(message)
        self.cleaned = cleaned


def prepare_corpus(
    raw: Sequence[Report], settings: Settings, image_root: Path | None = None
) -> Cleaned:
    """`clean_corpus` with progress; the evaluation's images, in `image_root`, are opened once."""
    settings = replace(settings, images=image_root is not None)
    cleaned = clean_corpus(
        raw, settings, lambda reports: show_progress(reports, "cleaning", len(raw), "reports")
    )
    if image_root is not None:
        require_folder(image_root)
        cleaned.funnel["images"] = check_images(cleaned.evaluation, image_root)
    return cleaned


def check_images(reports: Sequence[Report], root: Path) -> list[dict[str, Any]]:
    """Return the ways in which images are made what a model is shown, with the files of each.

    Training reports' images are never shown to a model.
    Raises UserError for the first image that cannot be read, or in which nothing can be seen: now,
    not after hours of quantizing.
    """
    ways: dict[tuple[str, ...], list[str]] = {}
    for report in show_progress(reports, "opening images", len(reports), "reports"):
        row = {"id": report.id, COLUMN: report.images}
        for file in image_files(row, COLUMN, root):
            name = str(file.path.relative_to(root))
            ways.setdefault(read_shown(file).steps, []).append(name)
    return [
        {"steps": list(steps), "images": len(files), "files": files}
        for steps, files in sorted(ways.items())
    ]


def clean_corpus(
    raw: Sequence[Report],
    settings: Settings,
    progress: Callable[[Iterable[Report]], Iterable[Report]] = iter,
) -> Cleaned:
    """Clean, deduplicate, split and draw.

    A training report that shares a patient, a study or a text with the evaluation pool is rejected.
    The pool keeps its report, and so does the evaluation. Pool reports that are not drawn are
    rejected as such. `progress` wraps the loop over the reports. Raises UserError for duplicate ids
    or an empty corpus, and TooFewError, which shows the funnel, for fewer reports than asked for.
    """
    check_settings(settings)
    raw = [_with_plain_ids(report) for report in raw]
    check_ids(raw)
    result = Cleaned()
    steps = [{"step": "raw", "removed": 0, "left": len(raw)}]

    def step(name: str, reasons: dict[str, tuple[str, str]], reports: list[Report]) -> list[Report]:
        """Reject the reports whose id is in `reasons`; return the others."""
        left = [report for report in reports if report.id not in reasons]
        result.rejected += [(r, *reasons[r.id]) for r in reports if r.id in reasons]
        steps.append({"step": name, "removed": len(reports) - len(left), "left": len(left)})
        return left

    reports: list[Report] = []
    unusable: dict[str, tuple[str, str]] = {}
    for report in progress(raw):
        cleaned = clean_report(report)
        reports.append(cleaned)
        if found := why_unusable(report, cleaned, settings):
            unusable[report.id] = found
    for name in REASONS:
        if name in OF_IMAGES and not settings.images:
            continue
        chosen = {key: why for key, why in unusable.items() if _step_of(why[0]) == name}
        reports = step(name, chosen, reports)
    reports = step("duplicate text", find_duplicates(reports, settings), reports)

    splits = assign_splits(reports, settings.eval_fraction, settings.seed)
    given = any(report.split for report in reports)
    if given:
        unassigned = {r.id: ("no split", "") for r, s in zip(reports, splits, strict=True) if not s}
        reports = step("no split", unassigned, reports)
        splits = [split for split in splits if split]
    by_id = {report.id: split for report, split in zip(reports, splits, strict=True)}
    pool = [report for report in reports if by_id[report.id] == "eval"]
    train = [report for report in reports if by_id[report.id] == "train"]
    shared = leaks(train, pool, settings.inputs, settings.target)
    reports = step("shared with evaluation", {k: (v, "") for k, v in shared.items()}, reports)
    result.train = [report for report in reports if by_id[report.id] == "train"]

    result.evaluation, spare = draw(pool, settings.eval_reports, settings.seed)
    step("not drawn", {report.id: ("not drawn", "") for report in spare}, reports)
    result.funnel = {
        "seed": settings.seed,
        "inputs": list(settings.inputs),
        "target": settings.target,
        "steps": steps,
        "train": len(result.train),
        "eval_pool": len(pool),
        "eval": len(result.evaluation),
        "split": "given" if given else "by hash",
        "unit": "patient" if any(report.group for report in reports) else "report",
        "train_groups": len({report.group or report.id for report in result.train}),
        "eval_groups": len({report.group or report.id for report in result.evaluation}),
        "reasons": dict(sorted(Counter(reason for _, reason, _ in result.rejected).items())),
        "examples": _examples(result),
    }
    _check_enough(result, len(raw), settings)
    check_no_leak(result.train, result.evaluation, settings.inputs, settings.target)
    return result


def _with_plain_ids(report: Report) -> Report:
    ids = {name: same_id(getattr(report, name)) for name in ("id", "group", "study")}
    same = all(getattr(report, name) == value for name, value in ids.items())
    return report if same else replace(report, **ids)


def check_settings(settings: Settings) -> None:
    """Raise UserError for a task that names no section, one twice, or gives the target away."""
    names = [*settings.inputs, settings.target]
    for name in names:
        if name not in TEXT_COLUMNS:
            raise UserError(f"{name!r} is no column of a report; use {', '.join(TEXT_COLUMNS)}")
    if not (settings.inputs or settings.images) or len(set(names)) < len(names):
        raise UserError(
            f"the task needs inputs and another column as target, not {list(settings.inputs)} "
            f"and {settings.target!r}"
        )
    if "text" in settings.inputs:
        raise UserError(
            "the input 'text' is the whole report and so holds the target; use its sections"
        )
    if settings.eval_reports < 1 or not 0 < settings.eval_fraction < 1:
        raise UserError(
            "evaluation needs at least 1 report and a fraction between 0 and 1, not "
            f"{settings.eval_reports} and {settings.eval_fraction}"
        )
    if not 1 <= settings.min_words <= settings.max_words:
        raise UserError(
            f"min_words {settings.min_words} and max_words {settings.max_words} leave no text; "
            "use 1 <= min_words <= max_words"
        )
    if settings.min_input_words < 1:
        raise UserError(f"min_input_words is {settings.min_input_words}; use at least 1")


def clean_report(report: Report) -> Report:
    return replace(report, **{name: clean_text(getattr(report, name)) for name in TEXT_COLUMNS})


# In the order in which they are tested; the first that holds is the report's reason.
OF_IMAGES = ("image missing", "no image")
REASONS = (
    *("missing section", *OF_IMAGES, "refers elsewhere", "cut mid-sentence", "too short"),
    *("too long", "input too short", "input is the target"),
)


def _step_of(reason: str) -> str:
    return reason if reason in REASONS else "missing section"


def why_unusable(raw: Report, cleaned: Report, settings: Settings) -> tuple[str, str] | None:
    """Return (reason, detail) for a report that the task cannot use, else None."""
    names = [*settings.inputs, settings.target]
    for name in names:
        if not normalise(getattr(cleaned, name)):
            return f"no {name}", ""
    if settings.images and cleaned.missing:
        return "image missing", cleaned.missing
    if settings.images and not cleaned.images:
        return "no image", ""
    if refers_elsewhere(getattr(cleaned, settings.target)):
        return "refers elsewhere", settings.target
    for name in names:
        if is_cut(getattr(raw, name)):
            return "cut mid-sentence", name
    words = len(getattr(cleaned, settings.target).split())
    if words < settings.min_words:
        return "too short", f"{settings.target}, {words} words"
    if words > settings.max_words:
        return "too long", f"{settings.target}, {words} words"
    target = normalise(getattr(cleaned, settings.target))
    for name in settings.inputs:
        text = getattr(cleaned, name)
        words = count_words(text)
        if words < settings.min_input_words:
            return "input too short", f"{name}, {words} words"
        whole = normalise(text)
        if whole == target:
            return "input is the target", f"{name} is the text of {settings.target}"
        if target in whole and _has_section(getattr(raw, name), settings.target, target):
            return "input is the target", f"{name} has a section with the text of {settings.target}"
    return None


def _has_section(text: str, name: str, content: str) -> bool:
    """Whether a cell holds more than its own section: another of this name and content, too."""
    return name in SECTIONS and normalise(getattr(find_sections(text), name)) == content


def find_duplicates(reports: Sequence[Report], settings: Settings) -> dict[str, tuple[str, str]]:
    """Return {id: (reason, detail)} of the reports whose inputs, images and target equal another's.

    The first in the corpus stays, except that a report that the corpus gives to evaluation comes
    before all others.
    """
    first: dict[str, str] = {}
    found: dict[str, tuple[str, str]] = {}
    names = [*settings.inputs, settings.target]
    for report in sorted(reports, key=lambda report: report.split != "eval"):
        key = "\0".join([*(normalise(getattr(report, name)) for name in names), report.images])
        kept = first.setdefault(key, report.id)
        if kept != report.id:
            found[report.id] = ("duplicate text", f"same as {kept}")
    return found


def _check_enough(result: Cleaned, raw: int, settings: Settings) -> None:
    funnel = show_funnel(result.funnel)
    if not raw:
        raise UserError("the corpus is empty; check corpus.path")
    if not result.train and not result.funnel["eval_pool"]:
        raise TooFewError(
            f"nothing is left of the corpus after cleaning ({funnel}); {_most_frequent(result)}",
            result,
        )
    if len(result.evaluation) < settings.eval_reports:
        remedy = (
            "the corpus gives its own split, so lower evaluation.reports"
            if result.funnel["split"] == "given"
            else "lower evaluation.reports or raise cleaning.eval_fraction"
        )
        message = (
            f"{settings.eval_reports} evaluation reports were asked for and "
            f"{len(result.evaluation)} are there ({funnel}); {remedy}"
        )
        raise TooFewError(f"{message}; {_most_frequent(result)}", result)
    if not result.train:
        remedy = (
            "the corpus gives its own split, so give it training reports"
            if result.funnel["split"] == "given"
            else "lower cleaning.eval_fraction"
        )
        raise TooFewError(
            f"no training report is left ({funnel}); {remedy}; {_most_frequent(result)}", result
        )


def _examples(result: Cleaned) -> dict[str, list[str]]:
    """Three reports by id for each reason."""
    found: dict[str, list[str]] = {}
    for report, reason, _ in result.rejected:
        ids = found.setdefault(reason, [])
        ids += [report.id] * (len(ids) < EXAMPLES)
    return found


def _most_frequent(result: Cleaned) -> str:
    """Why most reports were dropped, with three of them by id."""
    counts = Counter(reason for _, reason, _ in result.rejected)
    if not counts:
        return "no report was rejected"
    reason, count = counts.most_common(1)[0]
    shown = ", ".join(map(shown_id, _examples(result)[reason]))
    return f"{count} of {len(result.rejected)} were dropped as {reason!r}, such as {shown}"


def show_funnel(funnel: dict[str, Any]) -> str:
    """Return the funnel as one line: "raw 100, missing section -30, … , train 40, eval pool 30"."""
    removed = [f"{step['step']} -{step['removed']}" for step in funnel["steps"] if step["removed"]]
    parts = [f"raw {funnel['steps'][0]['left']}", *removed]
    return ", ".join([*parts, f"train {funnel['train']}", f"eval pool {funnel['eval_pool']}"])


def rejected_table(cleaned: Cleaned) -> pd.DataFrame:
    """Return one row per rejected report: id, group, reason, detail (no report text)."""
    rows = [(report.id, report.group, why, detail) for report, why, detail in cleaned.rejected]
    return pd.DataFrame(rows, columns=["id", "group", "reason", "detail"], dtype="str")
