"""How long the rest of a run will take, as far as its finished jobs and earlier runs tell.

`usual.json` tells what a job takes on one machine: seconds for nothing, and for each unit of work.
An earlier run here, and the finished jobs of this one, tell how many times longer it is here.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from radquant.errors import UserError
from radquant.files import read_json, write_json
from radquant.settings.run import Run
from radquant.terminal.work import Kind, Size, Work, kind_of, of_job, size_of

# Fitted by benchmarks/bar.py to three runs on an idle core of an Intel Xeon. They are the default
# run, config/smoke.yaml, and one whose model has next to no weights.
USUAL = resources.files("radquant.terminal") / "usual.json"
LAST = Path("results/logs/seconds.json")
# What Snakemake did before the first job, which is the first to tell how fast the machine is.
PLANNING = Kind("snakemake")
UNKNOWN = 2.0  # seconds of a job of which nothing is known
USUAL_SIZE = Size(134_515_008, 106_203_456)  # of SmolLM2 135M, for a model of unknown size
# Rules of which `usual.json` knows nothing, and what their jobs are like.
ALIKE = {
    "generate_only": ("generate", ""),
    "likelihood_only": ("generate", "original"),
    "quantize_to_gguf": ("quantize", "rtn"),
    "quantize_with_tool": ("quantize", ""),
}
# What these take, a network decides: it says nothing of the machine.
OF_THE_NETWORK = ("fetch_model", "fetch_corpus", "fetch_texts", "build_env")

Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Usual = Mapping[str, Work]  # {"rule how": seconds to start, and for a unit of each amount of work}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Took(_Record):
    """What the jobs of a kind took in an earlier run: seconds of one, and how much work it had."""

    rule: str
    how: str
    name: str
    seconds: Amount
    work: dict[str, Amount]

    @property
    def kind(self) -> Kind:
        return Kind(self.rule, self.how, self.name)


class Unfinished(_Record):
    """A run that was stopped: seconds that it took, and jobs that it left, by rule and name."""

    seconds: Amount = 0.0
    left: dict[str, int] = Field(default_factory=dict)


class Last(_Record):
    """What LAST holds."""

    jobs: list[Took] = Field(default_factory=list)
    unfinished: Unfinished = Field(default_factory=Unfinished)


class Running(NamedTuple):
    """A job at work. left: seconds that it still takes. total: all its seconds, where they are
    known from its own pace."""

    kind: Kind
    left: float
    total: float | None


@dataclass
class Expected:
    """Seconds of the jobs of a run.

    left: jobs of each kind that have not begun. work: of one job of each kind. usual: seconds by
    work on another machine. last: an earlier run here. at_once: jobs side by side. after: the kinds
    that a kind waits for. spent: seconds of the run before this process took it up. took: seconds
    of the jobs that ended in this run. place: where they are kept, whole, as Snakemake is in
    another folder at the end.
    """

    left: Counter[Kind]
    work: dict[Kind, Work]
    usual: Usual
    last: Last = field(default_factory=Last)
    at_once: int = 1
    after: Mapping[Kind, frozenset[Kind]] = field(default_factory=dict)
    spent: float = 0.0
    took: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    place: Path = field(default_factory=LAST.absolute)

    def __post_init__(self) -> None:
        self.earlier = {
            each.kind: (each.seconds, self._usually(each.kind, each.work))
            for each in self.last.jobs
        }
        self.drift = _middle(self.earlier)
        self.by_kind: dict[Kind, float] = {}

    def job(self, kind: Kind) -> float:
        """Return the seconds that a job of a kind is expected to take."""
        return self._jobs([kind])[kind]

    def planned(self, seconds: float) -> None:
        """Take note of what Snakemake took before the first job."""
        self.work[PLANNING] = {"items": float(self.left.total())}
        self.took[PLANNING].append(seconds)

    def now_of(self, work: dict[Kind, Work]) -> None:
        """Take note of the work of each kind, which the model's files tell."""
        self.work, self.by_kind = {**self.work, **work}, {}

    def remaining(self, running: Iterable[Running] = ()) -> float:
        """Return the seconds until the end. running: the jobs at work.

        That is the larger of two bounds. One is of jobs of which none waits for another. The other
        is of the longest chain of jobs that wait for each other. A run takes at least either, and
        at most both together (Graham 1969, doi:10.1137/0117039). All jobs of a kind are taken to
        wait for all of another.
        """
        running, beside = list(running), max(1, self.at_once)
        alone: dict[Kind, float] = defaultdict(float)
        together: dict[Kind, float] = defaultdict(float)
        waiting = self._jobs([kind for kind, count in self.left.items() if count], running)
        parts = [(kind, self.left[kind], seconds) for kind, seconds in waiting.items()]
        for kind, count, seconds in [*parts, *((each.kind, 1, each.left) for each in running)]:
            alone[kind] = max(alone[kind], seconds)
            together[kind] += count * seconds
        own = {kind: max(alone[kind], together[kind] / beside) for kind in together}
        return max(sum(together.values()) / beside, longest(own, self.after))

    def begin(self, kind: Kind) -> None:
        """Take note that a job is no longer waiting; where settings are not known, by its rule."""
        waiting = [each for each, count in self.left.items() if count and each.rule == kind.rule]
        if waiting:
            self.left[kind if kind in waiting else waiting[0]] -= 1

    def _jobs(self, kinds: Iterable[Kind], running: Iterable[Running] = ()) -> dict[Kind, float]:
        """Return the seconds of one job of each kind; the pace of running ones counts, too."""
        took = {kind: (sum(all_of), len(all_of)) for kind, all_of in self.took.items() if all_of}
        known = {
            kind: (seconds, count * self._before(kind)) for kind, (seconds, count) in took.items()
        }
        pace = _middle(known)
        for each in running:
            if each.total is not None:
                before = known.get(each.kind, (0.0, 0.0))
                known[each.kind] = (before[0] + each.total, before[1] + self._before(each.kind))
        return {kind: self._before(kind) * (_times(kind, known) or pace) for kind in kinds}

    def _before(self, kind: Kind) -> float:
        """Return what a job takes by the earlier run, or else on the usual machine."""
        if kind not in self.by_kind:
            usually = self._usually(kind, self.work.get(kind, {}))
            self.by_kind[kind] = usually * (_times(kind, self.earlier) or self.drift)
        return self.by_kind[kind]

    def _usually(self, kind: Kind, work: Work) -> float:
        entry = self._entry(kind)
        return entry.get("start", 0.0) + sum(
            amount * entry.get(unit, 0.0) for unit, amount in work.items()
        )

    def _entry(self, kind: Kind) -> Work:
        rule, how = ALIKE.get(kind.rule, (kind.rule, kind.how))
        for name in (f"{rule} {how or kind.how}".strip(), rule):
            if name in self.usual:
                return self.usual[name]
        alike = [entry for name, entry in self.usual.items() if name.split(" ")[0] == rule]
        return max(alike, key=lambda entry: entry.get("weights", 0.0), default={"start": UNKNOWN})


