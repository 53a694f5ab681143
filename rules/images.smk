"""Images, encoded once: what the language model of every precision reads in their place."""

from radquant.image_digest import images_digest

WITH_IMAGES = SETTINGS.task.image_column is not None
# Reports by what their images are for, tables with the columns id and images.
SHOWN_REPORTS = {"evaluation": "results/data/eval.csv"}
if SETTINGS.calibration_images:
    SHOWN_REPORTS["calibration"] = "results/calibration/images.csv"
ENCODERS = {
    run.encoder_of(SETTINGS, name) for name in ["original", *SETTINGS.checkpoints]
}


def features_directory(checkpoint, purpose="evaluation"):
    return f"results/features/{run.encoder_of(SETTINGS, checkpoint)}/{purpose}"


def feature_files(checkpoint, purpose="evaluation"):
    """Return the files that stand for the features that a checkpoint reads; none without images."""
    if not WITH_IMAGES:
        return []
    count = SETTINGS.images.shards
    directory = features_directory(checkpoint, purpose)
    return [f"{directory}/shard-{i}-of-{count}.parquet" for i in range(1, count + 1)]


def features_option(checkpoint, purpose="evaluation"):
    """Return the option that names them."""
    directory = features_directory(checkpoint, purpose)
    return options(features=directory if WITH_IMAGES else None)


def encode_options(wildcards):
    model = options(model=model_directory(wildcards.encoder), shard=wildcards.shard)
    return f"{model} {settings_for(stages.ENCODE_IMAGES)}"


if WITH_IMAGES:

    # Image files are no inputs, see `radquant.image_digest`; their contents are a parameter.
    def images_of(wildcards):
        kept = Path(f"results/features/.{wildcards.purpose}.images.json")
        reports = Path(SHOWN_REPORTS[wildcards.purpose])
        return images_digest(reports, Path(IMAGES.image_root), kept)

    rule encode_images:
        input:
            code=code("encode_images.py"),
            reports=lambda wildcards: SHOWN_REPORTS[wildcards.purpose],
            model=lambda wildcards: model_files(wildcards.encoder),
            # What both have in common is then encoded already. Not ancient, nor is any other input:
            # where a job before it reruns, Snakemake does not look at the parameters of this one.
            first=lambda wildcards: (
                []
                if wildcards.encoder == "original"
                else feature_files("original", wildcards.purpose)
            ),
        output:
            table="results/features/{encoder}/{purpose}/shard-{shard}-of-{shards}.parquet",
            metrics="results/features/{encoder}/{purpose}/shard-{shard}-of-{shards}.json",
        log:
            "results/logs/encode_images/{encoder}/{purpose}/shard-{shard}-of-{shards}.log",
        wildcard_constraints:
            encoder=one_of(ENCODERS),
            purpose=one_of(SHOWN_REPORTS),
            shard=r"\d+",
            shards=str(SETTINGS.images.shards),
        threads: THREADS
        resources:
            mem_mb=memory(8000),
            runtime=240,
            gpu=GPUS,
        params:
            versions=versions(),
            images=images_of,
            options=encode_options,
        shell:
            "{PYTHON} {input.code[0]:q} --reports {input.reports} {params.options}"
            " --store results/features/store --output {output.table}"
            " --metrics {output.metrics} 2>&1 | tee {log} >&2"
