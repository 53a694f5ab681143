"""What the report says of clinical changes, on a few invented reports with known counts."""

import json
import re
import types
from functools import partial

import pandas as pd
import pytest
from scipy.stats import norm

from radquant.reporting import against_radiologist, clinical_changes
from radquant.reporting.changes_section import changes_section, example_texts, examples_section
from radquant.reporting.finished_run import CLINICAL, Run
from radquant.scoring import lexicon
from radquant.scoring.changes import KINDS
from radquant.scoring.changes import changes as compare
from radquant.scoring.changes import flags as flags_of
from radquant.scoring.changes import unsupported as claims_of
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.findings import statuses

REFERENCES = ["Effusion."] * 6 + ["Mass."] * 2 + ["No mass.", "Clear."]
ORIGINAL = ["Effusion."] * 5 + ["Clear."] + ["Possible mass."] * 2 + ["Stable chest.", ""]
OUTPUTS = {
    "original": ORIGINAL,
    # lost, negated, hedged; invented what the reference has; asserted; invented; a word of its own
    "one": [
        *("Clear.", "No effusion.", "Possible effusion.", "Effusion.", "Effusion."),
        *("Effusion.", "A mass.", "Possible mass.", "Stable chest. Fracture.", "Quuxoma."),
    ],
    # equal but for one claim and one loop
    "two": [*ORIGINAL[:4], "Unchanged effusion.", *ORIGINAL[5:9], "clear " * 9],
}


def make_run(outputs):
    ids = [f"r{number}" for number in range(len(REFERENCES))]
    annotate = lexicon.annotate
    scores, generations = {}, {}
    for name, texts in outputs.items():
        rows = [
            {
                "id": i,
                "complete": 0.5,
                "identical": text == before,
                "output_words": len(text.split()),
                "statuses": statuses(annotate(text)),
                "reference_statuses": statuses(annotate(reference)),
                "changes": compare(annotate(before), annotate(text), before, text, {"x": "Clear."}),
                "unsupported": claims_of(text, {"x": "Clear."}),
                "flags": flags_of(text, []),
            }
            for i, reference, before, text in zip(
                ids, REFERENCES, outputs["original"], texts, strict=True
            )
        ]
        table = pd.DataFrame(rows)
        scores[name] = table.assign(**{key: table[key].map(json.dumps) for key in CLINICAL})
        generations[name] = pd.DataFrame(
            {"id": ids, "output": texts, "truncated_tokens": 0, "output_tokens": 3}
        )
    run = types.SimpleNamespace(
        config={"statistics": {"resamples": 2000, "confidence": 0.95}, "seed": 3},
        precisions=list(outputs),
        quantized=list(outputs)[1:],
        patients=None,
        patient_numbers=None,
        reports=pd.DataFrame({"id": ids, "reference": REFERENCES}),
        scores=scores,
        generations=generations,
    )
    for method in (Run.clinical, Run.different, Run.has):
        setattr(run, method.__name__, partial(method, run))
    return run


@pytest.fixture(scope="module")
def run():
    return make_run(OUTPUTS)


@pytest.fixture(scope="module")
def summary(run):
    quality = {
        "reports": len(REFERENCES),
        "precisions": run.precisions,
        "settings": {"confidence": 0.95},
        "changes": {name: clinical_changes.changes(run, name) for name in run.quantized},
        "outputs": {name: clinical_changes.outputs(run, name) for name in run.precisions},
        "findings": clinical_changes.findings(run),
        "against_radiologist": against_radiologist.pooled(run),
        "examples": clinical_changes.examples(run, "complete"),
    }
    return {"quality": quality}


def row_of(section, first):
    line = next(x for x in section.splitlines() if re.match(rf"\| {first} +\|", x))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_counts_by_kind(summary):
    kinds = summary["quality"]["changes"]["one"]["kinds"]
    assert {kind: row["changes"] for kind, row in kinds.items() if row["changes"]} == {
        "lost": 1,
        "negated": 1,
        "invented": 3,
        "asserted": 1,
        "hedged": 1,
    }
    assert kinds["invented"]["reports"] == 3
    assert summary["quality"]["changes"]["one"]["changed"]["reports"] == 7
    two = summary["quality"]["changes"]["two"]["kinds"]
    assert {kind for kind, row in two.items() if row["changes"]} == {"prior"}


def test_flips_of_findings_that_the_reference_has_are_told_apart(summary):
    counts = summary["quality"]["changes"]["one"]["in_reference"]
    # Effusions lost, negated, hedged and once invented, and a mass asserted: the reference has all.
    assert counts == {"lost": 1, "negated": 1, "invented": 1, "hedged": 1, "asserted": 1}
    section = " ".join(changes_section(summary).split())
    assert "one: the reference has 2 of the 2 findings lost or negated, and 1 of the 3" in section


def test_shares_have_wilsons_interval(summary):
    found = summary["quality"]["changes"]["one"]["kinds"]["invented"]
    z, n, p = norm.ppf(0.975), 10, 0.3
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert found["share"] == p
    assert found["interval"]["low"] == pytest.approx(centre - half)
    assert found["interval"]["high"] == pytest.approx(centre + half)


def test_outputs_that_are_wrong_by_themselves(summary):
    outputs = summary["quality"]["outputs"]
    counts = {
        name: {flag: found["reports"] for flag, found in row["flags"].items() if found["reports"]}
        for name, row in outputs.items()
    }
    assert counts == {"original": {"empty": 1}, "one": {}, "two": {"repetition": 1}}
    assert {name: row["unsupported"]["reports"] for name, row in outputs.items()} == {
        "original": 1,
        "one": 1,
        "two": 2,
    }