def longest(seconds: Mapping[Kind, float], after: Mapping[Kind, frozenset[Kind]]) -> float:
    """Return the seconds of the longest chain of kinds that wait for each other.

    seconds: of each kind; none of the others. after: the kinds that a kind waits for, in any order.
    """
    until: dict[Kind, float] = {}

    def end(kind: Kind) -> float:
        if kind not in until:
            until[kind] = 0.0  # should kinds wait for each other in a ring
            before = max(map(end, after.get(kind, ())), default=0.0)
            until[kind] = before + seconds.get(kind, 0.0)
        return until[kind]

    return max(map(end, seconds), default=0.0)


def _times(kind: Kind, known: Mapping[Kind, tuple[float, float]]) -> float | None:
    """Return how many times longer jobs like those of `kind` took; None where there were none.

    known: {kind: (what its jobs took, what was expected)}. The more alike the better: of the same
    name, else done in the same way, else of the same rule.
    """
    for depth in (3, 2, 1):
        alike = [pair for each, pair in known.items() if each[:depth] == kind[:depth] and pair[1]]
        if alike:
            return sum(took for took, _ in alike) / sum(expected for _, expected in alike)
    return None


def _middle(known: Mapping[Kind, tuple[float, float]]) -> float:
    """Return how many times longer a second of work took in the median; 1 where there is none.

    A mean would take one job that compiled something for a slow machine.
    """
    pairs = [pair for kind, pair in known.items() if kind.rule not in OF_THE_NETWORK and pair[1]]
    half = sum(expected for _, expected in pairs) / 2
    for took, expected in sorted(pairs, key=lambda pair: pair[0] / pair[1]):
        half -= expected
        if half <= 0:
            return took / expected
    return 1.0


