"""Subgroups: how reports are divided, and what is said of the parts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_run import CONFIG, make_results

from radquant.corpus.attributes import attributes
from radquant.corpus.formats.kind import Source
from radquant.errors import UserError
from radquant.files import read_table, write_table
from radquant.reporting.collect import collect
from radquant.reporting.subgroups import subgroups, subgroups_section
from radquant.scoring.subgroup_names import check_subgroups
from radquant.settings.configuration import resolve
from radquant.settings.subgroups import Subgroups

EVALUATION = pd.DataFrame(
    {"id": ["a", "b", "c"], "study": ["s1", "s2", "s3"], "group": ["p1", "p1", ""]}
)


def division(**values):
    return Subgroups.model_validate(values)


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_column_of_the_corpus_is_joined_by_the_reports_ids(tmp_path: Path) -> None:
    path = table(tmp_path, "report_no,sex,findings\nb,F,x\na,M,x\nz,F,x\nc,n/a,x\n")
    corpus = Source(path=path, columns={"id": "report_no"})
    found = attributes(EVALUATION, {"sex": division(column="sex")}, corpus)
    assert found.to_dict("list") == {"id": ["a", "b", "c"], "sex": ["M", "F", ""]}


def test_a_table_without_ids_is_joined_by_the_number_of_the_row(tmp_path: Path) -> None:
    corpus = Source(
        train=table(tmp_path, "text,sex\nx,F\n", "train.csv"),
        eval=table(tmp_path, "text,sex\nx,M\ny,F\n", "eval.csv"),
    )
    reports = EVALUATION.assign(id=["eval-2", "eval-1", "train-1"])
    found = attributes(reports, {"sex": division(column="sex")}, corpus)
    assert found["sex"].tolist() == ["F", "M", "F"]


def test_another_table_is_joined_by_study_or_patient(tmp_path: Path) -> None:
    views = table(tmp_path, "StudyID,View\ns1,AP\ns1,LATERAL\ns1,AP\ns2,PA\ns9,PA\n")
    ages = table(tmp_path, "patient_id;age\np1;64,0\n", "ages.csv")
    found = attributes(
        EVALUATION,
        {
            "view": division(column="View", table=str(views), key="study", key_column="StudyID"),
            "age": division(column="age", table=str(ages), key="group"),
        },
        Source(path=tmp_path / "none.csv"),
    )
    assert found["view"].tolist() == ["AP + LATERAL", "PA", ""]
    assert found["age"].tolist() == ["64,0", "64,0", ""]


@pytest.mark.parametrize(
    ("age", "group"),
    [(39.9, "below 40"), (40, "40 to below 65"), (64, "40 to below 65"), (65, "65 and above")],
)
def test_numbers_are_parted_at_the_cuts(tmp_path: Path, age: float, group: str) -> None:
    path = table(tmp_path, f"id,text,age\na,x,{age}\n")
    ages = division(column="age", cuts=[40, 65])
    assert attributes(EVALUATION, {"age": ages}, Source(path=path))["age"][0] == group


@pytest.mark.parametrize(
    ("text", "settings", "sentence"),
    [
        ("id,text\na,x\n", {"column": "sex"}, "has no column 'sex'"),
        ("id,text,sex\nq,x,F\n", {"column": "sex"}, "no evaluated report has a value"),
        ("id,text,age\na,x,old\n", {"column": "age", "cuts": [40]}, "row 2.*'age' is no number"),
        ("id,text,sex\na,x," + "word " * 9 + "\n", {"column": "sex"}, "over 40 characters"),
        ("id,text,age\na,x,30\na,x,50\n", {"column": "age", "cuts": [40]}, "says two things"),
    ],
)
def test_a_column_that_will_not_do_is_refused(
    tmp_path: Path, text: str, settings: dict, sentence: str
) -> None:
    corpus = Source(path=table(tmp_path, text))
    with pytest.raises(UserError, match=sentence) as caught:
        attributes(EVALUATION, {"it": division(**settings)}, corpus)
    assert "word word" not in str(caught.value)


def test_too_many_values_ask_for_cuts(tmp_path: Path) -> None:
    ids = [f"r{number}" for number in range(20)]
    path = table(tmp_path, "id,text,age\n" + "".join(f"{name},x,{name[1:]}\n" for name in ids))
    reports = pd.DataFrame({"id": ids, "study": "", "group": ""})
    with pytest.raises(UserError, match=r"20 values .* part it with cuts"):
        attributes(reports, {"age": division(column="age")}, Source(path=path))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "has none of column, finding and length"),
        ({"column": "sex", "finding": "any"}, "has column and finding"),
        ({"finding": "any", "cuts": [1]}, "cuts belongs to a column"),
        ({"column": "age", "cuts": [2, 1]}, "cuts must rise"),
        ({"column": "sex", "key": "study"}, "key is for another table"),
    ],
)
def test_a_division_is_one_thing(settings: dict, sentence: str) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["statistics"]["subgroups"] = {"it": settings}
    with pytest.raises(UserError, match=sentence):
        resolve(config)


def test_a_column_needs_a_table_and_a_finding_must_be_known() -> None:
    config = json.loads(json.dumps(CONFIG))
    config["corpus"] = {"name": "x", "format": "mimic-tree", "path": "files"}
    config["statistics"]["subgroups"] = {"sex": {"column": "sex"}}
    with pytest.raises(UserError, match=r"statistics\.subgroups\.sex\.column needs a table"):
        resolve(config)
    with pytest.raises(UserError, match="finding is 'effusions', which is not known"):
        check_subgroups({"it": {"finding": "effusions"}})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("run") / "results")


def divided(results: Path, **divisions) -> dict:
    """A run's configuration with these divisions, of which one's column is written already."""
    config = json.loads(json.dumps(CONFIG))
    divisions = {name: division(**values) for name, values in divisions.items()}
    config["statistics"]["subgroups"] = {
        name: each.model_dump(mode="json") for name, each in divisions.items()
    }
    ids = read_table(results / "data/eval.csv", ["id"])["id"]
    sexes = np.where(np.arange(len(ids)) % 2 == 0, "F", "M")
    sexes[:3] = ""
    write_table(results / "data/subgroups.csv", pd.DataFrame({"id": ids, "sex": sexes})[::-1])
    return config


def test_groups_are_parts_of_the_whole(results: Path) -> None:
    config = divided(results, sex={"column": "sex"}, length={"length": "reference"})
    run = collect(results, config)
    found = subgroups(run)
    for name, record in found.items():
        groups = record["groups"].values()
        assert sum(row["reports"] for row in groups) + record["unknown"] == len(run.reports)
        assert record["unknown"] == (3 if name == "sex" else 0)
    # The parts' differences, weighed by their reports, are the difference of them all.
    whole = (run.scores["w4a4"]["complete"] - run.scores["original"]["complete"]).to_numpy()
    known = found["sex"]["groups"].values()
    parts = sum(row["differences"]["w4a4"]["mean"] * row["reports"] for row in known)
    assert parts == pytest.approx(whole[3:].sum())


def test_a_loss_in_one_group_alone_is_an_interaction(results: Path) -> None:
    config = divided(results, sex={"column": "sex"})
    run = collect(results, config)
    sexes = read_table(results / "data/subgroups.csv", ["id", "sex"]).set_index("id")["sex"]
    lost = (sexes.loc[run.reports["id"]] == "F").to_numpy()
    scores = {name: table.copy() for name, table in run.scores.items()}
    noise = np.random.default_rng(1).normal(0, 0.01, len(lost))
    scores["w4a16"]["complete"] = run.scores["original"]["complete"] + noise - 0.2 * lost
    scores["w4a8"]["complete"] = run.scores["original"]["complete"] + noise - 0.2
    object.__setattr__(run, "scores", scores)
    tests = subgroups(run)["sex"]["interaction"]
    assert tests["w4a16"]["p_holm"] < 0.01 < 0.2 < tests["w4a8"]["p"]
    assert all(row["p_holm"] >= row["p"] for row in tests.values())


def test_the_report_has_a_table_for_each_division(results: Path) -> None:
    config = divided(results, sex={"column": "sex"}, normality={"finding": "any"})
    run = collect(results, config)
    quality = {
        "subgroups": subgroups(run),
        "precisions": run.precisions,
        "measure": run.measure,
        "settings": config["statistics"],
    }
    section = subgroups_section({"quality": quality})
    for word in ("| sex ", "| F ", "| M ", "not known", "abnormal", "groups differ"):
        assert word in section
