"""Greedy generation with Hugging Face's generate()."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from radquant.cli import progress
from radquant.failures import withheld_panics
from radquant.generation.batching import pad_left
from radquant.generation.choosing import choose, tell_prompt
from radquant.generation.measures import synchronize
from radquant.generation.outputs import read_output
from radquant.generation.prefix import NOTHING, Prefix, begin, run_prefix, stored_ids
from radquant.generation.rotary import each_apart
from radquant.generation.running import Row
from radquant.generation.tasks import Output, Pace, Task, Work, check_ends, not_finite
from radquant.generation.vision import model_inputs
from radquant.prompts import Prompt
from radquant.token_texts import padding_id
from radquant.vision.features import Features


def greedy_config(
    model: Any, max_new_tokens: int, end_ids: Sequence[int] | None, pad_id: int
) -> Any:
    """Return a configuration for greedy decoding and make it the model's own.

    generate() fills what is unset from the checkpoint's generation_config.json. That may ask for
    sampling, a temperature or a repetition penalty, and none of these may reach a comparison.
    """
    from transformers import GenerationConfig

    check_ends(max_new_tokens, end_ids)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=None if end_ids is None else list(end_ids),
        pad_token_id=pad_id,
        use_cache=True,
    )
    model.generation_config = config
    return config


def generate_batch(
    model: Any,
    tokenizer: Any,
    config: Any,
    prompts: Sequence[Prompt],
    stop: Sequence[str] = (),
    prefix: Prefix = NOTHING,
    features: Features | None = None,
    pace: Pace | None = None,
) -> list[Output]:
    """Return the outputs of one batch of prompts, in their order.

    features: of the prompts' images. pace: gets this batch's added.
    """
    from transformers import LogitsProcessorList, StoppingCriteriaList

    device = torch.device(model.device)
    ids, mask = pad_left([p.ids for p in prompts], prefix.length, config.pad_token_id, device)
    start = ids.shape[1]
    lengths = [len(prompt.ids) for prompt in prompts]
    seen = model_inputs(features, prompts, lengths, prefix.length, model)
    first = FirstToken()
    criteria = StoppingCriteriaList([first])
    if stop:
        criteria.append(StopStrings(tokenizer, stop, start))
    watch = FiniteScores(torch.zeros(len(prompts), dtype=torch.bool, device=device))
    started = time.perf_counter()
    with torch.inference_mode():
        sequences = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            past_key_values=prefix.expanded(len(prompts)),
            stopping_criteria=criteria,
            logits_processor=LogitsProcessorList([watch]),
            **seen,
        )
    if watch.broken.any():
        raise not_finite(prompts[int(watch.broken.int().argmax())].id)
    rows = sequences[:, start:].tolist()
    ended = time.perf_counter()
    outputs = [read_output(tokenizer, row, set(config.eos_token_id or ()), stop) for row in rows]
    if pace is not None and first.seen is not None:
        pace.prefill_seconds += first.seen - started
        pace.decode_seconds += ended - first.seen
        pace.decode_tokens += sum(output.tokens - 1 for output in outputs)
    return outputs


def generate_batches(
    model: Any,
    tokenizer: Any,
    config: Any,
    batches: Iterable[Sequence[Prompt]],
    stop: Sequence[str] = (),
    prefix: Prefix = NOTHING,
    features: Features | None = None,
    too_large: list[int] | None = None,
    pace: Pace | None = None,
) -> tuple[list[Output], list[float]]:
    """Return the outputs of all batches in order, and the seconds that each batch took.

    A batch that does not fit into memory is written in parts; `too_large` then gets its size.
    """
    device = torch.device(model.device)
    outputs: list[Output] = []
    seconds: list[float] = []
    too_large = [] if too_large is None else too_large

    def write(part: Sequence[Prompt]) -> list[Output]:
        return generate_batch(model, tokenizer, config, part, stop, prefix, features, pace)

    for batch in batches:
        started = time.perf_counter()
        lengths = [len(prompt.ids) + config.max_new_tokens for prompt in batch]
        outputs += each_apart(model, write, batch, lengths, too_large)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return outputs, seconds


def write(loaded: Any, task: Task) -> Work:
    """Write the answers of all batches with the model of `loaded`."""
    model, tokenizer = loaded.model, loaded.tokenizer
    pad = padding_id(tokenizer, model.config.get_text_config().vocab_size)
    config = greedy_config(model, task.max_new_tokens, task.end_ids, pad)
    started = time.perf_counter()
    prefix = run_prefix(model, task.shared, task.longest, begin(loaded, task.longest))
    synchronize(torch.device(model.device))
    pace = Pace(time.perf_counter() - started)
    work = progress(task.batches, task.label, len(task.batches), "batches")
    too_large: list[int] = []
    outputs, seconds = generate_batches(
        model, tokenizer, config, work, task.stop, prefix, task.features, too_large, pace
    )
    return Work(outputs, seconds, too_large, prefix.length - len(stored_ids(loaded)), pace)


@torch.inference_mode()
def write_row(loaded: Any, row: Row, end_ids: Sequence[int], go_on: Callable[[Row], bool]) -> None:
    """Write one answer whole. go_on: is called behind each token, and says whether another follows.

    Raises UserError where scores are no numbers.
    """
    from transformers import LogitsProcessorList, StoppingCriteriaList

    model = loaded.model
    pad = padding_id(loaded.tokenizer, model.config.get_text_config().vocab_size)
    config = greedy_config(model, row.count, end_ids, pad)
    prefix = begin(loaded, len(row.ids) + row.count)
    device = torch.device(model.device)
    ids, mask = pad_left([row.ids], prefix.length, config.pad_token_id, device)
    if row.echo:
        read_aloud(model, row, prefix, ids, mask)
    model.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_config=config,
        past_key_values=prefix.expanded(1),
        stopping_criteria=StoppingCriteriaList([GoOn(row, go_on)]),
        logits_processor=LogitsProcessorList([Chosen(row)]),
    )


def read_aloud(model: Any, row: Row, prefix: Prefix, ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Tell a row how likely the tokens of its prompt are. ids, mask: of the row, [1, tokens]."""
    known = prefix.length
    scores = model(
        input_ids=ids[:, known:],
        attention_mask=mask,
        past_key_values=prefix.expanded(1),
        use_cache=prefix.cache is not None,
    ).logits[0]
    # The scores for a token stand at the place of the token before it.
    tell_prompt(row, known + 1, scores[:-1], torch.Tensor.float)


