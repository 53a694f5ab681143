"""What Snakemake shows of a run (`logger: radquant` in the profiles). It finds this by its name."""

import os
import sys
from logging import LogRecord

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase

from radquant.terminal.screen import Screen, without_traceback


class LogHandler(LogHandlerBase):
    """One line a job and a bar; Snakemake's own output where details are asked for."""

    def __post_init__(self) -> None:
        asked = self.common_settings
        details = asked.dryrun or asked.verbose or asked.printshellcmds or asked.debug_dag
        plain = bool(details or asked.quiet or asked.stdout)
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
        self.screen = Screen(colour=not asked.nocolor)

    def emit(self, record: LogRecord) -> None:
        try:
            record.msg = without_traceback(record.msg or "")
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
