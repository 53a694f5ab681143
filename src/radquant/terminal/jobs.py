"""What a job is called on the terminal, and what its log says of it."""

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# In the order in which a run does them; {} holds the wildcards of the rule's files.
PHRASES = {
    "write_config": "resolve the configuration",
    "build_env": "build the environment of {environment}",
    "fetch_model": "fetch the model",
    "fetch_corpus": "fetch the corpus",
    "clean": "clean the corpus",
    "fetch_texts": "fetch calibration texts",
    "encode_images": "encode images: {purpose}, {encoder}, {shard}-of-{shards}",
    "check_model": "check the model",
    "check_prompts": "check the prompts",
    "calibration_set": "draw calibration texts",
    "quantize": "quantize: {checkpoint}",
    "quantize_to_gguf": "quantize: {checkpoint}",
    "quantize_with_tool": "quantize: {checkpoint}",
    "verify_checkpoint": "verify: {checkpoint}",
    "generate": "write reports: {precision}, {scatteritem}",
    "generate_only": "write reports: {precision}, {scatteritem}",
    "likelihood": "join the likelihoods: {precision}",
    "likelihood_only": "likelihood of the references: {precision}",
    "measure_speed": "measure speed",
    "baselines": "make the baselines",
    "annotate_reference": "annotate the references",
    "annotate": "annotate: {system}, {part}",
    "measure": "measure {measure}: {system}",
    "score": "score: {system}",
    "subgroups": "divide the reports into subgroups",
    "readers": "read what readers said",
    "report": "write the report",
    "all": "",
}
COUNTED = re.compile(r": ((\d+)/(\d+) [a-z]+), (\d+) s$")  # what radquant.cli.progress writes
ENDING = re.compile(r", (?:1-of-1|shard-1-of-1|all)$")  # of a rule's words: there is no other part
# Their jobs see no report, so what another program says in their logs may be shown.
WITHOUT_REPORTS = ("write_config", "build_env", "fetch_model")
UNSAID = "error: the job ended without a sentence; its log may hold report text and is not shown"
TAIL = 20_000  # bytes of a log that are looked at


class Job(NamedTuple):
    """rule: its name; wildcards: its values; logs: its log files."""

    rule: str
    wildcards: Mapping[str, str]
    logs: tuple[str, ...]


def phrase(job: Job) -> str:
    """Return what a job does, in words; its rule's name where it has none here."""
    words = PHRASES.get(job.rule, job.rule.replace("_", " "))
    words = ENDING.sub("", words.format_map(defaultdict(lambda: "?", job.wildcards)))
    return re.sub(r", (?:shard-)?(\d+)-of-(\d+)$", r", shard \1 of \2", words)


def last_lines(job: Job) -> list[str]:
    """Return the end of a job's log; [] where there is none yet."""
    for log in job.logs:
        try:
            with open(log, "rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL))
                return file.read().decode("utf-8", errors="replace").splitlines()
        except OSError:
            continue
    return []


class Count(NamedTuple):
    """What a job's log last counted. words: "5/32 layers"; share: of all; left: seconds of the
    others, at the same pace."""

    words: str
    share: float
    left: float


def counted(job: Job) -> Count | None:
    """Return the last count in a job's log; None without one."""
    for line in reversed(last_lines(job)):
        if found := COUNTED.search(line):
            share, seconds = int(found[2]) / max(1, int(found[3])), int(found[4])
            left = seconds * max(0.0, 1 - share) / max(share, 1e-3)
            return Count(found[1], share, max(0.0, left - _age(job)))
    return None


def _age(job: Job) -> float:
    """Return the seconds since a job last wrote to its log."""
    log = existing_log(job)
    return max(0.0, time.time() - Path(log).stat().st_mtime) if log else 0.0


def sentence(job: Job) -> str:
    """Return what a failed job says of its error.

    That is the last line of its log that one of our programs wrote for the user. Other lines may
    be another program's message with a patient's text in it.
    """
    lines = [line for line in last_lines(job) if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if lines and job.rule in WITHOUT_REPORTS:
        return lines[-1]
    return UNSAID if lines else "error: the job ended without a word"


def existing_log(job: Job) -> str | None:
    """Return the path of a job's log, for the user to open; None where there is none."""
    return next((log for log in job.logs if Path(log).exists()), None)
