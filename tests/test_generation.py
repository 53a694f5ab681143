"""Batches, the shared prefix, greedy decoding against a plain loop, and the script."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_llama
from tiny_reports import model_and_splits, prompt_of, random_prompts, run_script
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from radquant.checkpoints.loading import Loaded, load
from radquant.errors import UserError
from radquant.generation import batching, measures
from radquant.generation import transformers_writing as engine
from radquant.generation.prefix import NOTHING, run_prefix
from radquant.generation.process_costs import peak_process_bytes
from radquant.settings.precision import Activations, KVCache, as_values

# -------------------------------------------------------------------------------------- batches


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 7), st.integers(1, 9), st.randoms())
def test_shards_only_deal_out_the_same_batches(lengths, batch_size, shards, random) -> None:
    made = [prompt_of([5] * n, f"r{number:02}") for number, n in enumerate(lengths)]
    plan = batching.plan_batches(made, batch_size)
    assert sorted(i for batch in plan for i in batch) == list(range(len(made)))
    assert all(len(batch) == batch_size for batch in plan[:-1])
    dealt = [batching.batches_of_shard(plan, n, shards) for n in range(1, shards + 1)]
    assert sorted(batch for shard in dealt for batch in shard) == sorted(plan)
    flat = [len(made[i].ids) for batch in plan for i in batch]
    assert flat == sorted(flat)
    # The order of the file changes no batch.
    other = random.sample(made, len(made))
    names = [[other[i].id for i in batch] for batch in batching.plan_batches(other, batch_size)]
    assert names == [[made[i].id for i in batch] for batch in plan]


@pytest.mark.parametrize(("shard", "shards"), [(0, 2), (3, 2), (1, 0)])
def test_a_shard_that_is_not_there(shard: int, shards: int) -> None:
    with pytest.raises(UserError, match="no shard"):
        batching.batches_of_shard([[0]], shard, shards)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=2, max_size=5))
def test_the_shared_prefix_leaves_every_prompt_a_token(sequences: list[list[int]]) -> None:
    found = batching.shared_prefix([prompt_of(ids) for ids in sequences])
    shortest = min(map(len, sequences))
    lengths = [n for n in range(shortest) if len({tuple(ids[:n]) for ids in sequences}) == 1]
    assert found == sequences[0][: max(lengths)]


def test_padding_stands_between_prefix_and_rest() -> None:
    ids, mask = batching.pad_left([[7, 8, 1], [7, 8, 2, 3, 4]], 2, 0, torch.device("cpu"))
    assert ids.tolist() == [[7, 8, 0, 0, 1], [7, 8, 2, 3, 4]]
    assert mask.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]


# ------------------------------------------------------------------------------------ the engine


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(tiny_llama(tmp_path_factory.mktemp("llama")))


def plain_greedy(model: Any, ids: list[int], count: int, end: int) -> list[int]:
    """Decode one sequence without cache, padding or Hugging Face's generate()."""
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < count and new[-1:] != [end]:
            logits = model(torch.tensor([ids + new]), use_cache=False).logits
            new.append(int(logits[0, -1].argmax()))
    return new


def test_outputs_equal_plain_greedy_decoding(loaded: Loaded) -> None:
    made = random_prompts(7)
    # The checkpoint asks for everything that must not happen.
    loaded.model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=3,
        repetition_penalty=1.9,
        no_repeat_ngram_size=2,
        min_new_tokens=9,
        bad_words_ids=[[4]],
        max_length=3,
    )
    config = engine.greedy_config(loaded.model, 12, [2, 15], 0)
    shared = run_prefix(loaded.model, batching.shared_prefix(made), 128)
    assert shared.length >= 9
    plain = [plain_greedy(loaded.model, prompt.ids, 12, 99) for prompt in made]
    expected = []
    for tokens in plain:
        ends = [place for place, token in enumerate(tokens) if token in (2, 15)]
        expected.append(tokens[: ends[0] + 1] if ends else tokens)
    assert len({len(tokens) for tokens in expected}) > 1  # some end, some are cut off
    for prefix in (NOTHING, shared):
        outputs, seconds = engine.generate_batches(
            loaded.model, loaded.tokenizer, config, [made[:3], made[3:]], prefix=prefix
        )
        assert [output.tokens for output in outputs] == [len(tokens) for tokens in expected]
        for output, tokens in zip(outputs, expected, strict=True):
            assert output.text == loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            assert output.finish == ("stop" if tokens[-1] in (2, 15) else "length")
        assert len(seconds) == 2


