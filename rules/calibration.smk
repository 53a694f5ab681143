"""The texts on which AWQ looks at the original model's activations."""


rule calibration_set:
    input:
        code=code("calibration_set.py"),
        model=model_files("original"),
        train="results/data/train.csv",
        prompt=config["calibration"]["prompt"],
    output:
        samples="results/calibration/samples.parquet",
        record="results/calibration/set.json",
    log:
        "results/logs/calibration_set.log",
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        options=lambda wildcards: options(
            target=config["task"]["target"],
            samples=config["calibration"]["samples"],
            max_tokens=config["calibration"]["max_tokens"],
            seed=config["seed"],
            trust_remote_code=config["model"]["trust_remote_code"],
        ),
    shell:
        "{PYTHON} {input.code[0]:q} --model results/models/original --train {input.train}"
        " --prompt {input.prompt:q} {params.options} --output {output.samples}"
        " --record {output.record} 2>&1 | tee {log} >&2"
