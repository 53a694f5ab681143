"""Relations between the entities of a sentence, from their order and the words between them."""

from dataclasses import dataclass, field

from radquant.scoring import lexicon_triggers as triggers

# Kinds of a match. Entities:
FINDING, DEVICE, NORMAL, MODIFIER, ANATOMY, POSITION = "FDNMAP"
# Triggers:
NEGATION, DENIAL, SEEN, POST_NEGATION, UNCERTAINTY, POST_UNCERTAINTY = "-!o<?~"
SUGGESTION, STATEMENT, STOP, NEUTRAL = ">=|."

ENTITIES = FINDING + DEVICE + NORMAL + MODIFIER + ANATOMY + POSITION
Match = tuple[int, int, str]  # first token, token after the last, kind

HEADS = FINDING + DEVICE
# How far, in entities, a modifier or a place may stand from what it belongs to. A bound keeps the
# time linear in sentences without end.
REACH = 6


@dataclass
class Entity:
    """Tokens [start, end) with one of the kinds above; relations are (name, entity's number)."""

    start: int
    end: int
    kind: str
    status: str
    relations: list[tuple[str, int]] = field(default_factory=list)
    sign: bool = False  # what may stand for a disease: an opacity, not an effusion


def relate(words: list[str], entities: list[Entity], links: list[int], offset: int) -> None:
    """Add relations to `entities` of one sentence; their numbers start at `offset`.

    `links` holds, for every "may represent" and the like, how many entities stand before it.
    """
    gaps = _gaps(words, entities)
    for link in links:
        if link < len(gaps):  # "the lungs are large, suggesting emphysema": no large emphysema
            gaps[link] = VERB
    for index, entity in enumerate(entities):
        if entity.kind == POSITION:
            _relate_position(entities, gaps, index, offset)
        elif entity.kind == ANATOMY:
            if _adjacent_anatomy(entities, gaps, index):
                entity.relations.append(("modify", offset + index + 1))
        elif entity.kind == MODIFIER:
            target = _modified(entities, gaps, index)
            if target is not None:
                entity.relations.append(("modify", offset + target))
        if entity.kind in (FINDING, DEVICE, NORMAL) or (
            entity.kind == MODIFIER and not entity.relations
        ):
            for place in _places(entities, gaps, index):
                entity.relations.append(("located_at", offset + place))


# What stands between an entity and the one before it.
NOTHING, JOINT, PREPOSITION, VERB, OTHER = range(5)


def _gaps(words: list[str], entities: list[Entity]) -> list[int]:
    """Return for every entity what stands between it and the entity before it."""
    gaps = []
    end = 0
    for entity in entities:
        between = set(words[end : entity.start]) - {"-", "the", "a", "an", "/", "sided"}
        if "least" in between:  # "at least mildly"
            between -= {"at", "least"}
        if not between:
            gaps.append(NOTHING)
        elif between == {"to"} and entity.kind == MODIFIER:  # "moderate to severely"
            gaps.append(JOINT)
        elif between & triggers.CONTRASTS:  # "volumes are low, but no infiltrates are present"
            gaps.append(VERB)
        elif between & triggers.PREPOSITIONS:
            gaps.append(PREPOSITION)
        elif between & triggers.VERBS:
            gaps.append(VERB)
        elif between & {",", "and", "or", "nor", "with", "without", "no", "versus", "vs"}:
            gaps.append(JOINT)
        else:
            gaps.append(OTHER)
        end = entity.end
    return gaps


def _relate_position(entities: list[Entity], gaps: list[int], index: int, offset: int) -> None:
    """Let a side or position modify the structure that follows in its phrase, else one before."""
    target = None
    for other in range(index + 1, min(index + 1 + REACH, len(entities))):
        if gaps[other] not in (NOTHING, JOINT, OTHER):
            break
        kind = entities[other].kind
        if kind == ANATOMY:
            target = other
            if not _adjacent_anatomy(entities, gaps, other):
                break
        elif kind in HEADS or target is not None:
            break
    if target is None and index and entities[index - 1].kind == ANATOMY:
        following = entities[index + 1] if index + 1 < len(entities) else None
        # "in the lung on the left"; but not "heart and left effusion".
        if gaps[index] in (NOTHING, PREPOSITION) and (
            following is None or following.kind not in HEADS or gaps[index + 1] != NOTHING
        ):
            target = index - 1
    if target is not None:
        entities[index].relations.append(("modify", offset + target))


def _adjacent_anatomy(entities: list[Entity], gaps: list[int], index: int) -> bool:
    """Say whether the next entity continues the structure: "cardiac silhouette"."""
    following = index + 1
    return (
        following < len(entities)
        and entities[following].kind == ANATOMY
        and gaps[following] == NOTHING
    )