def test_the_prefix_changes_no_logits(loaded: Loaded) -> None:
    made = random_prompts(5)
    prefix = run_prefix(loaded.model, batching.shared_prefix(made), 128)
    ids, mask = batching.pad_left([p.ids for p in made], prefix.length, 0, torch.device("cpu"))
    positions = (mask.cumsum(-1) - 1)[:, prefix.length :].clamp(min=0)
    with torch.inference_mode():
        found = loaded.model(
            input_ids=ids[:, prefix.length :],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prefix.expanded(len(made)),
        ).logits[:, -1]
        for row, prompt in enumerate(made):
            expected = loaded.model(torch.tensor([prompt.ids])).logits[0, -1]
            torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)
    assert prefix.cache.get_seq_length() == prefix.length  # used on copies only


def test_no_prefix_is_shared_beyond_a_sliding_window() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"vocab_size": 20, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = MistralForCausalLM(MistralConfig(**sizes, sliding_window=16))
    assert run_prefix(model, [4, 5, 6], 16).length == 3
    assert run_prefix(model, [4, 5, 6], 17) is NOTHING
    assert run_prefix(LlamaForCausalLM(LlamaConfig(**sizes)), [], 16) is NOTHING


def test_stop_strings_end_an_output_and_are_cut_off(loaded: Loaded) -> None:
    made = random_prompts(6)
    config = engine.greedy_config(loaded.model, 10, [2], 0)
    free, _ = engine.generate_batches(loaded.model, loaded.tokenizer, config, [made])
    words = free[0].text.split()
    mark = words[3]
    cut, _ = engine.generate_batches(loaded.model, loaded.tokenizer, config, [made], [mark])
    assert mark in " ".join(output.text for output in free)
    for before, after in zip(free, cut, strict=True):
        if mark in before.text:
            assert after.text == before.text.partition(mark)[0].strip()
            assert after.finish == "stop"
            assert after.tokens <= before.tokens
        else:
            assert after == before
    assert cut[0].tokens == words.index(mark) + 1


def test_configurations_that_cannot_work(loaded: Loaded) -> None:
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        engine.greedy_config(loaded.model, 0, [2], 0)
    with pytest.raises(UserError, match="names no token that ends an answer"):
        engine.greedy_config(loaded.model, 5, [], 0)


def test_measures() -> None:
    assert measures.latency_summary([])["max"] is None
    summary = measures.latency_summary([1.0, 2.0, 6.0])
    assert (summary["mean"], summary["p50"], summary["max"]) == (3.0, 2.0, 6.0)
    with measures.stopwatch(torch.device("cpu")) as spent:
        sum(range(200_000))
    assert 0 < spent.cpu_seconds <= spent.wall_seconds * 1.5
    assert peak_process_bytes() > 50_000_000  # torch alone takes more


# ------------------------------------------------------------------------------------ the script


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


GENERATE = ("--examples", "2", "--max-new-tokens", "6")


def generate(data: Path, out: Path, *options: str, model: str = "original") -> tuple[Any, Any]:
    run_script("generate", data, out, *GENERATE, *options, model=model)
    return pd.read_parquet(f"{out}.parquet"), json.loads(Path(f"{out}.json").read_text())


def test_a_rounded_head_in_either_engine(data: Path, tmp_path: Path) -> None:
    """The decoder keeps it packed; transformers holds the same values, which saves nothing."""
    head = ("--lm-head", '{"bits": 8, "group_size": 32}')
    tables, records = {}, {}
    for name in ("lean", "transformers"):
        options = ("--engine", name, *head)
        tables[name], records[name] = generate(data, tmp_path / name, *options, model="checkpoint")
    pd.testing.assert_frame_equal(tables["lean"], tables["transformers"])
    assert {key: record["simulated"] for key, record in records.items()} == {
        "lean": False,
        "transformers": True,
    }
    assert records["lean"]["lm_head"] == {"bits": 8, "group_size": 32}
    _, plain = generate(data, tmp_path / "plain", "--engine", "lean", model="checkpoint")
    assert records["lean"]["weight_bytes"] < plain["weight_bytes"]