def test_sensitivity_and_its_paired_difference(summary):
    effusion = summary["quality"]["findings"]["by_finding"]["pleural effusion"]
    assert effusion["references"] == 6
    found = effusion["sensitivity"]
    # Uncertain counts as found; lost and negated do not.
    assert {name: row["count"] for name, row in found.items()} == {
        "original": 5,
        "one": 4,
        "two": 5,
    }
    difference = found["one"]["difference"]
    assert difference["mean"] == pytest.approx(-1 / 6)
    assert difference["interval"]["low"] < -1 / 6 < difference["interval"]["high"]
    # No report differs, which so few do not prove for all.
    nothing = found["two"]["difference"]["interval"]
    assert nothing["low"] < -0.2
    assert nothing["high"] > 0.2
    assert effusion["flips"]["one"] == {
        "lost": 1,
        "negated": 1,
        "invented": 1,
        "hedged": 1,
        "asserted": 0,
    }


def test_all_findings_together_against_the_radiologist(summary):
    found = summary["quality"]["against_radiologist"]
    # Six effusions and two masses; the original has five effusions, and both masses as uncertain.
    counts = {
        name: (row["sensitivity"]["count"], row["sensitivity"]["of"]) for name, row in found.items()
    }
    assert counts == {"original": (7, 8), "one": (6, 8), "two": (7, 8)}
    # Only "one" has a finding that the reference has not: a fracture.
    total = len(REFERENCES) * len(CANONICAL) - 8
    assert found["original"]["specificity"]["of"] == total
    wrong = {name: total - row["specificity"]["count"] for name, row in found.items()}
    assert wrong == {"original": 0, "one": 1, "two": 0}
    difference = found["one"]["sensitivity"]["difference"]
    assert difference["mean"] == pytest.approx(-1 / 8)
    assert difference["interval"]["low"] < -1 / 8 < difference["interval"]["high"]
    assert "7 of 8: 87.5 %" in row_of(changes_section(summary), "two")[0]


def test_findings_of_few_references_have_no_sensitivity_and_are_counted(summary):
    findings = summary["quality"]["findings"]
    assert findings["by_finding"]["mass"]["references"] == 2
    assert findings["by_finding"]["mass"]["sensitivity"] == {}
    assert findings["too_few"] == 1
    assert "1 more occur in fewer" in " ".join(changes_section(summary).split())


def test_words_of_a_report_are_only_other_in_the_summary(summary):
    assert summary["quality"]["findings"]["other"]["one"]["invented"] == 1
    text = json.dumps(summary)
    assert "quuxoma" not in text.lower()
    assert "Stable" not in text


def test_the_tables(summary):
    section = changes_section(summary)
    assert row_of(section, "invented") == [
        "–",
        "3 in 3 of 10: 30 % (11 % to 60 %)",
        "0 of 10: 0 % (0 % to 28 %)",
    ]
    # Of the reports in which the original states a finding, and then the radiologist.
    assert row_of(section, "lost or negated")[1] == "2 of 5: 40 % (12 % to 77 %)"
    assert row_of(section, "… where the radiologist states one")[1].startswith("2 of 8: 25 %")
    assert row_of(section, "negated")[1].startswith("1 in 1 of 5: 20 %")
    assert row_of(section, "unsupported prior")[0] == "1 of 10: 10 % (2 % to 40 %)"
    cells = row_of(section, "pleural effusion")
    assert cells[0] == "6"
    assert cells[1] == "0.83"
    assert cells[2].startswith("0.67 (−")
    assert cells[3].startswith("0.83 (−0.")
    assert row_of(section, "other") == ["0", "0", "1", "0", "0"]
    for kind, meaning in KINDS.items():
        assert f"*{kind}*: {meaning}" in " ".join(section.split())


def test_examples_are_the_most_harmful_of_each_precision_with_reasons(run, summary):
    examples = summary["quality"]["examples"]
    found = [(row["precision"], row["id"], row["kinds"], row["flags"]) for row in examples]
    assert found == [
        ("one", "r0", {"lost": 1}, []),
        ("one", "r1", {"negated": 1}, []),
        ("one", "r5", {"invented": 1}, []),
        ("two", "r9", {}, ["repetition"]),
        ("two", "r4", {"prior": 1}, []),
    ]
    assert [row["harm"] for row in examples] == [12, 11, 10, 12, 1]
    section = examples_section(summary, example_texts(run, summary))
    assert "**one, report r1**: 1 negated; combined F1" in section
    assert "changes    negated: pleural effusion" in section
    assert "**two, report r9**: repetition" in section


def test_changes_of_attributes_are_written_out():
    before = ["Left effusion.", "A 5 cm mass.", "Mild edema.", *[""] * 7]
    after = ["Right effusion.", "A 4 cm mass.", "Severe edema.", *[""] * 7]
    run = make_run({"original": before, "one": after})
    summary = {"quality": {"examples": clinical_changes.examples(run, "complete")}}
    section = examples_section(summary, example_texts(run, summary))
    for text in (
        "side: pleural effusion left → right",
        "measurement: mass 5 cm → 4 cm",
        "severity: pulmonary edema mild → severe",
    ):
        assert text in section


def test_no_example_where_nothing_changed():
    run = make_run({"original": ["on and on and on and on and"] * 10, "one": ["a a a a a"] * 10})
    # Repetition, as in the original: bad, but no change.
    assert clinical_changes.examples(run, "complete") == []
