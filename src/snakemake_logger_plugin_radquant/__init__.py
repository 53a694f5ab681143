"""What Snakemake shows of a run (`logger: radquant` in the profiles). It finds this by its name."""

import os
import sys
import time
from logging import LogRecord

import psutil
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase

from radquant.terminal.plan import Plan
from radquant.terminal.screen import Screen, without_traceback

TOUCH = {"--touch", "-t"}


class LogHandler(LogHandlerBase):
    """One line a job and a bar, or a plan; Snakemake's own output where details are asked for."""

    def __post_init__(self) -> None:
        asked = self.common_settings
        details = asked.verbose or asked.printshellcmds or asked.debug_dag
        plain = bool(details or asked.quiet)
        # Where a job is one line, it writes to its log alone (rules/common.smk).
        os.environ["RADQUANT_JOBS_ON_SCREEN"] = "yes" if plain else "no"
        self.plain: ColorizingTextHandler | None = None
        if plain:
            self.plain = ColorizingTextHandler(
                nocolor=asked.nocolor,
                stream=sys.stdout if asked.stdout else sys.stderr,
                formatter=DefaultFormatter(asked.quiet, asked.show_failed_logs),
                filter=DefaultFilter(
                    asked.quiet,
                    asked.debug_dag,
                    asked.verbose,
                    asked.dryrun,
                    asked.printshellcmds,
                ),
            )
            return
        since_the_command = max(0.0, time.time() - psutil.Process().create_time())
        self.screen: Screen | Plan = (
            Plan()
            if asked.dryrun
            else Screen(
                colour=not asked.nocolor,
                begun_before=since_the_command,
                keeps=not TOUCH.intersection(sys.argv),  # which passes over jobs in no time
            )
        )

    def emit(self, record: LogRecord) -> None:
        try:
            record.msg = without_traceback(record.msg or "", sys.argv)
            if self.plain is None:
                self.screen.handle(record)
            elif self.plain.filter(record):
                self.plain.emit(record)
        except Exception:  # as logging's own handlers do, which must not end a run
            self.handleError(record)

    def close(self) -> None:
        if self.plain is None:
            self.screen.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False
