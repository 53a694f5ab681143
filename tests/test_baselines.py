import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from radquant.errors import UserError
from radquant.files import write_table
from radquant.generation.nearest_examples import nearest_examples
from radquant.scoring import lexicon, rewards
from radquant.scoring.baselines import CANDIDATES, best_constant, constant, copy_input, nearest

SCRIPT = Path(__file__).parents[1] / "scripts" / "baselines.py"
TARGETS = (
    ["No acute cardiopulmonary disease."] * 30
    + ["No pleural effusion or pneumothorax."] * 12
    + ["Small right pleural effusion."] * 5
    + ["Mild cardiomegaly without edema."] * 3
)
IDS = [f"r{number}" for number in range(len(TARGETS))]


def test_copy_joins_the_inputs_that_are_there():
    table = pd.DataFrame({"id": ["a", "b"], "indication": ["Cough.", ""], "findings": ["A.", "B."]})
    copied = copy_input(table, ["indication", "findings"])
    assert copied.to_dict("list") == {"id": ["a", "b"], "output": ["Cough. A.", "B."]}


def test_without_text_there_is_nothing_to_copy():
    table = pd.DataFrame({"id": ["a", "b"], "findings": ["One.", "Two."]})
    assert copy_input(table, []).to_dict("list") == {"id": ["a", "b"], "output": ["", ""]}


def test_best_constant_is_the_candidate_with_the_highest_mean_reward():
    annotated = {text: lexicon.annotate(text) for text in set(TARGETS)}
    means = {
        text: sum(rewards.f1(annotated[text], annotated[other])[2] for other in TARGETS)
        for text in annotated
    }
    assert best_constant(IDS, TARGETS, seed=1) == max(means, key=lambda text: means[text])


def test_a_rare_text_is_no_candidate_and_order_does_not_matter():
    rare = [f"Opacity in the left lobe, {number} mm." for number in range(CANDIDATES)]
    ids = [*IDS, *(f"s{number}" for number in range(len(rare)))]
    chosen = best_constant(ids, TARGETS + rare, seed=1)
    assert chosen in set(TARGETS)
    assert best_constant(ids[::-1], (TARGETS + rare)[::-1], seed=1) == chosen


def test_constant_gives_every_evaluation_report_the_same_text():
    train = pd.DataFrame({"id": IDS, "impression": TARGETS})
    table = constant(pd.DataFrame({"id": ["x", "y"]}), train, "impression", seed=1)
    assert table["id"].tolist() == ["x", "y"]
    assert table["output"].nunique() == 1


def test_the_script_writes_the_first_reports_only(tmp_path):
    train = pd.DataFrame({"id": IDS, "findings": TARGETS, "impression": TARGETS})
    write_table(tmp_path / "train.csv", train)
    write_table(tmp_path / "eval.csv", train[:5].assign(id=list("caebd")))
    command = [sys.executable, str(SCRIPT), "--target=impression", "--inputs", "findings"]
    command += ["--seed=1", "--reports=3"]
    for option, name in (("train", "train.csv"), ("eval", "eval.csv")):
        command += [f"--{option}", str(tmp_path / name)]
    for name in ("copy", "constant", "nearest"):
        command += [f"--{name}-output", str(tmp_path / f"{name}.parquet")]
    subprocess.run(command, check=True)
    for name in ("copy", "constant", "nearest"):
        assert pd.read_parquet(tmp_path / f"{name}.parquet")["id"].tolist() == ["c", "a", "e"]