@pytest.mark.parametrize(
    ("rounding", "cache"),
    [
        (None, None),
        (Activations(bits=8, granularity="tensor"), None),
        (Activations(bits=8, skip=("down_proj",)), None),
        (None, KVCache(bits=4)),
    ],
)
def test_shards_change_no_output(
    data: Path, tmp_path: Path, rounding: Activations | None, cache: KVCache | None
) -> None:
    extra = []
    if rounding:
        extra += ["--activations", json.dumps(as_values(rounding))]
    if cache:
        extra += ["--kv-cache", json.dumps(as_values(cache))]
    model = "checkpoint" if extra else "original"
    whole, record = generate(data, tmp_path / "whole", *extra, model=model)
    evaluation = pd.read_csv(data / "eval.csv")
    assert list(whole["id"]) == list(evaluation["id"])
    parts, records = [], []
    for shard in range(1, 7):  # four batches: two shards have nothing to do
        options = ("--shard", str(shard), "--shards", "6", *extra)
        table, metrics = generate(data, tmp_path / f"part{shard}", *options, model=model)
        parts.append(table)
        records.append(metrics)
        assert (table.dtypes == whole.dtypes).all()
    together = pd.concat(parts).set_index("id").loc[list(whole["id"])].reset_index()
    pd.testing.assert_frame_equal(together, whole)
    for field in ("reports", "batches", "prompt_tokens", "output_tokens", "truncated_prompts"):
        assert sum(part[field] for part in records) == record[field]
    assert [part["batches"] for part in records] == [1, 1, 1, 1, 0, 0]
    assert records[5]["tokens_per_second"] is None
    assert record["activations"] == as_values(rounding)
    assert record["kv_cache"] == as_values(cache)
    assert record["lm_head"] is None
    assert record["layers_quantized"] == (14 if extra else 0)
    assert record["activation_layers"] == (14 - 2 * len(rounding.skip) if rounding else 0)
    # A scale over a whole prompt cannot be taken from parts of it.
    of_a_tensor = rounding is not None and rounding.granularity == "tensor"
    assert (record["shared_prefix_tokens"] == 0) == of_a_tensor
    assert record["stored_prefix_tokens"] == 0
    assert record["output_tokens"] == whole["output_tokens"].sum()


def test_only_the_first_reports_are_written(data: Path, tmp_path: Path) -> None:
    """Their prompts are those of the whole, examples included."""
    whole, _ = generate(data, tmp_path / "whole")
    part, record = generate(data, tmp_path / "part", "--reports", "4")
    assert list(part["id"]) == list(pd.read_csv(data / "eval.csv")["id"][:4])
    assert record["reports"] == 4
    assert list(part["prompt_hash"]) == list(whole["prompt_hash"][:4])


def test_equal_runs_write_equal_tables(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate(data, tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_long_prompt_is_truncated_and_counted(data: Path, tmp_path: Path) -> None:
    table, record = generate(data, tmp_path / "x", "--max-new-tokens", "100")
    assert (table["prompt_tokens"] <= 28).all()
    assert (table["truncated_tokens"] > 0).sum() == record["truncated_prompts"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt-text", "{finding}"), "is no column; the columns are id, findings, impression"),
        (("--prompt-text", "{impression}"), "holds the reference"),
        (("--examples", "9"), "9 few-shot examples were asked for but only 3"),
        (("--train", "EVAL"), "is both a few-shot example and a report to evaluate"),
        (("--shards", "0"), "shards is 0 and must be at least 1"),
        (("--activations", '{"bits": 8}'), "no packed linear layer"),
        (
            ("--activations", '{"bits": 8, "bit": 8}'),
            "activations.bit is not a known key; did you mean bits?",
        ),
        (("--activations", "8"), "activations must be of type object, not '8'"),
        (("--kv-cache", '{"bits": 4}'), "whose cache stays as it is"),
        (("--reports", "99"), "eval.csv were asked for, and it holds"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_wrong_input_is_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options, message: str
) -> None:
    options = tuple(str(data / "eval.csv") if option == "EVAL" else option for option in options)
    with pytest.raises(SystemExit) as exit_:
        generate(data, tmp_path / "x", *options)
    assert exit_.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_double_ids_are_refused(data: Path, tmp_path: Path, capsys) -> None:
    table = pd.read_csv(data / "eval.csv")
    pd.concat([table, table[:1]]).to_csv(tmp_path / "double.csv", index=False)
    with pytest.raises(SystemExit):
        generate(data, tmp_path / "x", "--eval", str(tmp_path / "double.csv"))
    assert "column 'id': 'r100' appears more than once" in capsys.readouterr().err
