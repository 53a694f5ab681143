"""The original model and the corpus: fetch, clean, split."""

DOWNLOADS = "results/downloads"


def existing(*paths):
    """Return those of `paths` that exist, as inputs whose change is noticed.

    One that is missing (credentialed data, planned on another machine) does not stop a dry run;
    the script that needs it says so.
    """
    return [path for path in paths if path and os.path.exists(path)]


def local_model(wildcards):
    model = SETTINGS.model
    if not model.path:
        return []
    return existing(
        *(f"{model.path}/{name}" for name in ["config.json", *model.weights])
    )


def local_corpus(wildcards):
    corpus = SETTINGS.corpus
    images = corpus.image_root if is_archive(corpus.image_root or "") else None
    return existing(
        *(corpus.path, corpus.train, corpus.eval, corpus.split_file),
        *(corpus.views_file, images),
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
        options=lambda wildcards: settings_for(stages.FETCH_MODEL),
        images=options(with_images=bool(SETTINGS.task.image_column)),
    shell:
        "{ONLINE} {PYTHON} {input.code[0]:q} {params.options} {params.images}"
        " --downloads {DOWNLOADS}"
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
        # The images where they come from; all other stages read them from where they then are.
        options=lambda wildcards: settings_for(
            stages.FETCH_CORPUS, corpus=SETTINGS.corpus
        ),
        images=options(
            images=(
                IMAGES.image_root
                if is_archive(SETTINGS.corpus.image_root or "")
                else None
            )
        ),
    shell:
        "{PYTHON} {input.code[0]:q} {params.options} {params.images} --downloads {DOWNLOADS}"
        " --output {output} 2>&1 | tee {log} >&2"


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
    benchmark:
        "results/benchmarks/clean.tsv"
    resources:
        mem_mb=memory(8000),
        runtime=60,
    params:
        options=lambda wildcards: settings_for(stages.CLEAN),
    shell:
        "{PYTHON} {input.code[0]:q} --raw {input.raw} {params.options} --train {output.train}"
        " --eval {output.eval} --rejected {output.rejected} --funnel {output.funnel}"
        " 2>&1 | tee {log} >&2"
