"""What does not fit together is refused with one sentence that says what and where."""

import numpy as np
import pytest
from reading import read_jsonl
from report_run import CONFIG, change_record, change_table, make_results

from radquant.errors import UserError
from radquant.files import read_json, read_table, write_jsonl, write_table
from radquant.reporting.collect import collect
from radquant.settings.precision import KVCache, as_values

KV4 = as_values(KVCache(bits=4))


@pytest.fixture
def results(tmp_path):
    """A finished run that the test may spoil."""
    return make_results(tmp_path / "results")


def spoil_annotator(results):
    change_table(results / "scores/w4a8.parquet", lambda t: t.assign(annotator="radgraph-xl (ab)"))


def spoil_rewards(results):
    change_table(results / "scores/w4a8.parquet", lambda t: t.assign(rewards="radgraph 0.1.17"))


def spoil_all_annotators(results):
    for path in results.glob("scores/*.parquet"):
        change_table(path, lambda table: table.assign(annotator="radgraph-xl (ab)"))


def spoil_annotation(results):
    path = results / "annotations/w4a8/shard-2-of-2.jsonl"
    write_jsonl(path, [note | {"annotator": "radgraph-xl (ab)"} for note in read_jsonl(path)])


def swap_annotations(results):
    first, second = [results / f"annotations/w4a{bits}/shard-1-of-2.jsonl" for bits in (8, 4)]
    write_jsonl(second, read_jsonl(first))


def lose_annotations(results):
    (results / "annotations/reference.jsonl").unlink()


def drop_annotation(results):
    path = results / "annotations/w4a8/shard-2-of-2.jsonl"
    write_jsonl(path, read_jsonl(path)[1:])


def drop_score_row(results):
    change_table(results / "scores/w4a8.parquet", lambda table: table.iloc[1:])


def reorder_scores(results):
    change_table(results / "scores/w4a8.parquet", lambda table: table.iloc[::-1])


def spoil_score(results):
    change_table(results / "scores/w4a8.parquet", lambda table: table.assign(partial=np.nan))


def drop_output(results):
    change_table(results / "generations/w4a8/shard-1-of-2.parquet", lambda table: table.iloc[1:])


def repeat_shard(results):
    first = results / "generations/w4a8/shard-1-of-2.parquet"
    write_table(results / "generations/w4a8/shard-2-of-2.parquet", read_table(first))


def lose_shard(results):
    (results / "generations/w4a8/shard-2-of-2.parquet").unlink()


def change_prompt(results):
    path = results / "generations/w4a8/shard-2-of-2.parquet"
    change_table(path, lambda table: table.assign(prompt_hash="other"))


def quantize_nothing(results):
    for path in results.glob("generations/w4a16/*.json"):
        change_record(path, layers_quantized=0)


def round_no_activations(results):
    for path in results.glob("generations/w4a8/*.json"):
        change_record(path, activation_layers=0)


def round_otherwise(results):
    path = results / "generations/w4a4/shard-2-of-2.json"
    change_record(path, activations=read_json(path)["activations"] | {"granularity": "tensor"})


def round_the_cache(results):
    change_record(results / "generations/w4a16/shard-1-of-2.json", kv_cache={**KV4})


def round_the_head(results):
    path = results / "generations/w4a16/shard-1-of-2.json"
    change_record(path, lm_head={"bits": 8, "group_size": 64})


def score_otherwise(results):
    change_record(results / "likelihood/w4a8.json", activations=None)


def store_a_prefix_in_one_shard(results):
    change_record(results / "generations/w4a16-rtn/shard-2-of-2.json", stored_prefix_tokens=1)


def lose_the_prefix(results):
    """As if the checkpoint had been quantized again after its precisions ran."""
    change_record(results / "checkpoints/awq-w4/quantization.json", prefix=[13, 2])


def swap_likelihoods(results):
    change_record(results / "likelihood/w4a8.json", precision="w4a4")


def change_dtype(results):
    change_record(results / "generations/w4a8/shard-2-of-2.json", dtype="bfloat16")


def change_threads(results):
    change_record(results / "generations/w4a4/shard-1-of-2.json", threads=4)


def change_tokens(results):
    change_table(results / "likelihood/w4a8.parquet", lambda table: table.assign(tokens=11))


def spoil_nll(results):
    change_table(results / "likelihood/w4a8.parquet", lambda table: table.assign(nll=np.inf))


def lose_weights(results):
    (results / "checkpoints/awq-w4/model.safetensors").unlink()


def swap_records(results):
    change_record(results / "generations/w4a8/shard-1-of-2.json", precision="w4a4")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_annotator, "different values of 'annotator'.*radgraph-xl"),
        (spoil_rewards, "different values of 'rewards'"),
        (spoil_all_annotators, "asks for lexicon"),
        (spoil_annotation, "of w4a8 come from radgraph-xl .*scores from lexicon 1"),
        (swap_annotations, "w4a4's output of report .* another text"),
        (lose_annotations, "reference.jsonl does not exist"),
        (drop_annotation, "annotations/w4a8 has 23 rows"),
        (drop_score_row, "23 rows.*24 reports"),
        (reorder_scores, "row 1: id .* cannot be paired"),
        (spoil_score, "'partial'.*not numbers"),
        (drop_output, "12 reports.*holds 11"),
        (repeat_shard, "more than once"),
        (lose_shard, "shard-2-of-2.parquet does not exist"),
        (change_prompt, "w4a8: 12 report.* another prompt"),
        (quantize_nothing, "w4a16, shard 1 had 0 quantized layers instead of 3"),
        (round_no_activations, "had 0 layers with quantized activations instead of 3"),
        (
            round_otherwise,
            "w4a4, shard 2 had activations of 4 bits, per tensor, dynamic, symmetric instead of "
            "4 bits, per token, dynamic, symmetric; delete",
        ),
        (round_the_cache, "had a KV cache of 4 bits, per head, asymmetric instead of full prec"),
        (round_the_head, "had a head of 8 bits, per group of 64 instead of full precision"),
        (score_otherwise, "likelihood/w4a8 had activations of full precision instead of 8 bits"),
        (store_a_prefix_in_one_shard, "w4a16-rtn, shard 2 had a stored prefix of 1 tokens instead"),
        (lose_the_prefix, "w4a16, shard 1 had a stored prefix of 0 tokens instead of 2;"),
        (swap_likelihoods, "likelihood/w4a8 is of precision 'w4a4'"),
        (change_dtype, "w4a8, shard 2 ran with dtype 'bfloat16'"),
        (change_threads, "threads 4"),
        (change_tokens, "other tokens"),
        (spoil_nll, "no finite likelihood"),
        (lose_weights, "no model.*safetensors"),
        (swap_records, "record of precision 'w4a4'"),
    ],
)
def test_what_cannot_be_compared_is_refused(results, spoil, message):
    spoil(results)
    with pytest.raises(UserError, match=message) as caught:
        collect(results, CONFIG)
    assert "\n" not in str(caught.value)
    assert "odule" not in str(caught.value)
