"""What a difference between two runs can move: outputs, likelihoods, scores, or nothing."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from radquant import registry
from radquant.code import DOCUMENTATION
from radquant.reporting.finished_run import annotator_of
from radquant.reporting.sides import GIVEN, Entry, Side
from radquant.settings.checkpoint import OTHER_PACKAGES, OWN
from radquant.settings.run import BASELINES, ORIGINAL

MODEL = frozenset({"outputs", "likelihood"})
ALL = frozenset({"outputs", "likelihood", "scores"})
SCORES_ALONE = frozenset({"scores"})
NOTHING: frozenset[str] = frozenset()

# What an entry can move, by the first pattern that its name begins with. The third column names
# what lies between, if the entry acts through nothing else. Where that is equal in both runs, the
# entry has moved nothing.
EFFECTS: list[tuple[str, frozenset[str], str]] = [
    (
        "config (statistics|speed|report|study|images)|config (model|corpus) name|"
        "config generation shards",
        NOTHING,
        "",
    ),
    # The effect of the schema stands in the configuration, and that of a file of envs/ in
    # `environments`.
    ("code (commit|changed|config/schema\\.yaml|rules/(report|speed)\\.smk)", NOTHING, ""),
    ("config scoring|annotator|rewards", SCORES_ALONE, ""),
    ("code rules/score\\.smk", SCORES_ALONE, ""),
    ("code rules/data\\.smk", ALL, "fetched"),
    ("code rules/(calibration|quantize)\\.smk", MODEL, "checkpoint"),
    ("code rules/(generate|images)\\.smk", MODEL, ""),
    ("code (rules/|Snakefile)", ALL, ""),  # how every stage is called
    ("config generation (max_new_tokens|stop|reports)", frozenset({"outputs"}), ""),
    ("config (generation|compute|task)|prompts (generation|rendered)|machine|seed", MODEL, ""),
    ("config corpus image_root", MODEL, ""),
    ("config (corpus|cleaning|evaluation)|data data/raw", ALL, "data"),
    ("data data/eval", ALL, ""),
    ("data data/train", MODEL, ""),
    ("config model", MODEL, "original"),
    ("config calibration|calibration|prompts calibration|environments", MODEL, "checkpoint"),
    ("config checkpoints|stages quantize", MODEL, "checkpoint"),
    ("checkpoints|config precisions|stages", MODEL, ""),
    ("packages", ALL, ""),
]
# By stage: what it can move, and the third column of above. A Python file, or a file that it reads,
# can move only the results of the stages that use it. Scripts for another package or engine, such
# as quantize_autoawq, make what their stage makes.
STAGES: dict[str, tuple[frozenset[str], str]] = {
    "fetch_corpus": (ALL, "data"),
    "clean": (ALL, "data"),
    "fetch_model": (MODEL, "original"),
    "check_model": (NOTHING, ""),  # these stop a run or leave it as it is
    "check_prompts": (NOTHING, ""),
    "measure_speed": (NOTHING, ""),  # speed is no quality
    "fetch_texts": (MODEL, "checkpoint"),
    "calibration_set": (MODEL, "checkpoint"),
    "quantize": (MODEL, "checkpoint"),
    "take_checkpoint": (MODEL, "checkpoint"),
    "verify_checkpoint": (NOTHING, ""),
    "encode_images": (MODEL, ""),
    "baselines": (frozenset({"outputs"}), ""),
    "generate": (MODEL, ""),  # it also scores references
    "likelihood": (frozenset({"likelihood"}), ""),
    "join_likelihood": (frozenset({"likelihood"}), ""),
    "annotate": (SCORES_ALONE, ""),
    "score": (SCORES_ALONE, ""),
    "measure": (NOTHING, ""),  # its rulers are not among what two runs are compared by
    "build_env": (NOTHING, ""),  # what it installs stands in `environments`
    "write_config": (NOTHING, ""),
    "readers": (NOTHING, ""),
    "subgroups": (NOTHING, ""),
    "report": (NOTHING, ""),
}
OF_BASELINES = {"fetch_corpus", "clean", "baselines", "annotate", "score"}


def between_of(system: str, differing: Iterable[Entry], a: Side, b: Side) -> set[str]:
    """Which of what lies between entries and outputs differs.

    '' is always among them, 'data' stands for the data, and 'original' for the original model's
    files. 'fetched' is either of these, and 'checkpoint' the files of the system's quantized one.
    """
    names = [entry.name for entry in differing]
    own = {a.checkpoint(system), b.checkpoint(system)} - {None, ORIGINAL}
    found = {""}
    if any(name.startswith(f"checkpoints {ORIGINAL} ") for name in names):
        found.add("original")
    if any(name.startswith(("data data/train", "data data/eval")) for name in names):
        found.add("data")
    if any(name.startswith(f"checkpoints {each} ") for name in names for each in own):
        found.add("checkpoint")
    if found & {"original", "data"}:
        found.add("fetched")
    return found


def can_move(entry: Entry, system: str, between: set[str], a: Side, b: Side) -> frozenset[str]:
    own = {a.checkpoint(system), b.checkpoint(system)}
    section, which = entry.path[0], entry.path[1:3]
    if section == "checkpoints" and which[0] not in own:
        return NOTHING
    if (
        entry.path[:2] in (("config", "checkpoints"), ("stages", "quantize"))
        and which[1] not in own
    ):
        return NOTHING
    if section == "stages" and which[0] != "quantize":
        stage, precision = which
        mine = frozenset({"outputs" if stage == "generate" else stage})
        return mine if precision == system else NOTHING
    if section == "environments" and which[0] in _annotator_environments(a, b):
        return SCORES_ALONE
    if entry.path[:2] == ("config", "precisions"):
        return MODEL if which[1] == system else NOTHING
    if section == "code" and which[0].startswith("envs/"):
        return _moved_by_environment(PurePosixPath(which[0]).stem, between)
    if section == "code" and which[0].startswith(("src/", "scripts/")):
        return _moved_by_code(which[0], system, between, a, b)
    for pattern, moves, through in EFFECTS:
        if re.match(rf"(?:{pattern})", entry.name):
            return moves if through in between else NOTHING
    raise AssertionError(f"no effect is known of {entry.name}")


def _annotator_environments(a: Side, b: Side) -> set[str | None]:
    """Where the runs' annotators ran, as far as this version knows them."""
    configs = [side.config for side in (a, b)]
    known = [x for x in configs if x["scoring"].get("annotator") in registry.ANNOTATORS]
    return {annotator_of(config).ENVIRONMENT for config in known}


