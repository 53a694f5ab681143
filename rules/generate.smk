"""What each precision writes, and how likely it finds the references."""

from radquant.settings import engines

# The environment of an engine that runs in one of its own.
ENGINE = engines.environment(SETTINGS.compute.engine, SETTINGS.compute.device)


def prompting_options(wildcards, parts, **own):
    """Return the options of a stage that lets a precision's model read prompts."""
    precision = SETTINGS.precisions[wildcards.precision]
    model = options(
        precision=wildcards.precision, model=model_directory(precision.checkpoint)
    )
    return f"{model} {settings_for(parts, precision=precision, **own)}"


def generate_options(wildcards):
    own = options(
        shard=wildcards.scatteritem.partition("-of-")[0],
        engine_python=ENGINE and f"results/venvs/{ENGINE}/bin/python",
    )
    return f"{prompting_options(wildcards, stages.GENERATE)} {own}"


# Where an engine does not say how likely it finds a text, another scores its references.
SCORING = SETTINGS.compute.model_copy(
    update={"engine": engines.scoring(SETTINGS.compute.engine)}
)


def likelihood_options(wildcards):
    return prompting_options(wildcards, stages.LIKELIHOOD, compute=SCORING)


rule check_prompts:
    input:
        code=code("check_prompts.py"),
        compared=CHECKED if SETTINGS.used_checkpoints else [],
        model=model_files("original"),
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=SETTINGS.generation.prompt,
    output:
        CHECKED_PROMPTS,
    log:
        "results/logs/check_prompts.log",
    # Before what takes hours, where there is a choice.
    priority: 1
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=60,
        gpu=GPUS,
    params:
        versions=versions(),
        options=lambda wildcards, input: (
            options(compared=input.compared or None)
            + " "
            + settings_for(stages.CHECK_PROMPTS, compute=SCORING)
        ),
    shell:
        "{PYTHON} {input.code[0]:q} --model results/models/original --train {input.train}"
        " --eval {input.eval} --prompt {input.prompt:q} {params.options} --output {output}"
        " 2>&1 | tee {log} >&2"


rule generate:
    input:
        code=code("generate.py")[:1],
        environment=f"results/venvs/{ENGINE}/ready.json" if ENGINE else [],
        checked=CHECKED_PROMPTS,
        model=lambda wildcards: model_files(checkpoint_of(wildcards)),
        verified=verified,
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=SETTINGS.generation.prompt,
    output:
        table="results/generations/{precision}/shard-{scatteritem}.parquet",
        metrics="results/generations/{precision}/shard-{scatteritem}.json",
    log:
        "results/logs/generate/{precision}/shard-{scatteritem}.log",
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=240,
        gpu=GPUS,
    params:
        code=code_hash("generate.py"),
        versions=versions(),
        engine_code=(
            code_hash(f"generate_{SETTINGS.compute.engine}.py") if ENGINE else None
        ),
        options=generate_options,
    shell:
        "{PYTHON} {input.code[0]:q} --train {input.train} --eval {input.eval}"
        " --prompt {input.prompt:q} {params.options} --output {output.table}"
        " --metrics {output.metrics} 2>&1 | tee {log} >&2"


rule likelihood:
    input:
        code=code("likelihood.py"),
        checked=CHECKED_PROMPTS,
        model=lambda wildcards: model_files(checkpoint_of(wildcards)),
        verified=verified,
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=SETTINGS.generation.prompt,
    output:
        table="results/likelihood/{precision}.parquet",
        metrics="results/likelihood/{precision}.json",
    log:
        "results/logs/likelihood/{precision}.log",
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=120,
        gpu=GPUS,
    params:
        versions=versions(),
        options=likelihood_options,
    shell:
        "{PYTHON} {input.code[0]:q} --train {input.train} --eval {input.eval}"
        " --prompt {input.prompt:q} {params.options} --output {output.table}"
        " --metrics {output.metrics} 2>&1 | tee {log} >&2"


rule baselines:
    input:
        code=code("baselines.py"),
        train="results/data/train.csv",
        eval="results/data/eval.csv",
    output:
        copied="results/generations/copy-input/all.parquet",
        constant="results/generations/constant/all.parquet",
    log:
        "results/logs/baselines.log",
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        options=lambda wildcards: settings_for(stages.BASELINES),
    shell:
        "{PYTHON} {input.code[0]:q} --train {input.train} --eval {input.eval} {params.options}"
        " --copy-output {output.copied} --constant-output {output.constant} 2>&1 | tee {log} >&2"