class Planned(NamedTuple):
    """A job that is to do: its rule and wildcards, and those of the jobs that it waits for."""

    rule: str
    wildcards: Mapping[str, Any]
    after: Iterable[tuple[str, Mapping[str, Any]]] = ()


class _Told(NamedTuple):
    settings: Run
    jobs: Callable[[], Iterable[Planned]]
    at_once: int


_told: list[_Told] = []


def tell(settings: Run, jobs: Callable[[], Iterable[Planned]], at_once: int) -> None:
    """Take note of what the run of this process is; Snakemake tells its screen only of counts.

    jobs: returns each job that is to do. at_once: most jobs side by side.
    """
    _told[:] = [_Told(settings, jobs, at_once)]


def kind(rule: str, wildcards: Mapping[str, Any]) -> Kind:
    """Return what kind a job of this process's run is."""
    return kind_of(rule, wildcards, _told[0].settings if _told else None)


def work_now(kinds: Iterable[Kind]) -> dict[Kind, Work]:
    """Return the work of a job of each kind; of a model of unknown size as if it were the usual."""
    if not _told:
        return {}
    settings = _told[0].settings
    size = size_of(settings) or USUAL_SIZE
    return {each: of_job(each, settings, size) for each in kinds}


def begin(counts: Mapping[str, int]) -> Expected:
    """Return what is expected of a run with so many jobs of each rule."""
    left = Counter({Kind(rule): count for rule, count in counts.items()})
    after: dict[Kind, frozenset[Kind]] = {}
    if _told:
        left, after = kinds_of(each for each in _told[0].jobs() if each.rule in counts)
    last = _earlier()
    run = Expected(left, work_now(left), read_json(Path(str(USUAL))), last, after=after)
    if _told:
        run.at_once = max(1, _told[0].at_once)
    if goes_on(last.unfinished, _named(left)):
        run.spent = last.unfinished.seconds
    return run


def kinds_of(jobs: Iterable[Planned]) -> tuple[Counter[Kind], dict[Kind, frozenset[Kind]]]:
    """Return how many jobs of each kind there are, and the kinds that each kind waits for."""
    left: Counter[Kind] = Counter()
    after: dict[Kind, set[Kind]] = defaultdict(set)
    for job in jobs:
        own = kind(job.rule, job.wildcards)
        left[own] += 1
        after[own].update(kind(*each) for each in job.after)
    return left, {each: frozenset(before - {each}) for each, before in after.items()}


def goes_on(stopped: Unfinished, to_do: Mapping[str, int]) -> bool:
    """Whether a run is the rest of one that was stopped: it does nothing that that had done."""
    return bool(to_do) and all(stopped.left.get(name, 0) >= n for name, n in to_do.items())


def _named(kinds: Mapping[Kind, int]) -> dict[str, int]:
    return {" ".join(filter(None, kind)): count for kind, count in kinds.items() if count}


def _earlier() -> Last:
    """Return what an earlier run here took; nothing of a file that does not say so.

    It only begins a guess, which finished jobs correct: a damaged file stops no run.
    """
    try:
        return Last.model_validate(read_json(LAST))
    except (UserError, OSError, ValidationError):
        return Last()


def remember(expected: Expected, seconds: float, running: Iterable[Kind] = ()) -> None:
    """Keep the means of this run's jobs, and of an earlier one's where none ran now.

    seconds: what the run has taken. running: the jobs that have begun and not ended.
    """
    kept = {each.kind: each for each in expected.last.jobs}
    for kind, took in expected.took.items():
        if took:
            mean, work = round(sum(took) / len(took), 2), dict(expected.work.get(kind, {}))
            kept[kind] = Took(**kind._asdict(), seconds=mean, work=work)
    left = _named(expected.left + Counter(running))
    stopped = Unfinished(seconds=round(seconds, 2), left=left) if left else Unfinished()
    record = Last(jobs=[kept[kind] for kind in sorted(kept)], unfinished=stopped)
    write_json(expected.place, record.model_dump())
