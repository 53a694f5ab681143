"""Tokens that are drawn, against probabilities in closed form; and how likely tokens are."""

import math
from collections import Counter
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from radquant.generation.choosing import BROKEN, chances_of, choose, drawn, nucleus, uniform
from radquant.generation.running import Row, Sampling

SCORES = torch.tensor([2.0, -1.0, 0.5, 1.9, -30.0, 0.5, 1.0, -2.0, 3.1, 0.0, -0.7])
DRAWS = 4000


def softened(scores: torch.Tensor, temperature: float) -> list[float]:
    """Probabilities by their definition, in plain Python."""
    weights = [math.exp(score / temperature) for score in scores.tolist()]
    return [weight / math.fsum(weights) for weight in weights]


def cut(chances: list[float], top_p: float) -> list[float]:
    """Nucleus sampling as its paper has it: tokens are added until their mass reaches top_p."""
    order = sorted(range(len(chances)), key=lambda token: (-chances[token], token))
    kept: list[int] = []
    while not kept or (
        len(kept) < len(order) and math.fsum(chances[token] for token in kept) < top_p
    ):
        kept.append(order[len(kept)])
    mass = math.fsum(chances[token] for token in kept)
    return [chance / mass if token in kept else 0.0 for token, chance in enumerate(chances)]


def unlikely(found: Counter[int], expected: list[float]) -> float:
    """p of Pearson's test that these counts come of these probabilities; none may be impossible."""
    total = sum(found.values())
    assert all(expected[token] > 0 for token in found)
    # Tokens that are expected fewer than five times are one class.
    rare = [token for token, chance in enumerate(expected) if chance * total < 5]
    often = [token for token in range(len(expected)) if token not in rare]
    counts = [found[token] for token in often] + [sum(found[token] for token in rare)]
    means = [expected[t] * total for t in often] + [sum(expected[t] * total for t in rare)]
    pairs = [(count, mean) for count, mean in zip(counts, means, strict=True) if mean > 0]
    if len(pairs) == 1:
        return 1.0
    return float(stats.chisquare(*zip(*pairs, strict=True)).pvalue)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.35])
def test_what_is_drawn_has_the_probabilities_of_the_definition(temperature, top_p) -> None:
    """Over seeds, over the places of an answer, and over the answers to a prompt."""
    expected = cut(softened(SCORES, temperature), top_p)
    ways = (
        [(Sampling(temperature, top_p, seed), 0) for seed in range(DRAWS)],
        [(Sampling(temperature, top_p, 7), place) for place in range(DRAWS)],
        [(Sampling(temperature, top_p, 7, answer), 3) for answer in range(DRAWS)],
    )
    for asked in ways:
        found = Counter(drawn(SCORES, sampling, place) for sampling, place in asked)
        assert unlikely(found, expected) > 1e-3


def test_tokens_of_an_answer_are_drawn_independently() -> None:
    """Pairs of neighbours are as likely as the product says."""
    chances = softened(SCORES[:4], 1.0)
    tokens = [drawn(SCORES[:4], Sampling(1.0, 1.0, 3), place) for place in range(DRAWS)]
    pairs = Counter(4 * one + two for one, two in zip(tokens[::2], tokens[1::2], strict=True))
    assert unlikely(pairs, [one * two for one in chances for two in chances]) > 1e-3


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40),
    top_p=st.floats(0, 1),
    temperature=st.floats(0.05, 2),
)
def test_the_nucleus_is_that_of_the_definition(scores, top_p, temperature) -> None:
    chances = softened(torch.tensor(scores), temperature)
    found = nucleus(np.array(chances), top_p).tolist()
    expected = {token for token, chance in enumerate(cut(chances, top_p)) if chance > 0}
    masses = list(accumulate(sorted((chances[token] for token in found), reverse=True)))
    # The last digits of sums may decide whether one token more is needed.
    close = any(abs(mass - top_p) < 1e-12 for mass in masses)
    assert top_p == 1 or close or set(found) == expected


def test_extremes() -> None:
    for sampling in (Sampling(1e-300, 1, 1), Sampling(2.0, 0, 1), Sampling(1e-3, 0.5, 2)):
        assert {drawn(SCORES, sampling, place) for place in range(50)} == {8}
    assert drawn(torch.tensor([1.0, math.nan]), Sampling(1, 1, 1), 0) == BROKEN
    assert drawn(torch.tensor([1.0, math.inf]), Sampling(1, 1, 1), 0) == BROKEN
    impossible = torch.tensor([-math.inf, 0.0, -math.inf])
    assert {drawn(impossible, Sampling(2, 1, seed), 0) for seed in range(200)} == {1}


def test_numbers_are_those_of_the_seed() -> None:
    """Also of negative ones, which clients may send; and none repeats in another place."""
    asked = [
        (Sampling(1, 1, seed, answer), place)
        for seed in (0, 1, -1, 2**63 - 1)
        for answer in range(3)
        for place in range(50)
    ]
    found = [uniform(*each) for each in asked]
    assert found == [uniform(*each) for each in reversed(asked)][::-1]
    assert len(set(found)) == len(found)
    assert all(0 <= number < 1 for number in found)


def test_chances_are_the_logarithms_of_probabilities() -> None:
    logs = [math.log(chance) for chance in softened(SCORES, 1.0)]
    (first, second) = chances_of(torch.stack([SCORES, SCORES]), [8, 4], 3)
    assert first.logprob == pytest.approx(logs[8], rel=1e-6)
    assert second.logprob == pytest.approx(logs[4], rel=1e-6)
    assert [token for token, _ in first.likeliest] == [8, 0, 3]
    assert [value for _, value in first.likeliest] == pytest.approx(
        [logs[8], logs[0], logs[3]], rel=1e-6
    )
    assert chances_of(SCORES[None], [1], 0)[0].likeliest == ()
    assert len(chances_of(SCORES[None], [1], 50)[0].likeliest) == len(SCORES)


def test_a_row_chooses_as_it_asks() -> None:
    row = Row([1], 9, top=1)
    assert choose(row, SCORES) == 8
    assert choose(row, SCORES) == 8  # a step that is done anew
    assert [chance.token for chance in row.chances] == [8]
    assert choose(row, torch.full((4,), math.nan)) == BROKEN
    assert len(row.chances) == 1
    drawing = Row([1], 9, sampling=Sampling(1.0, 1.0, 5))
    seen = []
    for _ in range(30):
        seen.append(choose(drawing, SCORES))
        drawing.written.append(seen[-1])
    assert seen == [drawn(SCORES, Sampling(1.0, 1.0, 5), place) for place in range(30)]
    assert len(set(seen)) > 3
    assert drawing.chances == []
