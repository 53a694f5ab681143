"""A batch of this package's own decoder that prompts join while it runs (`generation/running.py`).

A row's tokens depend on nothing else, to the bit. They do not depend on the rows beside it, nor on
how its prompt is cut into steps. Nor do they depend on whether another row has read its beginning.
So each step reads one token of every row that is being written. Beside these it reads the next part
of the prompts that are not read yet. That is the schedule of Sarathi
(https://arxiv.org/abs/2308.16369). A prompt may begin as another one that the decoder still holds.
It then begins with the other's pages of keys and values. That is the cache of prefixes of vLLM
(https://docs.vllm.ai/en/latest/design/prefix_caching.html).
"""

from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.failures import is_out_of_memory
from radquant.generation.choosing import AT_ONCE, BROKEN, choose, tell_prompt
from radquant.generation.lean_rows import LeanDecoder, Read
from radquant.generation.lean_steps import begin, stored_tokens
from radquant.generation.memory import NotEnoughMemory
from radquant.generation.prefix import check_window
from radquant.generation.running import Row
from radquant.generation.tasks import not_finite
from radquant.memory_plan import FLOAT32, kept_by_layer
from radquant.runtime.runtime_file import StoredPrefix

# Tokens of prompts that a step reads. They are so many that reading the weights pays. They are so
# few that neither a first token nor the rows being written wait long for another's prompt.
PROMPT_TOKENS = 128
PAGE = 64  # positions of a page of the cache, as in kernels/cpp/decoder_levels.h
KEPT = 16  # rows that have left, with whose tokens others may begin
LEAST = 16  # tokens that are worth it

Stepped = tuple[list[Row], dict[Row, Exception]]


@dataclass
class Wanted:
    """Behind which of the tokens of a step scores are wanted, and what for."""

    places: list[int] = field(default_factory=list)  # among the tokens of all rows
    # Rows that get a token, and the number of their scores among `places`.
    nexts: list[tuple[Row, int]] = field(default_factory=list)
    # Rows whose prompt's probabilities are asked for, and three numbers for each. The numbers are
    # that of the first scores among `places`, the place in the row of the token that these are of,
    # and their count.
    echoes: list[tuple[Row, int, int, int]] = field(default_factory=list)


