"""Stored weights: one job for each checkpoint, however many precisions use it."""

from radquant.settings.checkpoint import OWN
from radquant.settings.given import has_recipe
from radquant.settings.recipe import needs_calibration

CALIBRATION = "results/calibration/samples.parquet"
CALIBRATION_RECORD = "results/calibration/set.json"
WEIGHTS, GGUF_WEIGHTS = ("model.safetensors",), ("model.gguf",)


def checkpoints_of(*tools):
    return [
        name
        for name, it in SETTINGS.checkpoints.items()
        if has_recipe(it) and it.tool in tools
    ]


def own_checkpoints(weights):
    """Return those that this program makes, with these weight files."""
    return [
        name
        for name in checkpoints_of(OWN)
        if SETTINGS.checkpoints[name].weight_files == weights
    ]


def recipe(wildcards):
    return SETTINGS.checkpoints[wildcards.checkpoint]


def calibration_files(wildcards):
    if not needs_calibration(recipe(wildcards)):
        return []
    shown = (
        feature_files("original", "calibration") if SETTINGS.calibration_images else []
    )
    return [CALIBRATION, CALIBRATION_RECORD, *shown]


def quantize_options(wildcards):
    calibrated = bool(calibration_files(wildcards))
    texts = options(
        calibration=CALIBRATION if calibrated else None,
        calibration_record=CALIBRATION_RECORD if calibrated else None,
        features=(
            features_directory("original", "calibration")
            if calibrated and SETTINGS.calibration_images
            else None
        ),
    )
    return f"{texts} {settings_for(stages.QUANTIZE, checkpoint=recipe(wildcards))}"


def tool_options(wildcards):
    parts = stages.QUANTIZE_WITH[recipe(wildcards).tool]
    return settings_for(parts, checkpoint=recipe(wildcards))


rule check_model:
    input:
        code=code("check_model.py"),
        model=model_files("original"),
    output:
        CHECKED,
    log:
        "results/logs/check_model.log",
    benchmark:
        "results/benchmarks/check_model.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=60,
        gpu=GPUS,
    params:
        versions=versions(),
        options=lambda wildcards: settings_for(stages.CHECK_MODEL),
    shell:
        "{PYTHON} {input.code[0]:q} --model results/models/original {params.options}"
        " --output {output} 2>&1 | tee {log} >&2"


rule quantize:
    input:
        code=code("quantize.py"),
        checked=CHECKED,
        model=model_files("original"),
        calibration=calibration_files,
    output:
        model_files("{checkpoint}", WEIGHTS),
    log:
        "results/logs/quantize/{checkpoint}.log",
    benchmark:
        "results/benchmarks/quantize/{checkpoint}.tsv"
    wildcard_constraints:
        checkpoint=one_of(own_checkpoints(WEIGHTS)),
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=240,
        gpu=GPUS,
    params:
        versions=versions(),
        options=quantize_options,
    shell:
        "{PYTHON} {input.code[0]:q} --model results/models/original {params.options}"
        " --output results/checkpoints/{wildcards.checkpoint} 2>&1 | tee {log} >&2"


use rule quantize as quantize_to_gguf with:
    output:
        model_files("{checkpoint}", GGUF_WEIGHTS),
    wildcard_constraints:
        checkpoint=one_of(own_checkpoints(GGUF_WEIGHTS)),


rule quantize_with_tool:
    input:
        code=lambda wildcards: code(f"quantize_{recipe(wildcards).tool}.py"),
        checked=CHECKED,
        model=model_files("original"),
        calibration=[CALIBRATION, CALIBRATION_RECORD],
        environment=lambda wildcards: (
            f"results/venvs/{recipe(wildcards).tool}/ready.json"
        ),
    output:
        model_files("{checkpoint}", WEIGHTS),
    log:
        "results/logs/quantize/{checkpoint}.log",
    benchmark:
        "results/benchmarks/quantize/{checkpoint}.tsv"
    wildcard_constraints:
        checkpoint=one_of(checkpoints_of(*stages.QUANTIZE_WITH)),
    threads: THREADS
    resources:
        mem_mb=memory(16000),
        runtime=480,
        gpu=GPUS,
    params:
        tool=lambda wildcards: recipe(wildcards).tool,
        options=tool_options,
    shell:
        "results/venvs/{params.tool}/bin/python {input.code[0]:q} --model results/models/original"
        " --calibration {input.calibration[0]} --calibration-record {input.calibration[1]}"
        " {params.options}"
        " --output results/checkpoints/{wildcards.checkpoint} 2>&1 | tee {log} >&2"


