"""What rows of this package's own decoder read in a step: tokens, and images in their place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Read:
    """What a row reads in a step."""

    ids: Sequence[int]
    vectors: Tensor | None = None  # [tokens of images, hidden], in the place of their embeddings
    # 1 for a token in whose place a vector stands, else 0. Tokens behind the last of them may be
    # left out.
    types: Sequence[int] = ()


@dataclass
class LeanDecoder:
    """A model in the decoder, and what makes its rotary tables."""

    decoder: Any  # torch.classes.radquant.Decoder
    rotary: nn.Module  # transformers' own
    rope_kinds: list[str | None]  # types of layers with tables of their own; None: one for all
    config: Any  # of the text model
    both_ways: bool  # whether tokens of an image see each other in both directions
    image_token: int | None  # which an image's tokens are; None: it is shown none
    # Whether a scale is taken of all tokens that a row reads in a step.
    whole: bool = False
    positions: int = 0  # that the rotary tables hold so far

    def reach(self, positions: int) -> None:
        """Make the rotary tables long enough for sequences of so many tokens."""
        if positions > self.positions:
            made = rotary_tables(self.rotary, self.rope_kinds, positions)
            self.decoder.set_rope([cos for cos, _ in made], [sin for _, sin in made])
            self.positions = positions

    def run(self, rows: Mapping[int, Read], wanted: Sequence[int]) -> Tensor:
        """Let rows, by their number, go on by what each reads; hidden states [wanted, hidden].

        wanted: places among the tokens of all rows, one row behind the other.
        """
        ids = [token for read in rows.values() for token in read.ids]
        numbers = [number for number, read in rows.items() for _ in read.ids]
        told = list(map(int64, (ids, numbers, wanted)))
        vectors = [read.vectors.float() for read in rows.values() if read.vectors is not None]
        if not vectors:
            hidden: Tensor = self.decoder.run(*told)
            return hidden
        seats, blocks, begin = [], [], 0
        for read in rows.values():
            found = [begin + place for place, kind in enumerate(read.types) if kind]
            seats += found
            blocks += runs(found)
            begin += len(read.ids)
        together = torch.tensor(blocks if self.both_ways else [], dtype=torch.long).view(-1, 2)
        hidden = self.decoder.run_shown(*told, torch.cat(vectors), int64(seats), together)
        return hidden


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """From … to of the neighbours among rising places."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def int64(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)


def rotary_tables(
    rotary: nn.Module, kinds: Sequence[str | None], positions: int
) -> list[tuple[Tensor, Tensor]]:
    """Cosines and sines for each kind, [positions, head_dim] float32, by transformers itself."""
    like, places = torch.zeros(1), torch.arange(positions)[None]
    made = [rotary(like, places, *([] if kind is None else [kind])) for kind in kinds]
    return [(cosines[0], sines[0]) for cosines, sines in made]