class LeanBatch:
    """A `RunningBatch`. It has the decoder to itself: nothing else may run it meanwhile."""

    def __init__(self, lean: LeanDecoder, stored: StoredPrefix | None, cache: int) -> None:
        """cache: bytes of keys and values."""
        self.lean, self.stored, self.cache = lean, stored, cache
        with torch.inference_mode():
            self.shared = begin(lean, [], stored_tokens(stored), stored)
        self.rows: dict[int, Row] = {}  # by number in the decoder, in the order of joining
        self.shown: dict[int, int] = {}  # tokens of each that the decoder holds
        self.kept: dict[int, list[int]] = {}  # tokens of rows that have left; oldest use first

    def bytes_for(self, tokens: int) -> int:
        kept = sum(heads * channels for heads, channels in kept_by_layer(self.lean.config))
        return 2 * FLOAT32 * kept * -(-tokens // PAGE) * PAGE

    def join(self, row: Row) -> None:
        longest = len(row.ids) + row.count
        if self.stored is not None:
            check_window(self.lean.config, longest)
        self.lean.reach(longest)
        number = next(n for n in count() if n not in self.rows and n not in self.kept)
        self.rows[number], self.shown[number] = row, self.shared
        self.make_room()

    def make_room(self) -> None:
        """Forget rows that have left, the longest unused first, until all fits."""
        running = sum(self.bytes_for(len(row.ids) + row.count) for row in self.rows.values())
        while self.kept and (
            len(self.kept) > KEPT
            or running + sum(map(self.bytes_for, map(len, self.kept.values()))) > self.cache
        ):
            self.forget(next(iter(self.kept)))

    def forget(self, number: int) -> None:
        self.lean.decoder.release(number)
        del self.kept[number]

    def leave(self, row: Row) -> None:
        for number in [number for number, other in self.rows.items() if other is row]:
            held = (row.ids + row.written)[: self.shown[number]]
            del self.rows[number], self.shown[number]
            if len(held) < self.shared + LEAST:
                self.lean.decoder.release(number)
                continue
            for other, tokens in list(self.kept.items()):
                if held[: len(tokens)] == tokens:
                    self.forget(other)
            self.kept[number] = held
            self.make_room()

    @torch.inference_mode()
    def step(self) -> Stepped:
        try:
            return self.read(self.next_reads())
        except (RuntimeError, MemoryError):
            pass  # out of the handler, whose traceback would keep what the step held
        return self.each_apart(list(self.rows))

    def next_reads(self) -> dict[int, list[int]]:
        """What rows read next: the token that each wrote last, and parts of prompts."""
        unread = {}
        for number in self.rows:
            if self.lean.whole or self.shown[number] > self.shared or self.begin(number):
                unread[number] = self.unread(number)
        new = [number for number, ids in unread.items() if len(ids) > 1 or not self.begun(number)]
        reads = {number: ids for number, ids in unread.items() if number not in new}
        # One scale is taken over all that a row reads in a step. So no prompt is cut, and none
        # begins with another's pages.
        if self.lean.whole:
            return reads | {number: unread[number] for number in new[:1]}
        # The first row gets half of the room, so that it goes on. The rest goes to the rows with
        # the fewest tokens left.
        sizes = dict.fromkeys(new, 0)
        for number in new[:1]:
            sizes[number] = min(len(unread[number]), PROMPT_TOKENS // 2)
        room = PROMPT_TOKENS - sum(sizes.values())
        for number in sorted(new, key=lambda number: len(unread[number]) - sizes[number]):
            more = min(room, len(unread[number]) - sizes[number])
            sizes[number], room = sizes[number] + more, room - more
        return reads | {number: unread[number][:size] for number, size in sizes.items() if size}

    def begun(self, number: int) -> bool:
        return bool(self.rows[number].written)

    def unread(self, number: int) -> list[int]:
        row, shown = self.rows[number], self.shown[number]
        behind = shown - len(row.ids)
        return row.written[behind:] if behind >= 0 else row.ids[shown:] + row.written

    def begin(self, number: int) -> bool:
        """Let a row begin as another has; whether it may go on, or waits for what that one reads.

        It waits only for rows that came before it, the first of which goes on in every step. One
        whose prompt's chances are asked for reads it all.
        """
        if self.rows[number].echo:
            return True
        own = self.rows[number].ids
        best, most, ready = -1, LEAST - 1, True
        for other, tokens in self.kept.items():
            if (same := common(own, tokens, self.shared)) > most:
                best, most = other, same
        for other, row in self.rows.items():
            if other == number:
                break
            if (same := common(own, row.ids + row.written, self.shared)) > most:
                best, most = other, same
                ready = self.shown[other] - self.shared >= same
        if most >= LEAST and ready:
            self.lean.decoder.begin_as(number, best, most)
            self.shown[number] += most
            if best in self.kept:
                self.kept[best] = self.kept.pop(best)
        return ready

    def read(self, reads: dict[int, list[int]]) -> Stepped:
        """Let the decoder read; rows that have then shown it all get their next token."""
        wanted = self.wanted(reads)
        hidden = self.lean.run({n: Read(ids) for n, ids in reads.items()}, wanted.places)
        for number, ids in reads.items():
            self.shown[number] += len(ids)
        for row, number, first, many in wanted.echoes:
            tell_prompt(row, first, hidden[number : number + many], self.lean.decoder.logits)
        given: list[Row] = []
        failed: dict[Row, Exception] = {}
        rows = [row for row, _ in wanted.nexts]
        behind = hidden[[number for _, number in wanted.nexts]]
        for row, token in zip(rows, self.next_tokens(rows, behind), strict=True):
            if token < 0:
                failed[row] = not_finite("request")
                self.drop(row)
            else:
                row.written.append(token)
                given.append(row)
        return given, failed

    def wanted(self, reads: dict[int, list[int]]) -> Wanted:
        """What is wanted of a step in which rows read these tokens."""
        wanted, at = Wanted(), 0
        for number, ids in reads.items():
            row, first = self.rows[number], self.shown[number]
            own = min(len(ids), len(row.ids) - 1 - first) if row.echo else 0
            if own > 0:
                wanted.echoes.append((row, len(wanted.places), first + 1, own))
                wanted.places += range(at, at + own)
            at += len(ids)
            if len(self.unread(number)) == len(ids):
                wanted.nexts.append((row, len(wanted.places)))
                wanted.places.append(at - 1)
        return wanted

    def next_tokens(self, rows: list[Row], hidden: Tensor) -> list[int]:
        """The next token of each row, negative where its scores are no numbers.

        hidden: behind what each has read, [rows, hidden].
        """
        tokens = self.greedy(rows, hidden)
        scored = [i for i, row in enumerate(rows) if row.sampling or row.top is not None]
        for start in range(0, len(scored), AT_ONCE):
            part = scored[start : start + AT_ONCE]
            for i, scores in zip(part, self.lean.decoder.logits(hidden[part]), strict=True):
                tokens[i] = choose(rows[i], scores, tokens[i])
        return tokens

    def greedy(self, rows: list[Row], hidden: Tensor) -> list[int]:
        """The likeliest next token of rows that take it; those of others are to be drawn."""
        plain = [i for i, row in enumerate(rows) if row.sampling is None]
        tokens = [BROKEN] * len(rows)
        for i, token in zip(plain, self.lean.decoder.greedy(hidden[plain]).tolist(), strict=True):
            tokens[i] = token
        return tokens

    def drop(self, row: Row) -> None:
        """Let a row leave of which nothing is to be used again."""
        for number in [number for number, other in self.rows.items() if other is row]:
            self.lean.decoder.release(number)
            del self.rows[number], self.shown[number]

    def each_apart(self, numbers: list[int]) -> Stepped:
        """Let rows of a step that failed go on one after another; only those fail that fail so.

        How far the decoder came is not known. So each reads anew all that it is to read, which
        gives the same bits. Rows whose prompts are not to be cut read them in the same parts as
        before.
        """
        given: list[Row] = []
        failed: dict[Row, Exception] = {}
        for number in list(self.kept):
            self.forget(number)
        for number in numbers:
            self.lean.decoder.release(number)
            self.shown[number] = self.shared
        for number in numbers:
            row = self.rows[number]
            try:
                if self.lean.whole:
                    self.read_as_before(number)
                told, broken = self.read({number: self.unread(number)})
            except (RuntimeError, MemoryError) as error:
                told, broken = [], {row: without_memory() if is_out_of_memory(error) else error}
                self.drop(row)
            given += told
            failed |= broken
        return given, failed

    def read_as_before(self, number: int) -> None:
        """Show the decoder a row's prompt at once, and then tokens that it wrote, but the last."""
        row = self.rows[number]
        parts = [row.ids[self.shared :], *([token] for token in row.written)]
        for ids in parts[:-1]:
            self.lean.run({number: Read(ids)}, [])
            self.shown[number] += len(ids)


def without_memory() -> UserError:
    return NotEnoughMemory("the request does not fit into memory beside the others")


def common(one: list[int], other: list[int], begin: int = 0) -> int:
    """Tokens behind the first `begin` with which both go on.

    The last token of `one` does not count: what follows it is still to be found.
    """
    most, place = min(len(one) - 1, len(other)), begin
    while place + PAGE <= most and one[place : place + PAGE] == other[place : place + PAGE]:
        place += PAGE
    while place < most and one[place] == other[place]:
        place += 1
    return place - begin