def _moved_by_environment(name: str, between: set[str]) -> frozenset[str]:
    """What an edit of a file of envs/ can move: an annotator's, a package's or an engine's."""
    kinds = (registry.load_kind(registry.ANNOTATORS, each) for each in registry.ANNOTATORS)
    if name in {kind.ENVIRONMENT for kind in kinds}:
        return SCORES_ALONE
    return MODEL if name not in OTHER_PACKAGES or "checkpoint" in between else NOTHING


def _moved_by_code(name: str, system: str, between: set[str], a: Side, b: Side) -> frozenset[str]:
    """What an edit of a file can move: what those stages make that read it on either side."""
    moves = NOTHING
    if name in DOCUMENTATION:
        return moves
    for script in {*a.stages, *b.stages}:
        stage, tool = stage_of(script)
        makes, through = STAGES[stage]
        reads = a.reads(script, name) or b.reads(script, name)
        if reads and through in between and _takes_part(stage, tool, system, a, b):
            moves |= makes
    return moves


def stage_of(script: str) -> tuple[str, str]:
    """The stage of a script, and the other package or engine that it is for: "" for this one."""
    stage, _, other = script.partition("_")
    return (script, "") if script in STAGES else (stage, other)


def _takes_part(stage: str, tool: str, system: str, a: Side, b: Side) -> bool:
    """Whether a stage is one of those that make a system's results. tool: see `stage_of`."""
    if system in BASELINES:
        return stage in OF_BASELINES
    if stage == "take_checkpoint":
        return GIVEN in (a.tool(system), b.tool(system))
    if stage == "quantize":
        return (tool or OWN) in (a.tool(system), b.tool(system))
    return stage != "baselines"


def read_by(entry: Entry, system: str) -> bool:
    """Baselines need neither a model nor what runs one."""
    if system not in BASELINES:
        return True
    return bool(
        re.match(
            r"seed|data|code|packages|annotator|rewards|config (task|scoring)|"
            r"config (corpus|cleaning|evaluation)|config generation reports",
            entry.name,
        )
    )
