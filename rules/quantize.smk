"""Stored weights: one job for each checkpoint, however many precisions use it."""

from radquant.settings.recipe import needs_calibration, recipe_of

CALIBRATION = "results/calibration/samples.parquet"
CALIBRATION_RECORD = "results/calibration/set.json"


def checkpoints_of(*tools):
    return [name for name, it in config["checkpoints"].items() if it["tool"] in tools]


def recipe(wildcards):
    return config["checkpoints"][wildcards.checkpoint]


def calibrated(wildcards):
    return needs_calibration(recipe_of(recipe(wildcards)))


def quantize_options(wildcards):
    chosen = recipe(wildcards)
    return options(
        calibration=CALIBRATION if calibrated(wildcards) else None,
        calibration_record=CALIBRATION_RECORD if calibrated(wildcards) else None,
        method=chosen["method"],
        bits=chosen["bits"],
        group_size=chosen["group_size"],
        symmetric=not chosen["zero_point"],
        rounding=chosen["rounding"],
        no_clip=not chosen["clip"],
        desc_act=chosen["desc_act"],
        damp_percent=chosen["damp_percent"],
        progressive=chosen["progressive"],
        transform=chosen["transform"],
        smooth_attention=chosen["smooth_attention"],
        prefix=chosen["prefix"],
        activations=as_json(chosen["activations"]),
        format=chosen["format"],
        device=config["compute"]["device"],
        threads=config["compute"]["threads"],
        trust_remote_code=config["model"]["trust_remote_code"],
    )


def tool_options(wildcards):
    chosen, tool = recipe(wildcards), recipe(wildcards)["tool"]
    of_gptq = {name: chosen[name] for name in ("desc_act", "damp_percent")}
    return options(
        calibration_record=CALIBRATION_RECORD,
        bits=chosen["bits"],
        group_size=chosen["group_size"],
        symmetric=not chosen["zero_point"],
        **(of_gptq if tool == "gptqmodel" else {}),
        device=config["compute"]["device"],
        threads=config["compute"]["threads"],
        trust_remote_code=config["model"]["trust_remote_code"],
    )


rule quantize:
    input:
        code=code("quantize.py"),
        model=model_files("original"),
        calibration=lambda wildcards: (
            [CALIBRATION, CALIBRATION_RECORD] if calibrated(wildcards) else []
        ),
    output:
        model_files("{checkpoint}"),
    log:
        "results/logs/quantize/{checkpoint}.log",
    wildcard_constraints:
        checkpoint=one_of(checkpoints_of("radquant")),
    threads: config["compute"]["threads"]
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


rule quantize_with_tool:
    input:
        code=lambda wildcards: code(f"quantize_{recipe(wildcards)['tool']}.py"),
        model=model_files("original"),
        calibration=[CALIBRATION, CALIBRATION_RECORD],
        environment=lambda wildcards: (
            f"results/venvs/{recipe(wildcards)['tool']}/ready.json"
        ),
    output:
        model_files("{checkpoint}"),
    log:
        "results/logs/quantize/{checkpoint}.log",
    wildcard_constraints:
        checkpoint=one_of(checkpoints_of("autoawq", "gptqmodel")),
    threads: config["compute"]["threads"]
    resources:
        mem_mb=memory(16000),
        runtime=480,
        gpu=GPUS,
    params:
        tool=lambda wildcards: recipe(wildcards)["tool"],
        options=tool_options,
    shell:
        "results/venvs/{params.tool}/bin/python {input.code[0]:q} --model results/models/original"
        " --calibration {input.calibration[0]} {params.options}"
        " --output results/checkpoints/{wildcards.checkpoint} 2>&1 | tee {log} >&2"
