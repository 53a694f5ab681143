"""Entities and relations of references and outputs, and the scores made from them."""

from radquant import registry

ANNOTATOR = registry.load_kind(registry.ANNOTATORS, SETTINGS.scoring.annotator)


def annotator_options(wildcards):
    if ANNOTATOR.QUICK:
        return settings_for(stages.ANNOTATE_QUICKLY)
    # No output of a rule: jobs share it as they go, and it changes only how long they take.
    cache = options(cache="results/annotations/cache")
    return f"{settings_for(stages.ANNOTATE_OUTPUTS)} {cache}"


ANNOTATE = PYTHON
ANNOTATOR_ENVIRONMENT = []
if ANNOTATOR.ENVIRONMENT:
    ANNOTATE = f"results/venvs/{ANNOTATOR.ENVIRONMENT}/bin/python"
    ANNOTATOR_ENVIRONMENT = [f"results/venvs/{ANNOTATOR.ENVIRONMENT}/ready.json"]
if ANNOTATOR.online(SETTINGS.scoring.own()):
    ANNOTATE = f"{ONLINE} {ANNOTATE}"
if ANNOTATOR.QUICK:

    # Thousands of reports a second: shorter than a place in a cluster's queue.
    localrules:
        annotate,
        annotate_reference,


rule annotate_reference:
    input:
        code=code("annotate.py"),
        texts="results/data/eval.csv",
        environment=ANNOTATOR_ENVIRONMENT,
    output:
        "results/annotations/reference.jsonl",
    log:
        "results/logs/annotate/reference.log",
    # Before what takes hours: reports of another language are refused here.
    priority: 2
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=120,
    params:
        options=annotator_options,
        language=settings_for(stages.LANGUAGE),
        column=SETTINGS.task.target,
    shell:
        "{ANNOTATE} {input.code[0]:q} {params.options} {params.language}"
        " --texts {input.texts} --column {params.column} --output {output} 2>&1 | tee {log} >&2"


rule annotate:
    input:
        code=code("annotate.py")[:1],
        texts="results/generations/{system}/{part}.parquet",
        environment=ANNOTATOR_ENVIRONMENT,
    output:
        "results/annotations/{system}/{part}.jsonl",
    log:
        "results/logs/annotate/{system}/{part}.log",
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=120,
    params:
        code=code_hash("annotate.py"),
        options=annotator_options,
    shell:
        "{ANNOTATE} {input.code[0]:q} {params.options} --language any"
        " --texts {input.texts} --column output --output {output} 2>&1 | tee {log} >&2"


# Rulers that need data or a model of their own, where the configuration says where these are.
MEASURES = {
    name: registry.load_kind(registry.MEASURES, name) for name in registry.MEASURES
}
MEASURED = [
    name
    for name, kind in MEASURES.items()
    if kind.on(getattr(SETTINGS.scoring, name).model_dump())
]


def measure_python(wildcards):
    environment = MEASURES[wildcards.measure].ENVIRONMENT
    python = f"results/venvs/{environment}/bin/python" if environment else PYTHON
    # A measure takes a GPU that it sees.
    hidden = "CUDA_VISIBLE_DEVICES= " if SETTINGS.compute.device == "cpu" else ""
    return hidden + python


def measure_environment(wildcards):
    environment = MEASURES[wildcards.measure].ENVIRONMENT
    return [f"results/venvs/{environment}/ready.json"] if environment else []


def needs_model(wildcards):
    """Whether a trained model of up to 7 billion weights may be loaded."""
    return bool(MEASURES[wildcards.measure].ENVIRONMENT)


rule measure:
    input:
        code=code("measure.py"),
        eval="results/data/eval.csv",
        generations=lambda wildcards: outputs_of(
            wildcards.system, "generations", "parquet"
        ),
        environment=measure_environment,
    output:
        "results/measures/{measure}/{system}.parquet",
    log:
        "results/logs/measure/{measure}/{system}.log",
    wildcard_constraints:
        measure=one_of(MEASURED),
    threads: THREADS
    resources:
        mem_mb=lambda wildcards, attempt: (32000 if needs_model(wildcards) else 8000)
        * attempt,
        runtime=lambda wildcards: 600 if needs_model(wildcards) else 120,
        gpu=lambda wildcards: GPUS if needs_model(wildcards) else 0,
    params:
        python=measure_python,
        options=lambda wildcards: settings_for(stages.MEASURE_BY[wildcards.measure]),
        generations=lambda wildcards: pattern_of(
            wildcards.system, "generations", "parquet"
        ),
    shell:
        "{params.python} {input.code[0]:q} --measure {wildcards.measure}"
        " --eval {input.eval} {params.options} --generations {params.generations}"
        " --output {output} 2>&1 | tee {log} >&2"


rule score:
    input:
        code=code("score.py"),
        eval="results/data/eval.csv",
        reference="results/annotations/reference.jsonl",
        generations=lambda wildcards: outputs_of(
            wildcards.system, "generations", "parquet"
        ),
        annotations=lambda wildcards: outputs_of(
            wildcards.system, "annotations", "jsonl"
        ),
        original=outputs_of("original", "generations", "parquet"),
        original_annotations=outputs_of("original", "annotations", "jsonl"),
        prompt=SETTINGS.generation.prompt,
    output:
        "results/scores/{system}.parquet",
    log:
        "results/logs/score/{system}.log",
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        options=lambda wildcards: settings_for(stages.SCORE),
        generations=lambda wildcards: pattern_of(
            wildcards.system, "generations", "parquet"
        ),
        annotations=lambda wildcards: pattern_of(
            wildcards.system, "annotations", "jsonl"
        ),
        original=pattern_of("original", "generations", "parquet"),
        original_annotations=pattern_of("original", "annotations", "jsonl"),
        images=options(with_images=bool(SETTINGS.task.image_column)),
    shell:
        "{PYTHON} {input.code[0]:q} --system {wildcards.system} --eval {input.eval}"
        " {params.options} {params.images} --reference {input.reference}"
        " --generations {params.generations} --annotations {params.annotations}"
        " --original-generations {params.original}"
        " --original-annotations {params.original_annotations} --prompt {input.prompt:q}"
        " --output {output} 2>&1 | tee {log} >&2"