class Chosen:
    """Logits processor that leaves nothing but the token which a row chooses, and notes it."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = choose(self.row, scores[0].float())
        if token < 0:
            raise not_finite("request")
        self.row.written.append(token)
        only = torch.full_like(scores, -torch.inf)
        only[0, token] = 0
        return only


class GoOn:
    """Stopping criterion: asks behind each token whether the row is to go on."""

    def __init__(self, row: Row, go_on: Callable[[Row], bool]) -> None:
        self.row, self.go_on = row, go_on

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.tensor([not self.go_on(self.row)], device=input_ids.device)


class FiniteScores:
    """Logits processor that changes nothing: it notes in which rows no token can be the best.

    The largest of scores with a NaN is NaN, which generate() would take for the best of all.
    """

    def __init__(self, broken: torch.Tensor) -> None:
        self.broken = broken  # [batch] bool

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.broken |= ~torch.isfinite(scores.amax(-1))
        return scores


class FirstToken:
    """Stopping criterion that stops nothing: it notes when the first token was there."""

    seen: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self.seen is None:
            synchronize(input_ids.device)
            self.seen = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class StopStrings:
    """Stopping criterion: a sequence is done when its new text holds a stop string.

    Hugging Face's own precomputes a table over the vocabulary, which takes longer than our batches.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        self.tokenizer, self.stop, self.start = tokenizer, stop, start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        with withheld_panics():
            new = input_ids[:, self.start :]
            texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        done = [any(mark in text for mark in self.stop) for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)
