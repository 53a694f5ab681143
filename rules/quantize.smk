"""Stored weights: one job for each checkpoint, however many precisions use it."""

CALIBRATION = "results/calibration/samples.parquet"


def recipe(wildcards):
    return config["checkpoints"][wildcards.checkpoint]


def needs_calibration(wildcards):
    return recipe(wildcards)["method"] == "awq"


def quantize_options(wildcards):
    chosen = recipe(wildcards)
    return options(
        calibration=CALIBRATION if needs_calibration(wildcards) else None,
        method=chosen["method"],
        bits=chosen["bits"],
        group_size=chosen["group_size"],
        symmetric=not chosen["zero_point"],
        device=config["compute"]["device"],
        threads=config["compute"]["threads"],
        trust_remote_code=config["model"]["trust_remote_code"],
    )


rule quantize:
    input:
        code=code("quantize.py"),
        model=model_files("original"),
        calibration=lambda wildcards: (
            [CALIBRATION] if needs_calibration(wildcards) else []
        ),
    output:
        model_files("{checkpoint}"),
    log:
        "results/logs/quantize/{checkpoint}.log",
    threads: config["compute"]["threads"]
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        options=quantize_options,
    shell:
        "{PYTHON} {input.code[0]:q} --model results/models/original {params.options}"
        " --output results/checkpoints/{wildcards.checkpoint} 2>&1 | tee {log} >&2"
