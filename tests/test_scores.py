import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from reading import read_jsonl
from rouge_score.rouge_scorer import RougeScorer

from radquant.errors import UserError
from radquant.files import read_table, sha256_file, write_jsonl, write_table
from radquant.scoring import lexicon, records, rewards, scores

REPOSITORY = Path(__file__).parents[1]
REFERENCES = {
    "r1": "Small left pleural effusion.",
    "r2": "No acute disease, really.",
    "r3": "Mild cardiomegaly without edema.",
    "r4": "Right lower lobe pneumonia.",
}
ORIGINAL = {
    "r1": "Small left pleural effusion. Mild edema.",
    "r2": "No acute disease.",
    "r3": "",
    "r4": "Right lower lobe opacity may represent pneumonia.",
}
FINDINGS = {"r1": "Effusion.", "r2": "Clear lungs.", "r3": "A large heart.", "r4": "No change."}
TEMPLATE = "Write what matters most of these findings in one sentence.\n{findings}\nImpression:"
ENTITY = {"tokens": "a", "label": "b", "start_ix": 0, "end_ix": 0, "relations": []}
OUTPUT = {
    "r1": "No pleural effusion. Mild edema. Cardiomegaly.",
    "r2": "No acute disease.",
    "r3": "",
    "r4": "Opacity.",
}


@pytest.fixture
def files(tmp_path):
    """Evaluation reports, and outputs of two systems in two shards, each with its annotations."""
    evaluation = tmp_path / "eval.csv"
    table = {"id": list(REFERENCES), "impression": list(REFERENCES.values())}
    write_table(evaluation, pd.DataFrame(table).assign(findings=list(FINDINGS.values())))
    write_annotations(tmp_path / "reference.jsonl", REFERENCES)
    result = {
        "evaluation": evaluation,
        "target": "impression",
        "reference": tmp_path / "reference.jsonl",
        "template": TEMPLATE,
    }
    for system, outputs in (("original_", ORIGINAL), ("", OUTPUT)):
        result[f"{system}generations"], result[f"{system}annotations"] = [], []
        # Shards are not in the order of the evaluation reports.
        for shard, names in enumerate((["r4", "r1"], ["r3", "r2"])):
            texts = {name: outputs[name] for name in names}
            path = tmp_path / f"{system}{shard}.parquet"
            write_table(path, pd.DataFrame({"id": list(texts), "output": list(texts.values())}))
            write_annotations(path.with_suffix(".jsonl"), texts)
            result[f"{system}generations"].append(path)
            result[f"{system}annotations"].append(path.with_suffix(".jsonl"))
    return result


def write_annotations(path, texts, annotator="lexicon 1 (sha256 000000000000)"):
    built = records.build(list(texts), list(texts.values()), annotator, lexicon.annotate)
    write_jsonl(path, built)


def change(path, name, **fields):
    write_jsonl(
        path,
        [{**record, **fields} if record["id"] == name else record for record in read_jsonl(path)],
    )


def test_scores_by_hand(files):
    table = scores.score(**files).set_index("id", drop=False)
    assert list(table["id"]) == list(REFERENCES)
    assert set(table["annotator"]) == {"lexicon 1 (sha256 000000000000)"}
    assert set(table["rewards"]) == {rewards.identity()}
    # r1: small, left, pleural, effusion present; output: pleural, mild, edema, cardiomegaly
    # present and effusion absent. Only pleural is shared: 2·1/(4+5).
    assert table.loc["r1", "simple"] == pytest.approx(2 / 9)
    # The definitions of RadGraph 1.0 count the same entities here, and no relation is shared.
    rg1 = table.loc["r1", ["rg1_entities", "rg1_relations", "rg1_mean"]]
    assert list(rg1) == pytest.approx([2 / 9, 0, 1 / 9])
    # The original's output adds mild and edema to the reference: pleural, mild, edema are shared.
    assert table.loc["r1", "fidelity_simple"] == pytest.approx(6 / 11)
    assert table.loc["r1", "output_words"] == 6
    assert not table.loc["r1", "identical"]