def test_a_report_to_evaluate_that_is_a_training_report_stops_the_script(tmp_path):
    """Its reference would be handed in for another report, or be the constant."""
    train = pd.DataFrame({"id": IDS, "findings": TARGETS, "impression": TARGETS})
    write_table(tmp_path / "train.csv", train)
    write_table(tmp_path / "eval.csv", train[:2].assign(id=["x", " r7 "]))
    command = [sys.executable, str(SCRIPT), "--target=impression", "--inputs", "findings"]
    for option, name in (("train", "train.csv"), ("eval", "eval.csv")):
        command += [f"--{option}", str(tmp_path / name)]
    for name in ("copy", "constant", "nearest"):
        command += [f"--{name}-output", str(tmp_path / f"{name}.parquet")]
    done = subprocess.run([*command, "--reports=1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: report r7 is both a training report and one to evaluate")
    assert not list(tmp_path.glob("*.parquet"))


# ----------------------------------------------------------------------------------- nearest


def row(name: str, findings: str, impression: str = "", group: str = "") -> dict[str, str]:
    return {"id": name, "group": group, "findings": findings, "impression": impression}


def hand_in(train: list[dict[str, str]], reports: list[dict[str, str]], seed: int = 7) -> list[str]:
    columns = ["id", "group", "findings", "impression"]
    tables = [pd.DataFrame(rows, columns=columns, dtype="str") for rows in (reports, train)]
    found = nearest(*tables, ["findings"], "impression", seed)
    assert found["id"].tolist() == [report["id"] for report in reports]
    return list(found["output"])


TRAIN = [
    row("a", "No effusion. Heart is normal.", "Normal."),
    row("b", "No effusion. Left lung has a granuloma.", "Granuloma."),
    row("c", "Pacemaker in place. No effusion.", "Pacemaker."),
    row("d", "Pacemaker. Pacemaker.", " "),  # hands in nothing
]


def test_nearest_hands_in_what_the_training_report_says_whose_input_is_most_alike():
    asked = [row("x", "PACEMAKER"), row("y", "The lung: no granuloma."), row("z", "heart normal")]
    assert hand_in(TRAIN, asked) == ["Pacemaker.", "Granuloma.", "Normal."]


def test_nearest_hands_in_nothing_of_the_same_patient_and_looks_at_no_reference():
    train = [*TRAIN, row("e", "Pacemaker.", "Own text.", group="p1")]
    asked = row("x", "Pacemaker.", "Own text.", group="p1")
    assert hand_in(train, [asked, asked | {"group": "p2"}]) == ["Pacemaker.", "Own text."]
    assert hand_in(train, [asked | {"id": "e", "group": ""}]) == ["Pacemaker."]
    blind = pd.DataFrame([asked]).drop(columns="impression")
    found = nearest(blind, pd.DataFrame(train), ["findings"], "impression", 7)
    assert found["output"].tolist() == ["Pacemaker."]
    with pytest.raises(UserError, match="another patient than report x's has text in column"):
        hand_in([asked, row("d", "Pacemaker.", " ")], [asked])


def test_without_text_there_is_nothing_to_compare():
    table = pd.DataFrame(TRAIN)
    assert nearest(table, table, [], "impression", 7)["output"].tolist() == [""] * len(TRAIN)


TEXTS = st.lists(st.sampled_from(["no", "clear", "lungs", "mass", "effusion", "left"]), min_size=1)
NAMED = st.tuples(TEXTS, st.sampled_from(["", "p1", "p2"]))


@settings(max_examples=100, deadline=None)
@given(st.lists(NAMED, min_size=1, max_size=12), NAMED, st.integers(0, 9), st.randoms())
def test_nearest_is_the_highest_cosine_of_all_in_another_implementation(texts, asked, seed, random):
    """Every cosine of TF-IDF in floating point; among equals, the seed's first."""
    train = [row(f"r{n}", " ".join(t), f"Says {n}.", g) for n, (t, g) in enumerate(texts)]
    report = row("x", " ".join(asked[0]), group=asked[1])
    apart = [each for each in train if not each["group"] or each["group"] != report["group"]]
    assume(apart)
    [output] = hand_in(train, [report], seed)
    assert hand_in(random.sample(train, len(train)), [report], seed) == [output]

    def vector(text: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for word in text.split():
            having = sum(word in each["findings"].split() for each in train)
            if having:
                found[word] = found.get(word, 0) + math.log(len(train) / having)
        return found

    def cosine(other: str) -> float:
        one, two = vector(report["findings"]), vector(other)
        lengths = math.hypot(*one.values()) * math.hypot(*two.values())
        return sum(one[w] * two[w] for w in one.keys() & two) / lengths if lengths else 0.0

    likeness = {each["impression"]: cosine(each["findings"]) for each in apart}
    best = max(likeness.values())
    assert likeness[output] > best - 1e-2  # rarities are rounded to thousandths
    same = [
        each
        for each in apart
        if sorted(each["findings"].split())
        == sorted(next(x for x in apart if x["impression"] == output)["findings"].split())
    ]
    order = [hashlib.sha256(f"{seed}\0examples\0{x['id']}".encode()).hexdigest() for x in same]
    assert same[order.index(min(order))]["impression"] == output


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=9), TEXTS, st.integers(0, 9))
def test_nearest_hands_in_what_the_nearest_example_shows(texts, asked, seed):
    train = [row(f"r{n}", " ".join(text), f"Says {n}.") for n, text in enumerate(texts)]
    report = row("x", " ".join(asked))
    [[example]] = nearest_examples(train, [report], ["findings"], "impression", 1, 10**6, seed)
    assert hand_in(train, [report], seed) == [example["impression"]]


def test_no_target_text():
    with pytest.raises(UserError, match="holds no target text"):
        best_constant(["a"], [" "], seed=1)
