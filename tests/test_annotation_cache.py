"""Annotations by text and model: never another model's, never half of one."""

import json
import multiprocessing
from pathlib import Path

import pytest

from radquant.scoring.annotation_cache import Cache

ENTITY = {"tokens": "edema", "label": "x", "start_ix": 0, "end_ix": 0, "relations": []}


def annotator(mark="", calls=None):
    """Annotates in reverse order, as one may; `calls` gets what was asked of it."""

    def annotate(texts):
        (calls if calls is not None else []).append(list(texts))
        for text in reversed(texts):
            yield text, {"text": text + mark, "entities": {"1": {**ENTITY, "tokens": text}}}

    return annotate


def refuse(texts):
    raise AssertionError("nothing was left to annotate")
    yield


def test_a_text_is_annotated_once_for_all_files(tmp_path):
    calls = []
    first = dict(Cache(tmp_path, "model a").annotate(["x", "y"], annotator(calls=calls)))
    second = dict(Cache(tmp_path, "model a").annotate(["y", "z", "x"], annotator(calls=calls)))
    assert calls == [["x", "y"], ["z"]]
    assert {text: second[text] for text in "xy"} == first
    assert dict(Cache(tmp_path, "model a").annotate(["x", "y", "z"], refuse)) == second


def test_another_model_has_its_own(tmp_path):
    dict(Cache(tmp_path, "model a").annotate(["x"], annotator("a")))
    found = dict(Cache(tmp_path, "model b").annotate(["x"], annotator("b")))
    assert found["x"]["text"] == "xb"


def kept(directory):
    return [path for path in Path(directory).rglob("*") if path.is_file()]


def changed(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text(path.read_text()[:-5]),
        lambda path: path.write_text(""),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[]"),
        lambda path: changed(path, key="model b"),
        lambda path: changed(path, text_hash="0" * 64),
        lambda path: changed(path, annotation={"text": "x"}),
        lambda path: changed(path, annotation={"text": "x", "entities": {"1": {"tokens": "x"}}}),
    ],
)
def test_what_is_spoilt_is_made_again(tmp_path, spoil):
    expected = dict(Cache(tmp_path, "model a").annotate(["x"], annotator()))
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    spoil(path)
    assert dict(Cache(tmp_path, "model a").annotate(["x"], annotator())) == expected
    assert path.read_bytes() == whole


def test_what_was_annotated_before_a_failure_is_kept(tmp_path):
    def fail_at_the_second(texts):
        yield texts[0], {"text": "x", "entities": {}}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        dict(Cache(tmp_path, "model a").annotate(["x", "y"], fail_at_the_second))
    calls = []
    dict(Cache(tmp_path, "model a").annotate(["x", "y"], annotator(calls=calls)))
    assert calls == [["y"]]


def fill(directory, start):
    texts = [f"text {number}" for number in range(60)]
    texts = texts[start:] + texts[:start]
    found = dict(Cache(directory, "model a").annotate(texts, annotator()))
    assert all(found[text]["text"] == text for text in texts)


def test_jobs_may_write_the_same_texts_at_once(tmp_path):
    jobs = [
        multiprocessing.get_context("fork").Process(target=fill, args=(tmp_path, start))
        for start in (0, 20, 40, 0)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    assert len(kept(tmp_path)) == 60  # and nothing half written beside them
    fill(tmp_path, 0)
