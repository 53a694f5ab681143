"""What all rule files share: the code that a rule depends on, quoting, and names."""

import contextlib
import fcntl
import functools
import json
import os
import re
import shlex
import signal
import threading
from pathlib import Path

import psutil
from snakemake.logging import logger

import radquant.code
from radquant import earlier_report
from radquant.failures import tell_of_killed
from radquant.files import require_whole
from radquant.image_roots import image_folder, is_archive
from radquant.results_folder import check_results, check_same_study
from radquant.settings import chosen, run, stages
from radquant.settings.given import Given
from radquant.settings.llama_cpp import ByLlamaCpp
from radquant.settings.options import words
from radquant.settings.places import missing, read_by

REPOSITORY = Path(os.path.relpath(BASE))
PYTHON = shlex.quote(sys.executable)
# GPUs that a job asks for if it computes with a model. `auto` asks for none, as nothing is known of
# the node that the job will get.
GPUS = 1 if SETTINGS.compute.device == "cuda" else 0
THREADS = SETTINGS.compute.threads
PRECISIONS = list(SETTINGS.precisions)
BASELINES = list(run.BASELINES)
KINDS = chosen.kinds(config)
# Only rules that fetch from the hub go online, and they not against the user's wish.
ONLINE = "HF_HUB_OFFLINE=" + shlex.quote(os.environ.get("HF_HUB_OFFLINE", "0"))


# The corpus to all that only shows its images.
IMAGES = SETTINGS.corpus.model_copy(
    update={
        "image_root": SETTINGS.corpus.image_root
        and str(image_folder(SETTINGS.corpus.image_root, "results"))
    }
)


def one_of(names):
    """A wildcard's pattern that matches exactly these names."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    checkpoint=one_of(SETTINGS.checkpoints),
    precision=one_of(PRECISIONS),
    system=one_of(PRECISIONS + BASELINES),
    part=r"all|shard-\d+-of-\d+",


# The code that counts as input is the code that runs, wherever the package is installed. Snakemake
# itself sets OMP_NUM_THREADS to a rule's threads. Threads that wait spin for some milliseconds and
# then sleep. Threads that spin for long take a core that others want. Threads that sleep at once
# wake up late for each product of a token (benchmarks/threads.py).
shell.prefix(
    "set -euo pipefail; export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=100000 HF_HUB_OFFLINE=1 PYTHONPATH="
    + shlex.quote(f"{BASE}/src").replace("{", "{{").replace("}", "}}")
    + "; "
    # What a job says goes to its log, and to the terminal unless that shows a line a job.
    + 'if [ "${{RADQUANT_JOBS_ON_SCREEN:-yes}}" = no ]; then tee() {{ command tee "$@" > /dev/null; }}; fi; '
    + tell_of_killed(PYTHON).replace("{", "{{").replace("}", "}}")
    # Held by all processes of the job: jobs outlive a Snakemake that is killed.
    + "; exec 9>> results/.jobs.lock; "
    + PYTHON.replace("{", "{{").replace("}", "}}")
    + " -ISc 'import fcntl; fcntl.flock(9, fcntl.LOCK_SH)'; "
)


def stop(message):
    """End Snakemake with one sentence and exit code 1."""
    # In one piece: Snakemake's logger writes from a thread of its own.
    sys.stderr.write(f"error: {message}\n")
    sys.exit(1)


# No job reads the scores of a finished run again, so nothing else would notice a damaged one.
if workflow.is_main_process:
    or_stop(check_results, "results")
    or_stop(check_same_study, "results", config)
    for system in PRECISIONS + BASELINES:
        if os.path.exists(f"results/scores/{system}.parquet"):
            try:
                require_whole(f"results/scores/{system}.parquet")
            except UserError as error:
                stop(f"{error}, and results/report.md with it")


def report_jobs():
    """Return the job of this run that writes the report, if it is to; in a list."""
    return [job for job in workflow.dag.needrun_jobs() if job.rule.name == "report"]


# A file may be on the machine that runs what is planned here.
if workflow.is_main_process and workflow.output_settings.dryrun:
    for sentence in missing(SETTINGS, PLACES).values():
        sys.stderr.write(f"warning: {sentence}; the run itself needs it\n")


def end_jobs(*_):
    """End the jobs' shells and programs, wait for them, and raise what Ctrl-C raises."""
    # First, as jobs that end now have not failed. Snakemake says the same of Ctrl-C.
    logger.warning("Terminating processes on user request (SIGTERM).")
    processes = psutil.Process().children(recursive=True)
    # A shell would tell of a program that is ended before it. tee ends with what it reads.
    for names in (("bash", "sh"), ("tee",)):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if (process.name() in names) == ("sh" in names):
                    process.terminate()
    psutil.wait_procs(processes, timeout=30)
    raise KeyboardInterrupt


onsuccess:
    earlier_report.settle(Path("results"))


onerror:
    if earlier_report.settle(Path("results")):
        # Snakemake takes what is there for what the job that failed has made.
        for job in report_jobs():
            workflow.persistence.started(job)


