"""The scores of RadGraph 1.0, in which ReXrank and RadCliQ count: entity F1, relation F1, mean.

Jain et al. (2021) define the schema, Yu et al. (2023, "Evaluating progress in automatic chest X-ray
radiology report generation") the score. Their program is rajpurkarlab/CXR-Report-Metric at commit
208c45c. Its CXRMetric/radgraph_evaluate_model.py (`parse_entity_relation`, `compute_f1`) is
followed in all cases. Both sides are sets, so that an entity said twice counts once. A relation is
one of (tokens, label) to (tokens, label), and letters are compared as they stand. Where two sides
share nothing, or both are empty, F1 is 0. The levels of the `radgraph` package
(`radquant.scoring.rewards`) are other numbers.
"""

from typing import Any

from radquant.scoring.metrics.kind import About, Annotation, Column, Pair, Section

ABOUT = About(
    columns=(
        Column("rg1_entities", "ReXrank entity F1", "entity F1", difference=False, runs=False),
        Column("rg1_relations", "ReXrank relation F1", "relation F1", difference=False, runs=False),
        Column("rg1_mean", "ReXrank mean of both", "mean of both", difference=False, runs=False),
    ),
    citation="Jain et al. (2021); Yu et al. (2023)",
    group="entity",
    name="ReXrank's entity and relation F1",
    annotations=True,
    section=Section(
        "By the definitions of ReXrank",
        "The same annotations scored as ReXrank does, by the definitions of RadGraph 1.0. These "
        "are not the levels above, and they compare with published scores only where the annotator "
        "is radgraph with its model radgraph:",
    ),
)


def measure(pair: Pair) -> tuple[float, float, float]:
    return f1(pair.output_note, pair.reference_note)


def f1(hypothesis: Annotation, reference: Annotation) -> tuple[float, float, float]:
    """Return (entity F1, relation F1, their mean) of two annotations of either annotator."""
    entities = _f1(_entities(hypothesis), _entities(reference))
    relations = _f1(_relations(hypothesis), _relations(reference))
    return entities, relations, (entities + relations) / 2


def _f1(one: set[Any], other: set[Any]) -> float:
    if not one & other:  # a relation F1 of two sides without relations is 0, too
        return 0.0
    return 2 * len(one & other) / (len(one) + len(other))


def _entities(annotation: Annotation) -> set[Any]:
    return {_entity(entity) for entity in annotation["entities"].values()}


def _relations(annotation: Annotation) -> set[Any]:
    entities = annotation["entities"]
    return {
        (_entity(entity), _entity(entities[target]), kind)
        for entity in entities.values()
        for kind, target in entity["relations"]
    }


def _entity(entity: dict[str, Any]) -> tuple[str, str]:
    return entity["tokens"], entity["label"]
