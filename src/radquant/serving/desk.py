"""The thread that has the model: answers wait for it, join its batch and leave it.

What waits and what is written at once are bounded, so that memory is.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from radquant import memory_plan
from radquant.errors import UserError
from radquant.failures import is_panic
from radquant.generation.engines.kind import Engine, Opened
from radquant.generation.running import RunningBatch
from radquant.serving.parts import Answer, Part, next_part
from radquant.serving.requests import BadRequest

MOST_WAITING = 1000  # answers
MOST_WAITING_TOKENS = 2_000_000  # of their prompts: some 70 MB
ENDING = "the server is ending; ask another"


class Desk:
    """Where answers are left to be written."""

    def __init__(self, engine: Engine, opened: Opened, most: int, cache: int) -> None:
        """most: answers that are written at once. cache: bytes of their keys and values together.

        An engine without a running batch writes one after another, and sees to its own memory.
        """
        self.engine, self.opened = engine, opened
        self.ends = frozenset(opened.end_ids)
        self.batch: RunningBatch | None = engine.running(opened, cache)
        self.most = 1 if self.batch is None else most
        self.cache = cache
        self.waiting: deque[Answer] = deque()
        self.rows: list[Answer] = []
        self.changed = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self.work, name="desk")

    # ---- for other threads

    def take(self, answers: Sequence[Answer]) -> None:
        """Let answers wait for their turn, all or none; raises BadRequest if there is no room."""
        for answer in answers:
            if self.bytes_of(answer) > self.cache:
                tokens = len(answer.ids) + answer.count
                raise BadRequest(
                    f"prompt and answer of {tokens} tokens take "
                    f"{memory_plan.in_gb(self.bytes_of(answer))}, more than the "
                    f"{memory_plan.in_gb(self.cache)} that there are for all; shorten them",
                    503,
                )
        with self.changed:
            if self.closed:
                raise BadRequest(ENDING, 503)
            tokens = sum(len(answer.ids) for answer in (*self.waiting, *answers))
            full = len(self.waiting) + len(answers) > MOST_WAITING or tokens > MOST_WAITING_TOKENS
            if full and self.waiting:
                raise BadRequest(f"{len(self.waiting)} answers wait already; ask later", 429)
            if full:
                raise BadRequest("these prompts are too many or too long; ask in parts", 413)
            self.waiting.extend(answers)
            self.changed.notify()

    def leave(self, answers: Sequence[Answer]) -> None:
        """Nobody waits for these any more."""
        with self.changed:
            for answer in answers:
                answer.gone = True
            self.changed.notify()

    def close(self, at_once: bool = False) -> None:
        """Take nothing any more; what is being written is finished, or left if `at_once`."""
        with self.changed:
            self.closed = True
            refused = list(self.waiting)
            self.waiting.clear()
            for answer in self.rows if at_once else ():
                answer.gone = True
            self.changed.notify()
        for answer in refused:
            answer.tell(BadRequest(ENDING, 503))

    # ---- the thread itself

    def work(self) -> None:
        try:
            while self.next_rows():
                self.write()
        finally:  # nobody may wait for a thread that is not there
            self.close(at_once=True)
            for row in self.rows:
                row.tell(BadRequest(ENDING, 503))

    def write(self) -> None:
        """Let all rows go on by a token; a failure that is no row's own ends all of them."""
        try:
            if self.batch is None:
                self.write_one(self.rows[0])
                return
            given, failed = self.batch.step()
            for row in given:
                self.go_on(row)
            for row, error in failed.items():
                self.end(row, error)
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            for row in list(self.rows):
                self.end(row, error)

    def write_one(self, row: Answer) -> None:
        """Write a whole answer by an engine that has no running batch."""
        self.engine.write_row(self.opened, row, self.go_on)
        if row in self.rows and not row.gone:
            raise RuntimeError("the engine left an answer before its end")

    def next_rows(self) -> bool:
        """Wait until there is something to write, and let in what there is room for."""
        while True:
            with self.changed:
                self.waiting = deque(answer for answer in self.waiting if not answer.gone)
                gone = [row for row in self.rows if row.gone]
                for row in gone:
                    self.rows.remove(row)
                if not (self.rows or self.waiting or gone):
                    if self.closed:
                        return False
                    self.changed.wait()
                    continue
                joining = self.joining()
            self.let_in(gone, joining)
            if self.rows:
                return True

    def let_in(self, gone: Sequence[Answer], joining: Sequence[Answer]) -> None:
        if self.batch is None:
            return
        for row in gone:
            self.batch.leave(row)
        for row in joining:
            try:
                self.batch.join(row)
            except (UserError, RuntimeError, MemoryError) as error:
                self.end(row, error)

    def joining(self) -> list[Answer]:
        """Of those that wait the next ones, as many as there is room for.

        A small one does not pass a large one, which would wait for ever.
        """
        found = []
        free = self.cache - sum(map(self.bytes_of, self.rows))
        while self.waiting and len(self.rows) < self.most:
            free -= self.bytes_of(self.waiting[0])
            if free < 0:
                break
            found.append(self.waiting.popleft())
            self.rows.append(found[-1])
        return found

    def bytes_of(self, answer: Answer) -> int:
        if self.batch is None:
            return 0
        return self.batch.bytes_for(len(answer.ids) + answer.count)

    def go_on(self, row: Any) -> bool:
        """Tell what is new of a row that got a token; False, and it is ended, if that was its last.

        A row whose client has left does not go on either.
        """
        try:
            part = next_part(self.opened.tokenizer, row, self.ends)
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            self.end(row, error)
            return False
        if part is not None and part.finish is not None:
            self.end(row, part)
            return False
        if part is not None:
            row.tell(part)
        return not row.gone

    def end(self, row: Any, told: Part | BaseException) -> None:
        """Let a row go, and tell its client."""
        if self.batch is not None:
            self.batch.leave(row)
        with self.changed:
            if row in self.rows:
                self.rows.remove(row)
        row.tell(told)
