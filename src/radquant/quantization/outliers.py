"""PrefixQuant (Chen et al. 2024, arXiv:2410.05265): the few tokens whose activations are far larger
than all others'. They are put before every text and kept there, and rounding does not touch them.

Such tokens serve attention as a place to look at when there is nothing to see. Which they are is a
matter of the model: its first token whatever it is, and some others where they come first. Once
they stand before a text, the text itself has fewer or none.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from radquant.checkpoints.streaming import fill
from radquant.cli import progress
from radquant.families.inspection import decoder_layers, linear_of, of_layer
from radquant.files import hash_path
from radquant.finite import require_finite
from radquant.quantization.hidden_states import Hidden, append, embed, run_layer
from radquant.quantization.original_model import Original
from radquant.quantization.samples import Sample

SEQUENCES = 16  # calibration sequences that are looked at
# A token stands out if its largest input of some linear layer is so many times the median token's.
# PrefixQuant takes 64. Long before that, a static range that must cover one such token loses the
# others.
THRESHOLD = 20.0
MOST_TOKENS = 3  # beside the first, as many as stand out in a sequence on average, but no more


def all_behind(prefix: Sequence[int], samples: Sequence[Sample]) -> list[Sample]:
    """The prefix, if there is one, by itself, and every sample behind it."""
    alone = [Sample(torch.tensor(prefix))] if prefix else []
    return [*alone, *(sample.behind(prefix) for sample in samples)]


def choose_prefix(samples: Sequence[Sample], outlying: Sequence[Tensor]) -> list[list[int]]:
    """The prefixes that are worth a try, the shortest first; none if no token stands out.

    outlying: whether each token of each sample stands out, [tokens] bool. An image's tokens are in
    no prefix: without the image they stand for nothing.
    """
    first = Counter(int(sample.ids[0]) for sample in samples).most_common(1)[0][0]
    others: Counter[int] = Counter()
    for sample, marks in zip(samples, outlying, strict=True):
        others.update(sample.ids[1:][(marks & sample.of_text)[1:]].tolist())
    count = min(MOST_TOKENS, round(others.total() / len(samples)))
    if not others and not any(bool(marks[0]) for marks in outlying):
        return []
    before = [token for token, _ in others.most_common(count) if token != first]
    return [[first], [*before, first]] if before else [[first]]


def find_prefix(
    open_source: Callable[[], Original],
    calibration: Sequence[Sample],
    hidden: Path,
    device: torch.device,
) -> list[int]:
    """The tokens to store before every text, empty if none stands out.

    Of the prefixes worth a try the one behind which the fewest tokens stand out, the shortest among
    equals. open_source: the model, anew for each pass. hidden: a file that may be written.
    """
    step = max(1, len(calibration) // SEQUENCES)
    samples = list(calibration[::step][:SEQUENCES])
    tried = choose_prefix(samples, standing_out(open_source(), samples, 0, hidden, device))
    if len(tried) < 2:
        return tried[0] if tried else []
    left = []
    for prefix in tried:
        behind = [sample.behind(prefix) for sample in samples]
        marks = standing_out(open_source(), behind, len(prefix), hidden, device)
        left.append(sum(int(each.sum()) for each in marks))
    return tried[left.index(min(left))]


@torch.inference_mode()
def standing_out(
    source: Original,
    samples: Sequence[Sample],
    prefix: int,
    file: Path,
    device: torch.device,
) -> list[Tensor]:
    """Whether each token behind the prefix stands out, [tokens] bool for each sample.

    `source` is used up.
    """
    architecture = source.architecture
    layers = decoder_layers(source.model, architecture)
    width, lengths = source.config.get_text_config().hidden_size, tuple(map(len, samples))
    hidden = Hidden(file, lengths, width)
    arguments = embed(source, samples, hidden, device)
    marks = [torch.zeros(length - prefix, dtype=torch.bool) for length in lengths]
    for number in progress(range(len(layers)), "look for outliers", len(layers), "layers"):
        layer = layers[number]
        stored = source.layer_tensors(number)
        fill(layer, {own: source.stored[name] for own, name in stored.items()}, device)
        layer.to(device)
        groups = of_layer(layer, architecture).groups
        peaks: list[list[Tensor]] = [[] for _ in groups]
        handles = [
            linear_of(layer, group.linears[0]).register_forward_pre_hook(
                lambda _, args, of_group=of_group: of_group.append(args[0][0].abs().amax(-1).cpu())
            )
            for group, of_group in zip(groups, peaks, strict=True)
        ]
        with hidden.writing() as written:
            for index in range(len(lengths)):
                state = hidden.read(index, device)
                append(written, run_layer(layer, state, arguments[index][number]))
        for handle in handles:
            handle.remove()
        for group, of_group in zip(groups, peaks, strict=True):
            require_finite(f"{architecture.decoder_layers}.{number}.{group.linears[0]}", *of_group)
            usual = torch.cat([each[prefix:] for each in of_group]).median()
            for mark, each in zip(marks, of_group, strict=True):
                mark |= each[prefix:] > THRESHOLD * usual
        layers[number] = nn.Identity()  # frees its memory
    hash_path(file).unlink()
    file.unlink()
    return marks
