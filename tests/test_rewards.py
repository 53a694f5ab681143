import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radquant.scoring import rewards

PRESENT, ABSENT = "Observation::definitely present", "Observation::definitely absent"
ANATOMY = "Anatomy::definitely present"


def annotation(*entities):
    """Annotation of (tokens, label, [(relation, number of the target)])."""
    return {
        "entities": {
            str(number): {
                "tokens": tokens,
                "label": label,
                "start_ix": number,
                "end_ix": number,
                "relations": [[name, str(target)] for name, target in relations],
            }
            for number, (tokens, label, relations) in enumerate(entities, 1)
        }
    }


# Published annotations of two example sentences (tests of the radgraph package, radgraph-xl).
NO_ABNORMALITY = annotation(
    ("acute", ABSENT, []),
    ("cardiopulmonary", ANATOMY, []),
    ("abnormality", ABSENT, [("located_at", 2)]),
)
EDEMA = annotation(
    ("unchanged", PRESENT, [("modify", 4)]),
    ("mild", PRESENT, []),
    ("pulmonary", ANATOMY, []),
    ("edema", PRESENT, [("located_at", 3)]),
    ("pneumonia", ABSENT, []),
)


@pytest.mark.parametrize("example", [NO_ABNORMALITY, EDEMA])
def test_an_annotation_scores_1_against_itself(example):
    # As published for the pair of equal sentences "no acute cardiopulmonary abnormality".
    assert rewards.f1(example, example) == (1.0, 1.0, 1.0)


def test_hand_computed_case():
    hypothesis = annotation(
        ("unchanged", PRESENT, [("modify", 3)]),
        ("lungs", ANATOMY, []),
        ("edema", PRESENT, [("located_at", 2)]),
        ("mild", PRESENT, [("modify", 3)]),
    )
    # Entities: unchanged, edema and mild are shared; 4 and 5 in all: 2·3/9.
    # With "has a relation": mild has one only here: 2·2/9.
    # Whole relations: unchanged–edema alone is shared: 2·1/9.
    assert rewards.f1(hypothesis, EDEMA) == pytest.approx((6 / 9, 4 / 9, 2 / 9))


def test_status_counts():
    here = annotation(("effusion", PRESENT, []))
    assert rewards.f1(here, annotation(("effusion", ABSENT, []))) == (0, 0, 0)


def test_a_side_without_entities_scores_0():
    assert rewards.f1(annotation(), EDEMA) == (0, 0, 0)
    assert rewards.f1(annotation(), annotation()) == (0, 0, 0)


LABELS = st.sampled_from([PRESENT, ABSENT, ANATOMY])


@st.composite
def annotations(draw):
    count = draw(st.integers(1, 6))
    relation = st.tuples(st.sampled_from(["modify", "located_at"]), st.integers(1, count))
    entity = st.tuples(st.sampled_from("abcd"), LABELS, st.lists(relation, max_size=2))
    return annotation(*draw(st.lists(entity, min_size=count, max_size=count)))


def oracle(hypothesis, reference):
    """The three levels after Delbrouck et al. (2022), on sets: F1 = 2|A∩B| / (|A|+|B|)."""

    def sides(describe):
        sets = [set(), set()]
        for items, side in zip(sets, (hypothesis, reference), strict=True):
            for entity in side["entities"].values():
                items.update(describe(entity, side["entities"]))
        return 2 * len(sets[0] & sets[1]) / (len(sets[0]) + len(sets[1]))

    def simple(entity, _):
        return [(entity["tokens"], entity["label"])]

    def partial(entity, _):
        return [(entity["tokens"], entity["label"], bool(entity["relations"]))]

    def complete(entity, entities):
        base = (entity["tokens"], entity["label"])
        targets = [(*base, name, entities[to]["tokens"]) for name, to in entity["relations"]]
        return targets or [base]

    return sides(simple), sides(partial), sides(complete)


@given(annotations(), annotations())
def test_levels_equal_their_definition(hypothesis, reference):
    scores = rewards.f1(hypothesis, reference)
    assert scores == pytest.approx(oracle(hypothesis, reference))
    assert scores == pytest.approx(rewards.f1(reference, hypothesis))


def test_only_the_reward_module_is_loaded():
    code = (
        "import sys; from radquant.scoring import rewards; "
        "rewards.f1({'entities': {}}, {'entities': {}}); "
        "sys.exit(bool({'radgraph', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_identity_names_package_and_hash():
    package, version, digest = rewards.identity().split()
    assert (package, version) == ("radgraph", "0.1.18")
    assert len(digest.strip("()")) == 12