def _modified(entities: list[Entity], gaps: list[int], index: int) -> int | None:
    """Return what a modifier belongs to: the head after it in its phrase, else the one before."""
    for other in range(index + 1, min(index + 1 + REACH, len(entities))):
        if gaps[other] in (VERB, PREPOSITION):
            # "increase in opacity", "worsening of edema": the noun follows.
            if not (gaps[other] == PREPOSITION and other == index + 1):
                break
            if entities[other].kind not in (*HEADS, MODIFIER):
                break
        if entities[other].kind in (FINDING, DEVICE, NORMAL):
            return other
    for other in range(index - 1, max(index - 1 - REACH, -1), -1):
        if entities[other].kind in HEADS:
            return other
        if gaps[other + 1] == JOINT and entities[other].kind != MODIFIER:
            break
    return None


def _places(entities: list[Entity], gaps: list[int], index: int) -> list[int]:
    """Return where an observation is: the structure before it in its phrase, then the one after.

    A place modified by what follows it ("right lower lobe") is given by its last word.
    """
    before = _places_before(entities, gaps, index)
    after = _places_after(entities, gaps, index)
    if not before and not after:
        before = _subject(entities, gaps, index)
    if entities[index].kind in (NORMAL, MODIFIER):
        return before or after
    if before and gaps[before[-1] + 1] == VERB:
        # "the heart is enlarged": the subject, unless the predicate says where.
        return before
    return [*before, *after]


def _places_before(entities: list[Entity], gaps: list[int], index: int) -> list[int]:
    for other in range(index - 1, max(index - 1 - REACH, -1), -1):
        gap, kind = gaps[other + 1], entities[other].kind
        if gap == PREPOSITION:
            break
        if kind in HEADS and gap != NOTHING:
            break
        if kind == ANATOMY:
            if gap == JOINT:
                break
            return _coordinated(entities, gaps, other) if gap == VERB else [other]
        if kind == POSITION and not _modifies_structure(entities[other]):
            return [other]
        if gap == JOINT and kind != MODIFIER:
            break
    return []


def _subject(entities: list[Entity], gaps: list[int], index: int) -> list[int]:
    """Return the structure of an earlier predicate: "the aorta is tortuous and calcified"."""
    for other in range(index, max(index - REACH, 0), -1):
        if gaps[other] == VERB:
            before = entities[other - 1].kind == ANATOMY
            return _coordinated(entities, gaps, other - 1) if before else []
        if gaps[other] == PREPOSITION or entities[other - 1].kind in (ANATOMY, POSITION):
            return []
    return []


def _coordinated(entities: list[Entity], gaps: list[int], last: int) -> list[int]:
    """Return the structures joined to `last`: "the heart and lungs are normal"."""
    places = [last]
    for other in range(last, max(last - REACH, 0), -1):
        if entities[other - 1].kind not in (ANATOMY, POSITION):
            break
        if gaps[other] == JOINT and entities[other - 1].kind == ANATOMY:
            places.append(other - 1)
        elif gaps[other] not in (NOTHING, JOINT):
            break
    return sorted(places)


def _places_after(entities: list[Entity], gaps: list[int], index: int) -> list[int]:
    place = None
    for other in range(index + 1, min(index + 1 + REACH, len(entities))):
        gap, kind = gaps[other], entities[other].kind
        if place is None and gap == VERB and entities[index].kind != DEVICE:
            break
        if gap == JOINT or kind in (*HEADS, NORMAL):
            break
        if place is not None and gap != NOTHING:
            break
        if kind == POSITION and not _leads_to_structure(entities, gaps, other):
            place = other
        if kind == ANATOMY:
            place = other
    return [] if place is None else [place]


def _leads_to_structure(entities: list[Entity], gaps: list[int], index: int) -> bool:
    following = index + 1
    return (
        following < len(entities)
        and gaps[following] == NOTHING
        and entities[following].kind in (POSITION, ANATOMY)
    )


def _modifies_structure(entity: Entity) -> bool:
    return any(name == "modify" for name, _ in entity.relations)


def suggest(entities: list[Entity], earliest: int, link: int) -> None:
    """Relate the sign before entity `link` to the first finding after it, and to those listed with
    it. An example is "opacity may represent atelectasis or pneumonia, although edema cannot be
    excluded".

    `entities` end with those of the link's sentence; no sign is looked for before `earliest`.
    """
    cause = _cause(entities, earliest, link)
    if cause is None:
        return
    status = None
    for index in range(link, min(link + 2 * REACH, len(entities))):
        entity = entities[index]
        if entity.kind not in HEADS:
            continue
        if status is None:
            status = entity.status
        elif status == "definitely present" or entity.status != status:
            break
        relation = ("suggestive_of", index)
        if relation not in entities[cause].relations:
            entities[cause].relations.append(relation)


def _cause(entities: list[Entity], earliest: int, link: int) -> int | None:
    """Return the nearest sign before `link` that is there and not itself suggested."""
    for index in range(link - 1, max(link - 1 - 4 * REACH, earliest - 1), -1):
        if entities[index].sign and entities[index].status == "definitely present":
            return index
    return None