onstart:
    # Snakemake's own lock outlives a killed run and then refuses the next one, so the profiles
    # turn it off. The kernel frees this one with the process that holds it.
    # Reports are under it, so it is its owner's alone; a folder that is there is left as it is.
    Path("results").mkdir(mode=0o700, exist_ok=True)
    workflow.globals["run_lock"] = open("results/.lock", "w")
    try:
        fcntl.flock(workflow.globals["run_lock"], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stop(
            "another run is at work in this directory; wait for it, or stop it first"
        )
    with open("results/.jobs.lock", "w") as held_by_jobs:
        try:
            fcntl.flock(held_by_jobs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stop(
                "jobs of a run that was killed are still at work in this directory; wait for "
                "them, or stop them first"
            )
    # On SIGTERM Snakemake itself waits until the running jobs are done, which may take hours. It shall
    # stop as on Ctrl-C, which a terminal sends to the jobs as well.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end_jobs)
    for job in workflow.dag.needrun_jobs():
        # What jobs on other machines read may lie there alone.
        if workflow.is_local(job.rule):
            for key, sentence in missing(SETTINGS, PLACES).items():
                if job.rule.name in read_by(key):
                    stop(f"{sentence}; correct the path or put it there")
    # Snakemake does not miss a file that only finished jobs have read. If this run stopped in a job
    # before the report, an old report would be up to date for ever. What is lost would then stay
    # lost. So the report counts as begun from here on, which is not yet to delete it.
    for job in report_jobs():
        earlier_report.keep(Path("results"))
        workflow.persistence.started(job)
    # Snakemake keeps to a default limit of 100 starts a second. For that it looks at all ready jobs
    # once a second for every job that has ended so far. That takes a tenth of a core after 60 jobs,
    # and a whole one after some hundreds. A limit that is given with --max-jobs-per-timespan stays.
    limiter = workflow.scheduler.job_rate_limiter
    if limiter and (limiter.max_jobs, limiter.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def kinds_with(engine=None):
    """Return the kinds whose code counts; engine: of a precision that names one of its own."""
    return {**KINDS, "ENGINES": [engine]} if engine else KINDS


def code(script, engine=None):
    """Return a script and all local files that it depends on, transitively, as inputs of a rule.

    `radquant.code` says which these are; of the kinds that a run chooses, the chosen ones. With
    these files as inputs, which Snakemake compares by checksum, an edit reruns the stages that use
    the module and no others.
    """
    return list(
        map(
            str,
            radquant.code.files(REPOSITORY / "scripts" / script, kinds_with(engine)),
        )
    )


@functools.cache
def code_hash(script, engine=None):
    """Return the sha256 of what `code` returns, as a parameter of a rule; only the script itself is
    an input then.

    For rules with thousands of jobs: a plan takes half as long as with 40 files of code for each.
    """
    return radquant.code.digest(REPOSITORY / "scripts" / script, kinds_with(engine))


def versions():
    """Return the versions that a model's results depend on, as a parameter of the rules that
    compute with one. Their jobs run in this very Python."""
    return json.dumps(radquant.code.surroundings(), sort_keys=True)


def settings_for(parts, **own):
    """Return the options that say what the settings hold of `parts`, in one string for the shell.

    own: sections that are not the run's, such as the precision of a job.
    """
    sections = {"run": SETTINGS, **{name: getattr(SETTINGS, name) for name in config}}
    return words({**sections, "corpus": IMAGES, **own}, parts)


def options(**named):
    """Return other options of a command line, in one string for the shell.

    None and False leave an option out; True is a flag.
    """
    given = []
    for name, value in named.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            given.append(option)
        elif value is not None and value is not False:
            given.append(f"{option}={value}")
    return shlex.join(given)


def memory(mb):
    """Return a rule's memory in MB: `mb`, and as much again with each retry."""
    return lambda wildcards, attempt: mb * attempt


def model_directory(checkpoint):
    if checkpoint == "original":
        return "results/models/original"
    return f"results/checkpoints/{checkpoint}"


def model_files(checkpoint, weights=None):
    """Return the files that stand for a checkpoint, so that a lost or changed one is noticed.

    weights: the weight files of a rule that makes checkpoints, by a wildcard for their names.

    runtime.safetensors, which only some have, is vouched for by its hash in quantization.json.
    """
    own = ["config.json", "tokenizer_config.json"]
    given = SETTINGS.checkpoints.get(checkpoint)
    if checkpoint == "original":
        own += ["source.json", *SETTINGS.model.weights]
    elif isinstance(given, (Given, ByLlamaCpp)):
        own += [*given.weight_files, "quantization.json"]
    else:
        own += [
            *(weights or SETTINGS.checkpoints[checkpoint].weight_files),
            "quantization.json",
        ]
    return [f"{model_directory(checkpoint)}/{name}" for name in own]


# The jobs that quantize wait for the first of these, the jobs that write and score for the second.
# Each depends on nothing that its users do not depend on, so no job reruns for a check alone.
CHECKED = "results/models/check.json"
CHECKED_PROMPTS = "results/models/prompts.json"


def verified(wildcards):
    """Return what has to be there before a precision's model is used: a checkpoint that cannot be
    one of the original stops the run. Its content stands in the report alone."""
    name = SETTINGS.precisions[wildcards.precision].checkpoint
    return [] if name == "original" else ancient(f"results/verification/{name}.json")


def checkpoint_of(wildcards):
    return SETTINGS.precisions[wildcards.precision].checkpoint


def pattern_of(system, kind, suffix):
    """Return what the shell makes the names of `outputs_of` of: written out, those of a thousand
    shards are longer than a command may be."""
    if system in BASELINES:
        return f"results/{kind}/{system}/all.{suffix}"
    count = SETTINGS.generation.shards
    return f"results/{kind}/{system}/shard-*-of-{count}.{suffix}"


def outputs_of(system, kind, suffix):
    """Return the files under results/`kind`/ that hold a system's outputs or what was made of them."""
    if system in BASELINES:
        return [f"results/{kind}/{system}/all.{suffix}"]
    return gather.shard(f"results/{kind}/{system}/shard-{{scatteritem}}.{suffix}")
