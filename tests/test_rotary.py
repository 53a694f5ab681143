"""Positions that long sequences read otherwise: no sequence of a batch changes another's result."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tiny_models import WORDS

from radquant.errors import UserError
from radquant.generation import batching, prefix, transformers_likelihood, transformers_writing
from radquant.generation.rotary import switching_length
from radquant.generation.tasks import Task
from radquant.prompts import Prompt
from radquant.runtime.runtime_file import Runtime, StoredPrefix

SWITCH = 24
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "eos_token_id": None,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0] * 8,
    "original_max_position_embeddings": SWITCH,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}


def make_model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "longrope":
        own = {"original_max_position_embeddings": SWITCH, "max_position_embeddings": 96}
        config: Any = transformers.Phi3Config(**SIZES, **own, rope_parameters=dict(LONGROPE))
    else:
        own = {"max_position_embeddings": SWITCH, "rope_parameters": dict(DYNAMIC)}
        config = transformers.LlamaConfig(**SIZES, **own)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def loaded(model: Any, **more: Any) -> Any:
    """A loaded model that writes numbers as its text, and never ends by itself."""
    tokenizer = SimpleNamespace(
        pad_token_id=0, decode=lambda ids, **_: " ".join(map(str, ids)), all_special_tokens=[]
    )
    given = {"runtime": Runtime(), "kv_cache": None, "tokenizer": tokenizer, **more}
    return SimpleNamespace(model=model, **given)


def make_prompts(lengths: Sequence[int]) -> list[Prompt]:
    """Prompts that begin with eight equal tokens and have answers of four."""
    draw = torch.Generator().manual_seed(1)
    shared = torch.randint(3, len(WORDS), (8,), generator=draw).tolist()
    made = []
    for length in lengths:
        rest = torch.randint(3, len(WORDS), (length - 4,), generator=draw).tolist()
        made.append(Prompt(str(length), "", shared + rest[:-8], 0, "", rest[-8:][:4]))
    return made


def task(made: list[Prompt], **more: Any) -> Task:
    longest = max(len(p.ids) + len(p.answer_ids) for p in made) + more.get("max_new_tokens", 0)
    shared = batching.shared_prefix(made)
    return Task("", [made], shared, longest, len(made), **more)


# Short, just short, just long, long; and short again, behind what the model may have kept.
LENGTHS = (16, SWITCH, SWITCH + 1, 40, 18)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_likelihood_is_that_of_each_sequence_alone(kind: str) -> None:
    made = make_prompts(LENGTHS)
    expected = []
    for prompt in made:
        ids = torch.tensor([prompt.ids + prompt.answer_ids])
        with torch.inference_mode():
            scores = make_model(kind)(ids).logits[0, :-1].double().log_softmax(-1)
        chosen = scores.gather(-1, ids[0, 1:, None])[-len(prompt.answer_ids) :]
        expected.append(-float(chosen.sum()))
    found = transformers_likelihood.score(loaded(make_model(kind)), task(made))
    assert found.results == pytest.approx(expected, abs=1e-4)
    assert found.shared_tokens == 0
    short = make_prompts((14, 18, 20))
    assert transformers_likelihood.score(loaded(make_model(kind)), task(short)).shared_tokens > 0


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_what_is_written_is_that_of_each_prompt_alone(kind: str) -> None:
    made = make_prompts((16, 22, 26, 44, 18))
    expected = []
    for prompt in made:
        ids = torch.tensor([prompt.ids])
        new = make_model(kind).generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
        )
        expected.append(" ".join(map(str, new[0, ids.shape[1] :].tolist())))
    asked = task(made, max_new_tokens=8, end_ids=(len(WORDS) + 5,))
    found = transformers_writing.write(loaded(make_model(kind)), asked)
    assert [output.text for output in found.results] == expected


@pytest.mark.parametrize("kind", ["mpt", "gpt_neo", "llama4_text"])
def test_padding_between_shared_tokens_and_the_rest_is_not_counted(kind: str) -> None:
    """ALiBi, local windows and chunks, which go by columns and not by positions."""
    torch.manual_seed(0)
    usual = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": None}
    configs: dict[str, Any] = {
        "mpt": lambda: transformers.MptConfig(d_model=32, n_heads=2, n_layers=2, **usual),
        "gpt_neo": lambda: transformers.GPTNeoConfig(
            **dict(hidden_size=32, num_layers=2, num_heads=2, window_size=8, **usual),
            attention_types=[[["global", "local"], 1]],
        ),
        "llama4_text": lambda: transformers.Llama4TextConfig(
            **SIZES,
            head_dim=16,
            intermediate_size_mlp=64,
            num_local_experts=2,
            attention_chunk_size=16,
        ),
    }
    model = transformers.AutoModelForCausalLM.from_config(configs[kind]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    made = make_prompts((16, 44, 18))
    expected = [transformers_likelihood.score(loaded(model), task([p])).results[0] for p in made]
    found = transformers_likelihood.score(loaded(model), task(made))
    assert found.results == pytest.approx(expected, abs=1e-3)
    assert found.shared_tokens == 0


def test_what_was_read_before_is_not_kept_across_the_switch() -> None:
    model = make_model("longrope")
    states = [torch.zeros(1, 1, 1, 16)] * 2
    kept = loaded(model, runtime=Runtime(prefix=StoredPrefix((1,), states, states)))
    assert prefix.begin(kept, SWITCH).length == 1
    with pytest.raises(UserError, match=f"exceed the {SWITCH} from which on"):
        prefix.begin(kept, SWITCH + 1)


def test_which_models_switch() -> None:
    assert switching_length(make_model("longrope").config) == SWITCH
    assert switching_length(make_model("dynamic").config) == SWITCH
    fixed = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    assert switching_length(transformers.LlamaConfig(**SIZES, rope_parameters=fixed)) is None
    assert switching_length(transformers.GPT2Config()) is None
    layers = {"full_attention": dict(DYNAMIC), "sliding_attention": dict(fixed)}
    nested = SimpleNamespace(rope_parameters=layers, max_position_embeddings=99)
    assert switching_length(nested) == 99
