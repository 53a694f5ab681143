"""Where a 4-bit KV cache loses: keys or values, how fine the groups, and how much is chance.

Takes a checkpoint, the evaluation reports and the prompt of a finished run. Measures the likelihood
of the first references with keys, values or both rounded, in groups of some sizes, behind several
few-shot examples. All prompts of a run begin with the same example, whose keys and values are
rounded the same way for every report. An interval over reports does not show what another example
would have made of it. Activations are not rounded.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparing import table
from measuring import REPOSITORY
from torch import Tensor

from radquant import prompts
from radquant.checkpoints.loading import Loaded, load
from radquant.errors import UserError
from radquant.files import read_json, read_table, write_json
from radquant.generation import batching, transformers_likelihood
from radquant.generation.examples import rows_of
from radquant.generation.prefix import begin, behind_stored, run_prefix, stored_ids
from radquant.runtime import kv_cache
from radquant.settings.precision import GROUP, KVCache

KEYS, VALUES, BOTH = "keys", "values", "both"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("results", type=Path, help="of a finished run")
    add("--checkpoint", required=True, metavar="NAME", help="one of the run's")
    add("--output", type=Path, required=True, metavar="JSON", help="figures")
    add("--group-sizes", type=int, nargs="+", default=[64, 32])
    add("--seeds", type=int, nargs="+", default=[7, 8, 9], help="of the example drawn")
    add("--reports", type=int, default=24)
    return parser.parse_args()


class Rounding:
    """Rounds what it is told to, and adds up how far that moves keys and values."""

    def __init__(self) -> None:
        self.what = BOTH
        self.moved = dict.fromkeys((KEYS, VALUES), 0.0)
        self.size = dict.fromkeys((KEYS, VALUES), 0.0)
        self.round_pair = kv_cache.round_pair

    def __call__(
        self, keys: Tensor, values: Tensor, settings: KVCache, rotate: bool
    ) -> list[Tensor]:
        pair = self.round_pair(keys, values, settings, rotate)
        for name, before, after in zip((KEYS, VALUES), (keys, values), pair, strict=True):
            self.moved[name] += float((after - before).square().sum())
            self.size[name] += float(before.square().sum())
        chosen = (self.what in (KEYS, BOTH), self.what in (VALUES, BOTH))
        return [
            after if rounded else before
            for before, after, rounded in zip((keys, values), pair, chosen, strict=True)
        ]

    def errors(self) -> dict[str, float]:
        return {name: (self.moved[name] / self.size[name]) ** 0.5 for name in self.moved}


def references(results: Path, tokenizer: Any, count: int | None, seed: int) -> list[prompts.Prompt]:
    """The prompts of a run's likelihood stage, with the examples that `seed` draws."""
    config = read_json(results / "config.json")
    generation, target = config["generation"], config["task"]["target"]
    template = prompts.read_template(REPOSITORY / generation["prompt"], None)
    examples = prompts.draw_examples(
        rows_of(read_table(results / "data" / "train.csv")),
        prompts.columns_of(template),
        target,
        generation["examples"],
        generation["examples_max_words"],
        seed,
    )
    reports = rows_of(read_table(results / "data" / "eval.csv"))[:count]
    return [
        prompts.chat_prompt(tokenizer, template, row, examples, target, None, True)
        for row in reports
    ]


def nll_of(loaded: Loaded, made: list[Any]) -> float:
    """NLL per token of the references behind their prompts."""
    made = behind_stored(made, stored_ids(loaded))
    longest = max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made)
    pad = loaded.tokenizer.pad_token_id
    shared = batching.shared_prefix(made)
    with torch.inference_mode():
        prefix = run_prefix(loaded.model, shared, longest, begin(loaded, longest))
    total = 0.0
    for batch in batching.plan_batches(made, 12):
        total += sum(
            transformers_likelihood.answer_nll(loaded.model, [made[i] for i in batch], pad, prefix)
        )
    return total / sum(len(prompt.answer_ids) for prompt in made)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    directory = args.results / "checkpoints" / args.checkpoint
    rounding = Rounding()
    kv_cache.round_pair = rounding
    cells: list[tuple[str, int | None]] = [("none", None)]
    cells += [(what, size) for size in args.group_sizes for what in (BOTH, KEYS, VALUES)]
    found = []
    for what, size in cells:
        settings = None if size is None else KVCache(bits=4, granularity=GROUP, group_size=size)
        loaded = load(directory, kv_cache=settings)
        fresh = Rounding()
        rounding.what, rounding.moved, rounding.size = what, fresh.moved, fresh.size
        nll = [
            nll_of(loaded, references(args.results, loaded.tokenizer, args.reports, seed))
            for seed in args.seeds
        ]
        errors = rounding.errors() if size else {}
        found.append({"rounded": what, "group_size": size, "nll": nll, "errors": errors})
        print(found[-1], file=sys.stderr)
    write_json(args.output, {"reports": args.reports, "seeds": args.seeds, "cells": found})
    base = np.array(found[0]["nll"])
    rows = [
        [
            cell["rounded"],
            str(cell["group_size"] or ""),
            *(f"{each:.3f}" for each in cell["nll"]),
            f"{(np.array(cell['nll']) - base).mean():+.3f}",
            *(f"{cell['errors'][name]:.3f}" if cell["errors"] else "" for name in (KEYS, VALUES)),
        ]
        for cell in found
    ]
    head = ["rounded", "group", *(f"example {seed}" for seed in args.seeds), "mean loss"]
    print(table([*head, "error of keys", "of values"], rows))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
