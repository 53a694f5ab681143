"""What each precision writes, and how likely it finds the references."""

from radquant.settings import engines


def own_engine(wildcards):
    """Return the engine that a precision names itself; None for the run's."""
    return SETTINGS.precisions[wildcards.precision].engine


def engine_of(precision):
    """Return the name of the engine that computes a precision."""
    return SETTINGS.precisions[precision].engine or SETTINGS.compute.engine


def environment_of(engine):
    """Return the Python of an engine that runs in an environment of its own; None for others."""
    name = engines.environment(engine, SETTINGS.compute.device)
    return name and f"results/venvs/{name}/bin/python"


def ready(python):
    """Return the file that says that an environment is there, as a rule's input."""
    return f"{Path(python).parents[1]}/ready.json" if python else []


def engine_code(engine):
    """Return the hash of the code that runs in an engine's own environment; None without one."""
    if environment_of(engine) is None:
        return None
    return code_hash(f"generate_{engine.replace('.', '_')}.py")


# Precisions whose references are scored by the job that writes: it has loaded the model and read the
# prompts. The likelihood is of all reports, so all have to be written.
TOGETHER = [
    precision
    for precision in PRECISIONS
    if SETTINGS.generation.reports is None
    and engines.scores_beside(engine_of(precision), SETTINGS.compute.device)
]
ALONE = [precision for precision in PRECISIONS if precision not in TOGETHER]


def prompting_options(name, parts, engine, **own):
    """Return the options of a stage that lets a precision's model read prompts."""
    precision = SETTINGS.precisions[name]
    compute = SETTINGS.compute.model_copy(update={"engine": engine})
    model = options(precision=name, model=model_directory(precision.checkpoint))
    python = options(engine_python=environment_of(engine))
    stated = settings_for(parts, precision=precision, compute=compute, **own)
    images = features_option(precision.checkpoint)
    return f"{model} {stated} {images} {python}"


def features_for(wildcards):
    """Return the files of the features that a precision reads."""
    return feature_files(checkpoint_of(wildcards))


@functools.cache
def writing_options(precision):
    """Return the options of `generate` that all shards have, of which there may be thousands."""
    return prompting_options(precision, stages.GENERATE, engine_of(precision))


def generate_options(wildcards):
    own = options(shard=wildcards.scatteritem.partition("-of-")[0])
    return f"{writing_options(wildcards.precision)} {own}"


# Where an engine does not say how likely it finds a text, another scores its references.
SCORING = SETTINGS.compute.model_copy(
    update={"engine": engines.scoring(SETTINGS.compute.engine)}
)


def scoring_of(precision):
    """Return the name of the engine that scores the references of a precision."""
    return engines.scoring(engine_of(precision))


def likelihood_options(wildcards):
    precision = wildcards.precision
    return prompting_options(precision, stages.LIKELIHOOD, scoring_of(precision))


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
        environment=lambda wildcards: ready(
            environment_of(engine_of(wildcards.precision))
        ),
        checked=CHECKED_PROMPTS,
        model=lambda wildcards: model_files(checkpoint_of(wildcards)),
        verified=verified,
        features=features_for,
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=SETTINGS.generation.prompt,
    output:
        table="results/generations/{precision}/shard-{scatteritem}.parquet",
        metrics="results/generations/{precision}/shard-{scatteritem}.json",
        likelihood="results/generations/{precision}/likelihood-{scatteritem}.parquet",
        scoring="results/generations/{precision}/likelihood-{scatteritem}.json",
    log:
        "results/logs/generate/{precision}/shard-{scatteritem}.log",
    wildcard_constraints:
        precision=one_of(TOGETHER),
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=240,
        gpu=GPUS,
    params:
        code=lambda wildcards: code_hash("generate.py", own_engine(wildcards)),
        versions=versions(),
        engine_code=lambda wildcards: engine_code(engine_of(wildcards.precision)),
        options=generate_options,
        scoring=lambda wildcards, output: options(
            likelihood=output.likelihood, likelihood_metrics=output.scoring
        ),
    shell:
        "{PYTHON} {input.code[0]:q} --train {input.train} --eval {input.eval}"
        " --prompt {input.prompt:q} {params.options} --output {output.table}"
        " --metrics {output.metrics} {params.scoring} 2>&1 | tee {log} >&2"


use rule generate as generate_only with:
    output:
        table="results/generations/{precision}/shard-{scatteritem}.parquet",
        metrics="results/generations/{precision}/shard-{scatteritem}.json",
    wildcard_constraints:
        precision=one_of(ALONE),
    params:
        code=lambda wildcards: code_hash("generate.py", own_engine(wildcards)),
        versions=versions(),
        engine_code=lambda wildcards: engine_code(engine_of(wildcards.precision)),
        options=generate_options,
        scoring="",


rule likelihood:
    input:
        code=code("join_likelihood.py"),
        eval="results/data/eval.csv",
        shards=gather.shard(
            "results/generations/{{precision}}/likelihood-{scatteritem}.parquet"
        ),
        records=gather.shard(
            "results/generations/{{precision}}/likelihood-{scatteritem}.json"
        ),
    output:
        table="results/likelihood/{precision}.parquet",
        metrics="results/likelihood/{precision}.json",
    log:
        "results/logs/likelihood/{precision}.log",
    wildcard_constraints:
        precision=one_of(TOGETHER),
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        # Not written out, as in `pattern_of`.
        shards=f"likelihood-*-of-{SETTINGS.generation.shards}.parquet",
    shell:
        "{PYTHON} {input.code[0]:q} --eval {input.eval} --output {output.table}"
        " --metrics {output.metrics} --shards results/generations/{wildcards.precision}/{params.shards}"
        " 2>&1 | tee {log} >&2"


rule likelihood_only:
    input:
        code=lambda wildcards: code("likelihood.py", own_engine(wildcards)),
        environment=lambda wildcards: ready(
            environment_of(scoring_of(wildcards.precision))
        ),
        checked=CHECKED_PROMPTS,
        model=lambda wildcards: model_files(checkpoint_of(wildcards)),
        verified=verified,
        features=features_for,
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=SETTINGS.generation.prompt,
    output:
        table="results/likelihood/{precision}.parquet",
        metrics="results/likelihood/{precision}.json",
    log:
        "results/logs/likelihood/{precision}.log",
    wildcard_constraints:
        precision=one_of(ALONE),
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=120,
        gpu=GPUS,
    params:
        versions=versions(),
        engine_code=lambda wildcards: engine_code(scoring_of(wildcards.precision)),
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
        nearest="results/generations/nearest/all.parquet",
    log:
        "results/logs/baselines.log",
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        options=lambda wildcards: settings_for(stages.BASELINES),
    shell:
        "{PYTHON} {input.code[0]:q} --train {input.train} --eval {input.eval} {params.options}"
        " --copy-output {output.copied} --constant-output {output.constant}"
        " --nearest-output {output.nearest} 2>&1 | tee {log} >&2"