def given_files(checkpoint):
    """Return the files of a checkpoint that lies on this machine."""
    path = checkpoint.path
    if not path or checkpoint.is_gguf:
        return existing(path)
    names = ["config.json", *checkpoint.weights]
    return existing(*(f"{path}/{name}" for name in names))


# Each in a rule of its own: their weight files have names of their own.
for GIVEN in [n for n, it in SETTINGS.checkpoints.items() if isinstance(it, Given)]:

    rule:
        name:
            f"take_{GIVEN}"
        input:
            code=code("take_checkpoint.py"),
            original=model_files("original"),
            given=given_files(SETTINGS.checkpoints[GIVEN]),
        output:
            model_files(GIVEN),
        log:
            f"results/logs/take/{GIVEN}.log",
        localrule: True
        resources:
            mem_mb=memory(4000),
            runtime=60,
        params:
            directory=model_directory(GIVEN),
            options=settings_for(
                stages.TAKE_CHECKPOINT, given=SETTINGS.checkpoints[GIVEN]
            ),
        shell:
            "{ONLINE} {PYTHON} {input.code[0]:q} --original results/models/original"
            " {params.options} --downloads {DOWNLOADS} --output {params.directory}"
            " 2>&1 | tee {log} >&2"


# llama.cpp's own quantizer, of the original as plain GGUF. It runs in an environment of its own; what
# goes in and what comes out is read here.
for GIVEN in [
    n for n, it in SETTINGS.checkpoints.items() if isinstance(it, ByLlamaCpp)
]:

    rule:
        name:
            f"quantize_{GIVEN}_with_llama_cpp"
        input:
            code=code("quantize_llama_cpp.py"),
            checked=CHECKED,
            model=model_files("original"),
            calibration=(
                [CALIBRATION, CALIBRATION_RECORD]
                if SETTINGS.checkpoints[GIVEN].importance
                else []
            ),
            environment="results/venvs/llama-cpp/ready.json",
        output:
            model_files(GIVEN),
        log:
            f"results/logs/quantize/{GIVEN}.log",
        benchmark:
            f"results/benchmarks/quantize/{GIVEN}.tsv"
        threads: THREADS
        resources:
            mem_mb=memory(8000),
            runtime=240,
        params:
            directory=model_directory(GIVEN),
            versions=versions(),
            options=options(
                calibration=SETTINGS.checkpoints[GIVEN].importance and CALIBRATION,
                calibration_record=SETTINGS.checkpoints[GIVEN].importance
                and CALIBRATION_RECORD,
            )
            + " "
            + settings_for(
                stages.QUANTIZE_LLAMA_CPP, checkpoint=SETTINGS.checkpoints[GIVEN]
            ),
        shell:
            "{PYTHON} {input.code[0]:q} --model results/models/original {params.options}"
            " --tool-python results/venvs/llama-cpp/bin/python --output {params.directory}"
            " 2>&1 | tee {log} >&2"


rule verify_checkpoint:
    input:
        code=code("verify_checkpoint.py"),
        original=model_files("original"),
        checkpoint=lambda wildcards: model_files(wildcards.checkpoint),
    output:
        "results/verification/{checkpoint}.json",
    log:
        "results/logs/verify/{checkpoint}.log",
    benchmark:
        "results/benchmarks/verify/{checkpoint}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(8000),
        runtime=120,
    params:
        versions=versions(),
        options=options(
            threads=THREADS, trust_remote_code=SETTINGS.model.trust_remote_code
        ),
    shell:
        "{PYTHON} {input.code[0]:q} results/checkpoints/{wildcards.checkpoint}"
        " --original results/models/original {params.options} --output {output}"
        " 2>&1 | tee {log} >&2"
