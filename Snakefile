"""Quantize a report-writing language model and measure what it costs clinically."""

import os
import sys
from pathlib import Path

from snakemake.utils import min_version

from radquant.checkpoints.weight_names import with_weights
from radquant.corpus.fetching import look, source_of
from radquant.settings.configuration import resolve
from radquant.errors import UserError
from radquant.laying_out import require_same_release
from radquant.model_checks import check_folder
from radquant.scoring.subgroup_names import check_subgroups
from radquant.settings.places import places_of
from radquant.settings.yaml_files import check_yaml
from radquant.terminal import expected

# Rules rely on its checksums of small inputs and on its lookup of profiles.
min_version("9.27")


# The folder of this file, which workflow/Snakefile includes.
BASE = os.fspath(workflow.current_basedir)


def or_stop(function, *arguments):
    """What `function` returns, or the sentence that it has for the user."""
    try:
        return function(*arguments)
    except UserError as error:
        # In one piece: Snakemake's logger writes from a thread of its own.
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)


or_stop(require_same_release, Path(BASE))
CONFIGURATIONS = workflow.overwrite_configfiles or [f"{BASE}/config.yaml"]
for path in CONFIGURATIONS:
    or_stop(check_yaml, path)

# A file given with --configfile stands alone: merged into config.yaml, it would inherit the
# precisions of the default run.
if not workflow.overwrite_configfiles:

    configfile: f"{BASE}/config.yaml"


PLACES = places_of(CONFIGURATIONS, BASE)
SETTINGS = or_stop(with_weights, or_stop(resolve, config, PLACES), Path("results"))
config = SETTINGS.model_dump(mode="json")
or_stop(check_subgroups, config["statistics"]["subgroups"])
# What folders and headers tell takes no time; what is elsewhere is checked when it is fetched. Jobs
# have no need of it.
if workflow.is_main_process:
    expected.tell(
        SETTINGS,
        lambda: (
            expected.Planned(
                job.rule.name,
                job.wildcards_dict,
                [
                    (each.rule.name, each.wildcards_dict)
                    for each in workflow.dag.dependencies[job]
                ],
            )
            for job in workflow.dag.needrun_jobs()
        ),
        at_once=(workflow.resource_settings.cores or 0) // SETTINGS.compute.threads
        or workflow.resource_settings.nodes
        or 1,
    )
    or_stop(
        look,
        SETTINGS.corpus.format,
        source_of(SETTINGS.corpus, SETTINGS.task.image_column),
    )
    if SETTINGS.model.path:
        or_stop(check_folder, SETTINGS.model.path, SETTINGS.model.weights)


scattergather:
    shard=SETTINGS.generation.shards,


include: "rules/common.smk"


# Needs the network, or takes seconds: not worth a job on a cluster.
localrules:
    all,
    baselines,
    build_env,
    fetch_corpus,
    fetch_model,
    likelihood,
    readers,
    report,
    score,
    subgroups,
    write_config,


include: "rules/environments.smk"
include: "rules/data.smk"
include: "rules/images.smk"
include: "rules/calibration.smk"
include: "rules/quantize.smk"
include: "rules/generate.smk"
include: "rules/speed.smk"
include: "rules/score.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        rules.report.output,