def test_only_the_first_reports_are_written(files):
    """Not a row more or less of the outputs; the references are annotated whole."""
    whole = scores.score(**files)
    for system in ("", "original_"):
        files[f"{system}generations"] = files[f"{system}generations"][1:]  # r3 and r2
        files[f"{system}annotations"] = files[f"{system}annotations"][1:]
    with pytest.raises(UserError, match=r"2 of the 4 evaluation reports are missing.*'r1'"):
        scores.score(**files)
    with pytest.raises(UserError, match=r"1 of the 2 evaluation reports are missing.*'r1'"):
        scores.score(**files, reports=2)
    with pytest.raises(UserError, match=r"5 reports of .*eval\.csv were asked for, and it holds 4"):
        scores.score(**files, reports=5)
    table = pd.read_csv(files["evaluation"]).set_index("id").loc[["r3", "r2", "r1", "r4"]]
    write_table(files["evaluation"], table.reset_index())
    found = scores.score(**files, reports=2)
    expected = whole.set_index("id").loc[["r3", "r2"]].reset_index()
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(UserError, match="1 reports are not among the 1 evaluation"):
        scores.score(**files, reports=1)


def test_identical_outputs_have_full_fidelity(files):
    table = scores.score(**files).set_index("id")
    fidelity = ["fidelity_simple", "fidelity_partial", "fidelity_complete", "rouge_l_original"]
    for name in ("r2", "r3"):  # r3 is empty: no entity, no word
        assert table.loc[name, "identical"]
        assert list(table.loc[name, fidelity]) == [1, 1, 1, 1]
        assert table.loc[name, "changes"] == "[]"
    assert list(table["empty"]) == [False, False, True, False]
    assert table.loc["r3", "simple"] == table.loc["r3", "rouge_l"] == 0


def test_rouge_is_that_of_the_package(files):
    table = scores.score(**files).set_index("id")
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for name, output in OUTPUT.items():
        expected = scorer.score(REFERENCES[name], output)["rougeL"].fmeasure
        assert table.loc[name, "rouge_l"] == expected


