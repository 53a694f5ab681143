"""The texts on which quantization looks at the original model's activations."""

FETCHED_TEXTS = "results/calibration/texts"
SHOWN_SAMPLES = "results/calibration/images.csv"


def calibration_source():
    """Return (input files, command-line options) for where the texts come from."""
    table, hub = SETTINGS.calibration.table, SETTINGS.calibration.hub
    evaluation = "results/data/eval.csv"
    if table:
        named = dict(texts=table.path, column=table.column, eval=evaluation)
        return [*existing(table.path), evaluation], named
    if hub:
        files = [f"{FETCHED_TEXTS}/{hub.file}", f"{FETCHED_TEXTS}.json"]
        named = dict(texts=files[0], origin=files[1], column=hub.column)
        return [*files, evaluation], {**named, "eval": evaluation}
    train, prompt = "results/data/train.csv", SETTINGS.calibration.prompt
    return [train, prompt], dict(train=train, prompt=prompt)


if SETTINGS.calibration.hub:

    localrules:
        fetch_texts,

    rule fetch_texts:
        input:
            code=code("fetch_texts.py"),
        output:
            texts=f"{FETCHED_TEXTS}/{SETTINGS.calibration.hub.file}",
            record=f"{FETCHED_TEXTS}.json",
        log:
            "results/logs/fetch_texts.log",
        resources:
            mem_mb=memory(1000),
            runtime=60,
        params:
            options=lambda wildcards: settings_for(
                stages.FETCH_TEXTS, texts=SETTINGS.calibration.hub
            ),
        shell:
            "{ONLINE} {PYTHON} {input.code[0]:q} {params.options} --output {output.texts:q}"
            " --record {output.record} 2>&1 | tee {log} >&2"


rule calibration_set:
    input:
        code=code("calibration_set.py"),
        model=model_files("original"),
        texts=calibration_source()[0],
    output:
        **({"images": SHOWN_SAMPLES} if SETTINGS.calibration_images else {}),
        samples="results/calibration/samples.parquet",
        record="results/calibration/set.json",
    log:
        "results/logs/calibration_set.log",
    benchmark:
        "results/benchmarks/calibration_set.tsv"
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        versions=versions(),
        source=lambda wildcards: options(
            **calibration_source()[1], with_images=bool(SETTINGS.task.image_column)
        ),
        options=lambda wildcards: settings_for(
            stages.CALIBRATION_SET,
            corpus=(
                IMAGES
                if SETTINGS.calibration_images
                else IMAGES.model_copy(update={"image_root": None})
            ),
        ),
        images=options(
            images_output=SHOWN_SAMPLES if SETTINGS.calibration_images else None
        ),
    shell:
        "{PYTHON} {input.code[0]:q} --model results/models/original {params.source}"
        " {params.options} {params.images} --output {output.samples} --record {output.record}"
        " 2>&1 | tee {log} >&2"
