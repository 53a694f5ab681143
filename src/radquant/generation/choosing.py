"""Which token follows, by the scores of all: the likeliest or one that is drawn; and how likely."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from radquant.generation.running import Chance, Row, Sampling

AT_ONCE = 64  # rows of scores that are held: a megabyte each with the largest vocabularies
BROKEN = -1  # in the place of a token, where scores are no numbers


def choose(row: Row, scores: Tensor, likeliest: int | None = None) -> int:
    """The next token of a row, or BROKEN; how likely it is goes to the row, if it asks for that.

    scores: [vocabulary] float32. likeliest: of the tokens, where that is known.
    """
    if row.sampling is not None:
        token = drawn(scores, row.sampling, len(row.written))
    elif likeliest is not None:
        token = likeliest
    else:
        token = int(scores.argmax()) if bool(scores.max().isfinite()) else BROKEN
    if row.top is not None and token >= 0:
        # It is put in its own place, so that a step which is repeated does not add it twice.
        row.chances[len(row.written) :] = chances_of(scores[None], [token], row.top)
    return token


def tell_prompt(row: Row, first: int, states: Tensor, logits: Callable[[Tensor], Tensor]) -> None:
    """Tell a row how likely tokens of its prompt are, from place `first` on.

    states: of each of these tokens, [tokens, …], of which `logits` makes its scores,
    [tokens, vocabulary] float32.
    """
    for begin in range(0, len(states), AT_ONCE):
        part = states[begin : begin + AT_ONCE]
        places = range(first + begin, first + begin + len(part))
        found = chances_of(logits(part), [row.ids[at] for at in places], row.top or 0)
        row.prompt_chances |= dict(zip(places, found, strict=True))


def drawn(scores: Tensor, sampling: Sampling, place: int) -> int:
    """The token drawn from softmax(scores / temperature), cut to its nucleus, or BROKEN.

    scores: [vocabulary] float32. place: of the token in its answer. The tokens of the nucleus are
    the fewest, the likeliest first, whose probabilities reach `top_p`
    (https://arxiv.org/abs/1904.09751). Nothing but these arguments decides what is drawn.
    """
    exact = scores.double().cpu().numpy()
    most = exact.max()
    if not np.isfinite(most):
        return BROKEN
    with np.errstate(over="ignore"):  # to −∞, at the lowest temperatures
        weights = np.exp((exact - most) / sampling.temperature)
    chances = weights / weights.sum()
    kept = nucleus(chances, sampling.top_p)
    bounds = np.cumsum(chances[kept])
    return int(kept[np.searchsorted(bounds, uniform(sampling, place) * bounds[-1], side="right")])


def nucleus(chances: np.ndarray, top_p: float) -> np.ndarray:
    """The tokens that can be drawn. chances: [vocabulary], which sum to 1."""
    if top_p >= 1:
        return np.arange(len(chances))
    # All tokens below this bound have less than 1 − top_p together, so none of them is needed.
    near = np.flatnonzero(chances >= (1 - top_p) / len(chances))
    falling = near[np.argsort(-chances[near], kind="stable")]
    return falling[: 1 + np.searchsorted(np.cumsum(chances[falling]), top_p)]


def uniform(sampling: Sampling, place: int) -> float:
    """A number from [0, 1) that seed, answer and place decide, by a generator that counts.

    So a token that is drawn anew, or beside others, is the same (https://doi.org/10.1145/2063384.2063405).
    """
    key = np.array([sampling.seed % 2**64, sampling.answer], np.uint64)
    counter = np.array([0, 0, 0, place], np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw()
    return (int(bits) >> 11) * 2.0**-53


def chances_of(scores: Tensor, tokens: Sequence[int], top: int) -> list[Chance]:
    """How likely each token is by its row of scores, and the `top` likeliest in its place.

    scores: [tokens, vocabulary] float32.
    """
    logs = scores.log_softmax(-1)
    chosen = logs.gather(-1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0].tolist()
    values, indices = logs.topk(min(top, logs.shape[-1]), dim=-1)
    pairs = [zip(*row, strict=True) for row in zip(indices.tolist(), values.tolist(), strict=True)]
    return [
        Chance(token, logprob, tuple(best))
        for token, logprob, best in zip(tokens, chosen, pairs, strict=True)
    ]