def test_rouge_needs_no_scipy_and_leaves_it_to_others():
    program = (
        "import sys; from radquant.scoring.metrics import rouge; from types import SimpleNamespace;"
        "pair = SimpleNamespace(identical=True, reference='clear lungs', output='clear lung');"
        "assert rouge.measure(pair) == (1.0, 1.0); assert 'scipy.stats' not in sys.modules;"
        "from scipy.stats import norm; assert norm.cdf(0) == 0.5;"
        "import nltk; assert nltk.stem.PorterStemmer().stem('lungs') == 'lung'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_clinical_columns_by_hand(files):
    table = scores.score(**files).set_index("id").loc["r1"]
    assert json.loads(table["statuses"]) == {
        "cardiomegaly": "present",
        "pleural effusion": "absent",
        "pulmonary edema": "present",
    }
    assert json.loads(table["reference_statuses"]) == {"pleural effusion": "present"}
    assert json.loads(table["changes"]) == [
        {
            "kind": "negated",
            "finding": "pleural effusion",
            "before": "Small left pleural effusion.",
            "after": "No pleural effusion.",
        },
        {"kind": "invented", "finding": "cardiomegaly", "before": "", "after": "Cardiomegaly."},
    ]
    assert table["unsupported"] == table["flags"] == "[]"


@pytest.mark.parametrize(
    ("output", "finish", "flags"),
    [
        (" \n", "stop", ["empty"]),
        ("Write what matters most of these findings in one", "length", ["prompt echo", "cut off"]),
        ("Edema.", None, []),
    ],
)
def test_flags_know_the_prompt_and_how_the_output_ended(files, tmp_path, output, finish, flags):
    texts = OUTPUT | {"r1": output}
    path = tmp_path / "all.parquet"
    table = pd.DataFrame({"id": list(texts), "output": list(texts.values())})
    write_table(path, table if finish is None else table.assign(finish_reason=finish))
    write_annotations(path.with_suffix(".jsonl"), texts)
    files |= {"generations": [path], "annotations": [path.with_suffix(".jsonl")]}
    assert json.loads(scores.score(**files).set_index("id").loc["r1", "flags"]) == flags


def test_claims_about_a_prior_are_held_against_the_columns_of_the_prompt(files, tmp_path):
    texts = dict.fromkeys(OUTPUT, "Unchanged edema.")  # r4's findings compare, the others' do not
    path = tmp_path / "all.parquet"
    write_table(path, pd.DataFrame({"id": list(texts), "output": list(texts.values())}))
    write_annotations(path.with_suffix(".jsonl"), texts)
    files |= {"generations": [path], "annotations": [path.with_suffix(".jsonl")]}
    table = scores.score(**files)
    assert [json.loads(x) for x in table["unsupported"]] == [["Unchanged edema."]] * 3 + [[]]
    prior = [any(c["kind"] == "prior" for c in json.loads(x)) for x in table["changes"]]
    assert prior == [True, True, True, False]


def test_a_prompt_with_an_unknown_column_stops(files):
    files["template"] = "{history}"
    with pytest.raises(UserError, match="history"):
        scores.score(**files)


def test_the_original_against_itself(files):
    files["generations"] = files["original_generations"]
    files["annotations"] = files["original_annotations"]
    table = scores.score(**files)
    assert (table[[name for name in table if name.startswith("fidelity")]] == 1).all(axis=None)
    assert set(table["changes"]) == {"[]"}


def test_a_row_dropped_from_one_system_stops(files):
    path = files["generations"][0]
    write_table(path, read_table(path).iloc[1:])
    with pytest.raises(UserError, match=r"0.parquet.*1 of the 4 evaluation reports are missing"):
        scores.score(**files)


def test_an_annotation_dropped_stops(files):
    path = files["annotations"][1]
    write_jsonl(path, read_jsonl(path)[1:])
    with pytest.raises(UserError, match=r"1.jsonl.*missing .the first is 'r3'"):
        scores.score(**files)


def test_a_missing_reference_annotation_stops(files):
    write_jsonl(files["reference"], read_jsonl(files["reference"])[1:])
    with pytest.raises(UserError, match=r"reference.jsonl.*the first is 'r1'"):
        scores.score(**files)


@pytest.mark.parametrize("key", ["generations", "annotations"])
def test_a_shard_given_twice_stops(files, key):
    files[key].append(files[key][0])
    with pytest.raises(UserError, match=r"'r4' (occurs|is annotated) twice"):
        scores.score(**files)


def test_an_unknown_report_stops(files):
    table = pd.read_csv(files["evaluation"], dtype=str)
    write_table(files["evaluation"], table.iloc[:-1])
    with pytest.raises(UserError, match=r"1 reports are not among the 3.*'r4'"):
        scores.score(**files)


def test_duplicate_ids_in_the_evaluation_reports_stop(files):
    table = pd.read_csv(files["evaluation"], dtype=str)
    write_table(files["evaluation"], pd.concat([table, table.iloc[:1]]))
    with pytest.raises(UserError, match=r"eval.csv: report 'r1' occurs twice"):
        scores.score(**files)


@pytest.mark.parametrize("key", ["reference", "annotations", "original_annotations"])
def test_another_annotator_stops(files, key):
    path = files[key] if key == "reference" else files[key][0]
    change(path, "r1", annotator="radgraph 0.1.18 radgraph-xl (sha256 111111111111)")
    with pytest.raises(UserError, match=r"different annotators.*radgraph-xl"):
        scores.score(**files)


def test_annotations_of_another_system_stop(files):
    files["annotations"] = files["original_annotations"]
    with pytest.raises(UserError, match="of report 'r1' is of another text") as error:
        scores.score(**files)
    assert "effusion" not in str(error.value)


def test_a_dangling_relation_stops(files):
    entity = {"tokens": "a", "label": "b", "start_ix": 0, "end_ix": 0, "relations": [["x", "9"]]}
    change(files["annotations"][0], "r1", entities={"1": entity})
    with pytest.raises(UserError, match="points at entity '9'"):
        scores.score(**files)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"tokens": 1}, {"label": None}, {"start_ix": -1}, {"end_ix": True}, {"end_ix": 0.0}),
        *({"relations": {}}, {"relations": ["ab"]}, {"relations": [["x"]]}),
        {"relations": [["x", "1"], ["y", 1]]},
    ],
)
def test_an_entity_with_a_value_of_another_kind_stops(files, wrong):
    entity = {"tokens": "a", "label": "b", "start_ix": 0, "end_ix": 0, "relations": [["x", "1"]]}
    change(files["annotations"][0], "r1", entities={"1": entity | wrong})
    with pytest.raises(UserError, match="entity '1' is not made of"):
        scores.score(**files)


