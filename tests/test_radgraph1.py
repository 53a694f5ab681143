"""Entity F1, relation F1 and their mean by the definitions of RadGraph 1.0."""

import pytest
from hypothesis import given
from test_rewards import ABSENT, ANATOMY, EDEMA, NO_ABNORMALITY, PRESENT, annotation, annotations

from radquant.scoring import rewards
from radquant.scoring.metrics import radgraph1


def test_hand_computed_case():
    hypothesis = annotation(
        ("unchanged", PRESENT, [("modify", 3)]),
        ("lungs", ANATOMY, []),
        ("edema", PRESENT, [("located_at", 2)]),
        ("mild", PRESENT, [("modify", 3)]),
    )
    # Entities: unchanged, edema and mild of 4 here and 5 there: 2·3/9.
    # Relations: unchanged modifies edema, of 3 here and 2 there: 2·1/5.
    entities, relations, mean = radgraph1.f1(hypothesis, EDEMA)
    assert (entities, relations) == pytest.approx((6 / 9, 2 / 5))
    assert mean == pytest.approx((6 / 9 + 2 / 5) / 2)
    # The package counts entities with their relations instead: 2·1/9.
    assert rewards.f1(hypothesis, EDEMA)[2] == pytest.approx(2 / 9)


def test_an_entity_that_is_said_twice_counts_once():
    twice = annotation(
        ("edema", PRESENT, [("modify", 3)]), ("edema", PRESENT, []), ("a", ABSENT, [])
    )
    # {edema, a} against {edema, b}: 2·1/4, not 2·2/5.
    once = annotation(("edema", PRESENT, []), ("b", ABSENT, []))
    assert radgraph1.f1(twice, once) == pytest.approx((0.5, 0, 0.25))


def test_a_relation_needs_the_labels_of_both_its_ends():
    # "edema in the lungs" against "no edema in the lungs": the anatomy alone is shared.
    here = annotation(("edema", PRESENT, [("located_at", 2)]), ("lungs", ANATOMY, []))
    there = annotation(("edema", ABSENT, [("located_at", 2)]), ("lungs", ANATOMY, []))
    assert radgraph1.f1(here, there) == pytest.approx((0.5, 0, 0.25))
    # The package's third level looks at the target's words alone.
    modified = annotation(("new", PRESENT, [("modify", 2)]), ("edema", PRESENT, []))
    negated = annotation(("new", PRESENT, [("modify", 2)]), ("edema", ABSENT, []))
    assert radgraph1.f1(modified, negated) == pytest.approx((0.5, 0, 0.25))
    assert rewards.f1(modified, negated)[2] == pytest.approx(0.5)


def test_capital_letters_count():
    here, there = annotation(("Edema", PRESENT, [])), annotation(("edema", PRESENT, []))
    assert radgraph1.f1(here, there) == (0, 0, 0)


def test_an_empty_side_scores_0_and_so_do_two():
    assert radgraph1.f1(annotation(), EDEMA) == (0, 0, 0)
    assert radgraph1.f1(EDEMA, annotation()) == (0, 0, 0)
    assert radgraph1.f1(annotation(), annotation()) == (0, 0, 0)
    # Nor is there a relation to share here, although all entities are.
    plain = annotation(("edema", PRESENT, []))
    assert radgraph1.f1(plain, plain) == (1, 0, 0.5)
    assert radgraph1.f1(NO_ABNORMALITY, NO_ABNORMALITY) == (1, 1, 1)


def published(hypothesis, reference):
    """Precision, recall and F1 step by step, as the published program computes them."""

    def f1(test, retrieved):
        shared = len(test & retrieved)
        precision = shared / len(retrieved) if retrieved else 0
        recall = shared / len(test) if test else 0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0

    sides = []
    for side in (reference, hypothesis):
        named = {k: (e["tokens"], e["label"]) for k, e in side["entities"].items()}
        relations = set()
        for name, entity in side["entities"].items():
            for kind, target in entity["relations"]:
                relations.add((named[name], named[target], kind))
        sides.append((set(named.values()), relations))
    (entities, relations), (found, found_relations) = sides
    scores = f1(entities, found), f1(relations, found_relations)
    return *scores, sum(scores) / 2


@given(annotations(), annotations())
def test_scores_equal_the_published_formula(hypothesis, reference):
    scores = radgraph1.f1(hypothesis, reference)
    assert scores == pytest.approx(published(hypothesis, reference))
    assert scores == pytest.approx(radgraph1.f1(reference, hypothesis))
