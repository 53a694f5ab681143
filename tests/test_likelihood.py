"""Likelihood of references against a plain computation, one sequence at a time."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_models import WORDS
from tiny_reports import model_and_splits, random_prompts, run_script
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from radquant import prompts
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.generation import batching, likelihood, transformers_likelihood
from radquant.generation.prefix import NOTHING, run_prefix
from radquant.settings.precision import Activations, as_values

SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
}


def make_model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    # Soft-capped scores: a head applied by hand would leave them out.
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, final_logit_softcapping=2.0)).eval()


def plain_nll(model: Any, prompt: prompts.Prompt) -> float:
    ids = torch.tensor([prompt.ids + prompt.answer_ids])
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits[0, :-1]
    losses = F.cross_entropy(logits.double(), ids[0, 1:], reduction="none")
    return float(losses[-len(prompt.answer_ids) :].sum())


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("shared", [False, True])
def test_nll_equals_a_plain_computation(kind: str, shared: bool) -> None:
    model = make_model(kind)
    made = random_prompts(7)
    prefix = run_prefix(model, batching.shared_prefix(made), 128) if shared else NOTHING
    assert (prefix.length > 0) == shared
    expected = [plain_nll(model, prompt) for prompt in made]
    assert transformers_likelihood.answer_nll(model, made, 0, prefix) == pytest.approx(
        expected, rel=1e-5
    )
    for members in (made[:1], made[4:]):  # other batches, other padding
        found = transformers_likelihood.answer_nll(model, members, 0, prefix)
        assert found == pytest.approx([plain_nll(model, prompt) for prompt in members], rel=1e-5)


def test_an_empty_answer_costs_nothing_and_is_refused() -> None:
    empty = prompts.Prompt("r", "", [4, 5], 0, "", [])
    assert transformers_likelihood.answer_nll(make_model("llama"), [empty], 0) == [0.0]
    with pytest.raises(UserError, match="reference of report r is empty"):
        likelihood.check_answers([empty], "eval.csv", "impression")


def test_scores_that_are_no_numbers_stop_the_run() -> None:
    table = pd.DataFrame({"id": ["a", "b"], "nll": [1.0, float("nan")]})
    with pytest.raises(UserError, match="not finite for 1 reports, first b"):
        likelihood.check_finite(table)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("bits", [None, 8])
def test_the_script(data: Path, tmp_path: Path, bits: int | None) -> None:
    model = "original" if bits is None else "checkpoint"
    rounding = None if bits is None else Activations(bits=bits)
    extra = () if bits is None else ("--activations", json.dumps({"bits": bits}))
    run_script("likelihood", data, tmp_path / "x", "--examples", "1", *extra, model=model)
    table = pd.read_parquet(tmp_path / "x.parquet")
    record = json.loads((tmp_path / "x.json").read_text())
    evaluation = pd.read_csv(data / "eval.csv")
    assert list(table["id"]) == list(evaluation["id"])
    tokenizer = AutoTokenizer.from_pretrained(data / model)
    counts = [len(tokenizer(text).input_ids) for text in evaluation["impression"]]
    assert list(table["tokens"]) == counts
    assert record["tokens"] == sum(counts)
    assert record["activation_layers"] == (14 if bits else 0)
    assert record["activations"] == as_values(rounding)
    assert (record["kv_cache"], record["stored_prefix_tokens"]) == (None, 0)
    assert record["date"] == "2025-01-01"  # which a chat template would be told

    # Row by row, from the text of the prompt, without this package's prompts.
    loaded = load(data / model, rounding=rounding)
    train = pd.read_csv(data / "train.csv", dtype=str).to_dict("records")
    shot = prompts.draw_examples(train, ["findings"], "impression", 1, 40, 7)[0]
    for row, found in zip(evaluation.to_dict("records"), table["nll"], strict=True):
        head = f"findings : {shot['findings']} impression :\n{shot['impression']}\n\n"
        head += f"findings : {row['findings']} impression :\n"
        ids, answer = (tokenizer(text).input_ids for text in (head, row["impression"]))
        plain = plain_nll(loaded.model, prompts.Prompt("", "", ids, 0, "", answer))
        assert found == pytest.approx(plain, rel=1e-4)