def test_an_incomplete_record_stops(files):
    records_ = read_jsonl(files["reference"])
    del records_[2]["text_hash"]
    write_jsonl(files["reference"], records_)
    with pytest.raises(UserError, match=r"reference.jsonl, line 3: not an annotation"):
        scores.score(**files)


def test_equal_texts_are_annotated_once_and_blank_ones_never():
    seen = []

    def annotate(text):
        seen.append(text)
        return {"text": text, "entities": {}}

    built = records.build(list("abcd"), ["x", " \n", "x", "y"], "tool", annotate)
    assert seen == ["x", "y"]
    assert [record["id"] for record in built] == list("abcd")
    assert [record["text"] for record in built] == ["x", "", "x", "y"]


def script(name, **options):
    command = [sys.executable, str(REPOSITORY / "scripts" / name)]
    for option, value in options.items():
        values = value if isinstance(value, list) else [value]
        command += [f"--{option.replace('_', '-')}", *map(str, values)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_scripts_write_equal_bytes_twice(files, tmp_path):
    evaluation, target = files.pop("evaluation"), files.pop("target")
    files["prompt_text"] = files.pop("template")
    for system, outputs in (("original_", ORIGINAL), ("", OUTPUT)):
        for path in files[f"{system}annotations"]:
            texts = {record["id"]: outputs[record["id"]] for record in read_jsonl(path)}
            write_annotations(path, texts, lexicon.identity())
    hashes = set()
    for attempt in range(2):
        annotations = tmp_path / f"annotations-{attempt}.jsonl"
        done = script(
            "annotate.py", annotator="lexicon", texts=evaluation, column=target, output=annotations
        )
        assert done.returncode == 0, done.stderr
        files["reference"] = annotations
        output = tmp_path / f"scores-{attempt}.parquet"
        done = script(
            "score.py", system="w4a16", eval=evaluation, target=target, **files, output=output
        )
        assert done.returncode == 0, done.stderr
        assert "effusion" not in done.stdout + done.stderr
        hashes.add((sha256_file(output), sha256_file(annotations)))
    assert len(hashes) == 1
    assert set(pd.read_parquet(output)["annotator"]) == {lexicon.identity()}


def test_a_missing_column_is_one_sentence(files, tmp_path):
    done = script(
        "annotate.py",
        annotator="lexicon",
        texts=files["evaluation"],
        column="output",
        output=tmp_path / "x.jsonl",
    )
    assert done.returncode == 1
    assert done.stderr.removeprefix("at work\n").startswith("error: ")
    assert "its columns are id, impression" in done.stderr
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 3},
        {"annotator": ["lexicon"]},
        {"entities": []},
        {"entities": {"1": None}},
        {"entities": {"1": {"tokens": "a"}}},
        *(
            {"entities": {"1": {**ENTITY, key: value}}}
            for key, value in (
                *(("tokens", None), ("label", 1), ("start_ix", "0"), ("end_ix", -1)),
                *(("start_ix", float("nan")), ("start_ix", 0.5), ("end_ix", True)),
                *(("relations", None), ("relations", ["ab"]), ("relations", [["modify"]])),
                *(("relations", [["modify", 1]]), ("relations", [["modify", "2"]])),
            )
        ),
    ],
)
def test_an_annotation_that_was_edited_is_told_with_its_line(files, fields):
    change(files["reference"], "r2", **fields)
    with pytest.raises(UserError, match=r"reference\.jsonl, line 2"):
        scores.score(**files)


def test_an_annotation_that_is_nested_without_end(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: not valid JSON"):
        records.read([tmp_path / "a.jsonl"])
