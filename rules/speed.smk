"""How fast each precision is, all timed in one job."""

# vLLM loads the model for every call: no speed is measured there.
TIMED = bool(SETTINGS.speed.repeats) and engines.timed(SETTINGS.compute.engine)
SPEED = "results/speed.json"
# All cores that there are, so that no other job of the run is beside it; the model has compute.threads
# of them. A cluster gives what is asked for, and docs/cluster.md says how to keep others away.
UNDISTURBED = workflow.resource_settings.cores or THREADS


# The one engine of its own environment that is timed beside ours; None if no precision names it.
OTHER_ENGINE = next(
    (each.engine for each in SETTINGS.precisions.values() if each.engine), None
)
OTHER_PYTHON = OTHER_ENGINE and environment_of(OTHER_ENGINE)


def timed_precisions():
    """Return the options that name the precisions, their models and what they round."""
    found = []
    for name, precision in SETTINGS.precisions.items():
        found.append(options(timed=f"{name}={model_directory(precision.checkpoint)}"))
        if WITH_IMAGES:
            seen = features_directory(precision.checkpoint)
            found.append(options(features=f"{name}={seen}"))
        rounded = precision.model_dump(mode="json", exclude={"checkpoint"})
        rounded = {key: value for key, value in rounded.items() if value is not None}
        if rounded:
            found.append(
                options(rounding=f"{name}={json.dumps(rounded, sort_keys=True)}")
            )
    return " ".join([*found, options(engine_python=OTHER_PYTHON)])


rule measure_speed:
    input:
        code=code("measure_speed.py"),
        environment=ready(OTHER_PYTHON),
        checked=CHECKED_PROMPTS,
        verified=[
            ancient(f"results/verification/{name}.json")
            for name in SETTINGS.used_checkpoints
        ],
        models=[
            file
            for name in ["original", *SETTINGS.used_checkpoints]
            for file in model_files(name)
        ],
        features=[
            file
            for name in ["original", *SETTINGS.used_checkpoints]
            for file in feature_files(name)
        ],
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=SETTINGS.generation.prompt,
    output:
        SPEED,
    log:
        "results/logs/measure_speed.log",
    threads: max(UNDISTURBED, THREADS)
    resources:
        mem_mb=memory(8000),
        runtime=240,
        gpu=GPUS,
    params:
        versions=versions(),
        other_code=OTHER_ENGINE and code_hash("measure_speed.py", OTHER_ENGINE),
        engine_code=OTHER_ENGINE and engine_code(OTHER_ENGINE),
        precisions=timed_precisions(),
        options=lambda wildcards: settings_for(stages.MEASURE_SPEED),
    shell:
        "export OMP_NUM_THREADS={THREADS}; {PYTHON} {input.code[0]:q} {params.precisions}"
        " --train {input.train} --eval {input.eval} --prompt {input.prompt:q} {params.options}"
        " --output {output} 2>&1 | tee {log} >&2"
