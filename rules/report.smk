"""The resolved configuration and the report."""


# What `snakemake --report` shows; files of its own pages stand at the rule that makes them.
report: "captions/workflow.rst"


rule write_config:
    input:
        code=code("write_config.py"),
    output:
        "results/config.json",
    log:
        "results/logs/write_config.log",
    # First, as it says to later runs whose results these are.
    priority: 3
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        config=lambda wildcards: json.dumps(config, ensure_ascii=False),
    shell:
        "{PYTHON} {input.code[0]:q} --config {params.config:q} --output {output}"
        " 2>&1 | tee {log} >&2"


# Divisions of the reports by columns of a table, which eval.csv has not.
COLUMN_DIVISIONS = [d for d in SETTINGS.statistics.subgroups.values() if d.column]


rule subgroups:
    input:
        code=code("subgroups.py"),
        config="results/config.json",
        eval="results/data/eval.csv",
        tables=lambda wildcards: [
            *existing(*(division.table for division in COLUMN_DIVISIONS)),
            *local_corpus(wildcards),
        ],
    output:
        "results/data/subgroups.csv",
    log:
        "results/logs/subgroups.log",
    resources:
        mem_mb=memory(4000),
        runtime=30,
    shell:
        "{PYTHON} {input.code[0]:q} --config {input.config} --eval {input.eval}"
        " --output {output} 2>&1 | tee {log} >&2"


rule report:
    input:
        code=code("report.py"),
        config="results/config.json",
        readers="results/readers.json" if SETTINGS.study.readings else [],
        prompt=SETTINGS.generation.prompt,
        model=model_files("original"),
        data=expand(
            "results/data/{name}",
            name=[
                "raw.parquet",
                "train.csv",
                "eval.csv",
                "rejected.csv",
                "cleaning.json",
            ],
        ),
        calibration=(
            "results/calibration/set.json" if SETTINGS.calibrated_checkpoints else []
        ),
        checkpoints=[
            file for name in SETTINGS.used_checkpoints for file in model_files(name)
        ],
        verification=expand(
            "results/verification/{checkpoint}.json",
            checkpoint=SETTINGS.used_checkpoints,
        ),
        generations=[
            file
            for system in PRECISIONS + BASELINES
            for file in outputs_of(system, "generations", "parquet")
        ],
        measures=[
            file
            for precision in PRECISIONS
            for file in outputs_of(precision, "generations", "json")
        ],
        likelihood=expand(
            "results/likelihood/{precision}.{suffix}",
            precision=PRECISIONS,
            suffix=["parquet", "json"],
        ),
        features=[
            file.replace(".parquet", ".json")
            for name in ["original", *SETTINGS.used_checkpoints]
            for file in feature_files(name)
        ],
        speed=SPEED if TIMED else [],
        annotations=[
            "results/annotations/reference.jsonl",
            *[
                file
                for system in PRECISIONS + BASELINES
                for file in outputs_of(system, "annotations", "jsonl")
            ],
        ],
        subgroups="results/data/subgroups.csv" if COLUMN_DIVISIONS else [],
        scores=expand("results/scores/{system}.parquet", system=PRECISIONS + BASELINES),
        rulers=expand(
            "results/measures/{measure}/{system}.parquet",
            measure=MEASURED,
            system=PRECISIONS + BASELINES,
        ),
    output:
        report="results/report.md",
        html=report(
            "results/report.html",
            category="Report",
            labels={"page": "the whole report"},
            caption="captions/report.rst",
        ),
        summary="results/summary.json",
        provenance="results/provenance.json",
        reporting="results/reporting.md",
        tables=report(
            directory("results/tables"),
            patterns=["{table}.html"],
            category="Tables",
            labels={"table": "{table}"},
            caption="captions/tables.rst",
        ),
        figures=report(
            directory("results/figures"),
            patterns=["{figure}.svg"],
            category="Figures",
            labels={"figure": "{figure}"},
            caption="captions/figures.rst",
        ),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        readers=options(
            readers="results/readers.json" if SETTINGS.study.readings else None
        ),
    shell:
        "{PYTHON} {input.code[0]:q} --results results --config {input.config}"
        " {params.readers} --output {output.report} --html {output.html}"
        " --summary {output.summary} --provenance {output.provenance}"
        " --reporting {output.reporting} --figures {output.figures}"
        " --tables {output.tables}"
        " 2>&1 | tee {log} >&2"


# What people said of the outputs, where the configuration names their files.
rule readers:
    input:
        code=code("readers.py"),
        config="results/config.json",
        data="results/data/eval.csv",
        generations=[
            file
            for precision in PRECISIONS
            for file in outputs_of(precision, "generations", "parquet")
        ],
        readings=SETTINGS.study.readings,
    output:
        record="results/readers.json",
        page="results/readers.md",
    log:
        "results/logs/readers.log",
    resources:
        mem_mb=memory(4000),
        runtime=30,
    shell:
        "{PYTHON} {input.code[0]:q} --results results --config {input.config}"
        " --readings {input.readings:q} --output {output.record} --markdown {output.page}"
        " 2>&1 | tee {log} >&2"
