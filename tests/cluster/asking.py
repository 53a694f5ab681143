"""Snakemake that asks Slurm once a second how its jobs are.

The plugin asks ten seconds later each time that no job has ended. No option changes that, and
where a job takes five seconds most of a run is waiting.
"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)

if __name__ == "__main__":
    main()
