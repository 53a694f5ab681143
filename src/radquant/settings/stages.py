"""On which settings each stage depends.

Its script has an option for each, and its rule hands over these and no others, so that an unrelated
key reruns nothing.
"""

from radquant import registry
from radquant.settings.calibration import Calibration
from radquant.settings.checkpoint import Checkpoint
from radquant.settings.cleaning import Cleaning, Evaluation
from radquant.settings.compute import Compute
from radquant.settings.corpus import Corpus
from radquant.settings.generation import Generation
from radquant.settings.given import Given
from radquant.settings.images import Images
from radquant.settings.llama_cpp import ByLlamaCpp
from radquant.settings.model import Model
from radquant.settings.options import Part
from radquant.settings.precision import Precision
from radquant.settings.run import Seeded
from radquant.settings.scoring import Scoring, Statistics
from radquant.settings.sources import HubTexts
from radquant.settings.speed import Speed
from radquant.settings.task import Task

SEED = Part("run", Seeded, only=("seed",))
TARGET = Part("task", Task, only=("target",))
TARGET_AND_DATE = Part("task", Task, only=("target", "date"))
DATE = Part("task", Task, only=("date",))
CODE_OF_MODEL = Part("model", Model, only=("trust_remote_code",))
ROUNDING = Part("precision", Precision, without=("checkpoint", "engine"))
# The keys of a precision that the timed section is given.
TIMED = Part("precision", Precision, without=("checkpoint",))
MACHINE = Part("compute", Compute, only=("device", "threads"))
IMAGE_ROOT = Part("corpus", Corpus, only=("image_root",))
WRITTEN = Part("generation", Generation, only=("reports",))

FETCH_MODEL = (Part("model", Model, without=("name",)),)
FETCH_CORPUS = (
    Part("corpus", Corpus, without=("name",)),
    Part("task", Task, only=("image_column",)),
)
FETCH_TEXTS = (Part("texts", HubTexts, without=("column",)),)
CLEAN = (
    Part("task", Task, only=("inputs", "target")),
    IMAGE_ROOT,
    Part("cleaning", Cleaning),
    Part("evaluation", Evaluation),
    SEED,
)
CALIBRATION_SET = (
    TARGET_AND_DATE,
    Part("calibration", Calibration, only=("samples", "max_tokens", "pack", "image_weight")),
    IMAGE_ROOT,
    SEED,
    CODE_OF_MODEL,
)
QUANTIZE = (Part("checkpoint", Checkpoint, without=("tool",)), MACHINE, CODE_OF_MODEL)
QUANTIZE_AUTOAWQ = (
    Part("checkpoint", Checkpoint, only=("bits", "group_size", "zero_point")),
    MACHINE,
    CODE_OF_MODEL,
)
QUANTIZE_GPTQMODEL = (
    Part(
        "checkpoint",
        Checkpoint,
        only=("bits", "group_size", "zero_point", "desc_act", "damp_percent"),
    ),
    MACHINE,
    CODE_OF_MODEL,
)
QUANTIZE_LLMCOMPRESSOR = (
    Part(
        "checkpoint",
        Checkpoint,
        only=(
            *("method", "type", "bits", "group_size", "zero_point", "rounding", "damp_percent"),
            "activations",
        ),
    ),
    MACHINE,
    CODE_OF_MODEL,
)
QUANTIZE_WITH = {
    "autoawq": QUANTIZE_AUTOAWQ,
    "gptqmodel": QUANTIZE_GPTQMODEL,
    "llmcompressor": QUANTIZE_LLMCOMPRESSOR,
}
QUANTIZE_LLAMA_CPP = (Part("checkpoint", ByLlamaCpp, without=("tool",)), MACHINE, CODE_OF_MODEL)
TAKE_CHECKPOINT = (Part("given", Given), CODE_OF_MODEL)
# What scripts/evaluate.py lets its user say of a comparison beside options of its own; other values
# have their defaults.
EVALUATE = (
    Part("corpus", Corpus, only=("split_file", "separator", "encoding", "columns", "headings")),
    Part("task", Task, only=("inputs",)),
    Part("cleaning", Cleaning, only=("eval_fraction",)),
    Part("generation", Generation, without=("prompt", "reports", "shards", "stop")),
    Part("scoring", Scoring, only=("annotator", "language", "radgraph")),
    Part("statistics", Statistics, only=("margin", "margin_reason")),
    Part("speed", Speed, only=("repeats",)),
    Part("compute", Compute),
    SEED,
    CODE_OF_MODEL,
)
LIKELIHOOD = (
    ROUNDING,
    TARGET_AND_DATE,
    IMAGE_ROOT,
    Part(
        "generation",
        Generation,
        only=("examples", "examples_by", "examples_max_words", "batch_size"),
    ),
    SEED,
    Part("compute", Compute),
    CODE_OF_MODEL,
)
# Nothing of the run is given that decides what is written or how weights are rounded.
ENCODE_IMAGES = (
    IMAGE_ROOT,
    Part("images", Images),
    Part("compute", Compute, without=("engine",)),
    CODE_OF_MODEL,
)
GENERATE = (
    *(part for part in LIKELIHOOD if part.name != "generation"),
    Part("generation", Generation, without=("prompt",)),
)
# The lengths of what it writes are its own: they change with no other setting.
MEASURE_SPEED = (
    Part("speed", Speed),
    *(part for part in LIKELIHOOD if part.name != "precision"),
)
CHECK_MODEL = (
    Part("compute", Compute, only=("device", "threads")),
    CODE_OF_MODEL,
)
CHECK_PROMPTS = (
    *(part for part in LIKELIHOOD if part.name not in ("generation", "precision")),
    Part("generation", Generation, only=("examples", "examples_by", "examples_max_words")),
)
BASELINES = (Part("task", Task, only=("inputs", "target")), WRITTEN, SEED)
ANNOTATE_OUTPUTS = (
    Part("scoring", Scoring, without=("language", *registry.MEASURES)),
    Part("compute", Compute, only=("threads",)),
)
ANNOTATE_QUICKLY = (Part("scoring", Scoring, only=("annotator",)),)
# Outputs may be of any language: whether a model writes English is a result.
LANGUAGE = (
    Part("scoring", Scoring, only=("language",)),
    Part("task", Task, only=("inputs",)),
)
ANNOTATE = (
    Part("scoring", Scoring, without=tuple(registry.MEASURES)),
    Part("task", Task, only=("inputs",)),
    Part("compute", Compute, only=("threads",)),
)
SCORE = (TARGET, WRITTEN)
THREADS = Part("compute", Compute, only=("threads",))
MEASURE = (TARGET, WRITTEN, THREADS, Part("scoring", Scoring, only=tuple(registry.MEASURES)))
MEASURE_BY = {
    name: (TARGET, WRITTEN, THREADS, Part("scoring", Scoring, only=(name,)))
    for name in registry.MEASURES
}
# A server's default engine is another than an evaluation's.
SERVE = (ROUNDING, Part("compute", Compute, without=("engine",)), CODE_OF_MODEL, DATE)
