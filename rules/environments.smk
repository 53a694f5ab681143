"""Virtual environments for tools that need another stack than this package's own."""

from radquant.environments import lock_of as lock_beside


def lock_of(environment):
    """Return the lock of an environment as an input, where this machine can use it."""
    lock = lock_beside(REPOSITORY / "envs" / f"{environment}.txt")
    return [] if lock is None else str(lock)


rule build_env:
    input:
        code=code("build_env.py"),
        requirements=str(REPOSITORY / "envs" / "{environment}.txt"),
        lock=lambda wildcards: lock_of(wildcards.environment),
    output:
        "results/venvs/{environment}/ready.json",
    log:
        "results/logs/build_env/{environment}.log",
    resources:
        mem_mb=memory(4000),
        runtime=60,
    shell:
        # Without PYTHONPATH, which would show this package to the new environment's pip.
        "env -u PYTHONPATH {PYTHON} {input.code[0]:q} --requirements {input.requirements:q}"
        " --output results/venvs/{wildcards.environment} 2>&1 | tee {log} >&2"
