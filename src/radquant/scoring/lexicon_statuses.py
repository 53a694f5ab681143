"""Whether what a sentence names is present, absent or uncertain, from the triggers around it."""

from dataclasses import dataclass

from radquant.scoring import lexicon_triggers as triggers
from radquant.scoring.lexicon_answers import answers, join_headings
from radquant.scoring.lexicon_clauses import clause_breaks
from radquant.scoring.lexicon_relations import (
    DENIAL,
    DEVICE,
    ENTITIES,
    HEADS,
    MODIFIER,
    NEGATION,
    NEUTRAL,
    POSITION,
    POST_NEGATION,
    POST_UNCERTAINTY,
    SEEN,
    STATEMENT,
    STOP,
    SUGGESTION,
    UNCERTAINTY,
    Entity,
    Match,
)

PRESENT, ABSENT, UNCERTAIN = "definitely present", "definitely absent", "uncertain"

# Over how many words a negation reaches the trigger that it turns round: "not at all free of".
REACH = 4


@dataclass
class Scope:
    """What holds at a place in the sentence."""

    status: str = PRESENT
    first: int = 0  # first entity of the clause, as far as triggers look back
    triggered: int = 0  # number of entities when `status` was set
    backward: bool = False  # if nothing follows, the trigger is of what stands before it
    denied: int = -1  # token after the last negation, if no finding stands since; else -1
    joined: bool = False  # a "with" stands since the negation
    listing: bool = True  # the negation may deny a list: "no", but not "not"
    claim: bool = False  # what is denied is a whole statement: "no evidence that"

    def set(self, status: str, entities: list[Entity]) -> None:
        self.status, self.triggered = status, len(entities)
        self.backward = self.joined = self.claim = False
        self.listing = True

    def restart(self, entities: list[Entity]) -> None:
        self.status, self.first, self.denied = PRESENT, len(entities), -1


def find_statuses(words: list[str], matches: list[Match]) -> tuple[list[Entity], list[int]]:
    """Return the entities with their status, and after how many of them a suggestion stands."""
    breaks, denied_breaks, commas = clause_breaks(words)
    entities: list[Entity] = []
    links: list[int] = []
    scope = Scope()
    position = 0
    joining = "with" in words
    if "negative" in words:
        matches = list(answers(words, matches))
    for start, end, kind in [*matches, (len(words), len(words), STOP)]:
        joints = breaks
        if scope.status == ABSENT:
            joints = denied_breaks if scope.listing else commas
        if kind == STOP and _tells_which(words, start, end, entities, scope):
            kind = NEUTRAL
        if kind == STOP or (joints and _parts(words, position, start, joints, scope)):
            _end_clause(words, start, end, entities, scope)
        if joining and "with" in words[position:start]:
            scope.joined = True
        position = start
        if kind in ENTITIES:
            _add(words, Entity(start, end, kind, scope.status), entities, scope)
        elif kind in (NEGATION, DENIAL):
            _negate(words, start, end, kind, entities, scope)
        elif kind == SEEN:
            if _is_denied(words, start, scope, triggers.NOT) and not _still(words, start, end):
                _deny(words, start, end, entities, scope)
        elif kind == POST_NEGATION:
            _negate_back(words, start, end, entities, links, scope)
        elif kind == POST_UNCERTAINTY:
            _doubt_back(words, start, end, entities, links, scope)
        elif kind in (UNCERTAINTY, SUGGESTION):
            denied = _is_denied(words, start, scope) and words[end - 1] not in triggers.EXCLUDING
            if denied or (kind == SUGGESTION and _goes_on(words, start, entities, scope)):
                scope.set(ABSENT, entities)  # "does not suggest", "no opacity to suggest"
                kind = NEUTRAL
            else:
                scope.set(UNCERTAIN, entities)
            said = denied and words[start - 1] in triggers.NOT  # "edema is not favored"
            scope.backward = said or words[end - 1] in triggers.BACKWARD
        elif kind == STATEMENT and _begins_anew(words, start, entities, scope):
            scope.set(PRESENT, entities)  # "no effusion, findings compatible with emphysema"
        if kind in (STATEMENT, SUGGESTION) or (kind == UNCERTAINTY and _continues(words, start)):
            links.append(len(entities))
    if ":" in words:
        join_headings(words, entities)
    return entities, links


_BUT_PERSISTS = [["but", word] for word in triggers.PERSISTS]


def _end_clause(
    words: list[str], start: int, end: int, entities: list[Entity], scope: Scope
) -> None:
    """Begin a new clause; it may still speak of what stood last in the one before it."""
    if scope.backward and scope.triggered == len(entities):  # "atelectasis is possible"
        _apply(entities[scope.first :], scope.status)
    scope.restart(entities)
    after = words[end : end + REACH]
    if words[start:end] == ["which"] and not triggers.OVER.isdisjoint(after):
        scope.first = _last_head(entities)  # "effusion, which is no longer seen"
    elif words[start:end] == ["but"] and "excluded" in after:
        scope.first = _last_head(entities)  # "is not suspected but cannot be excluded"
    elif words[start : end + 1] in _BUT_PERSISTS:
        for entity in entities[_last_head(entities) :]:  # "but present on the left"
            entity.status = PRESENT


def _last_head(entities: list[Entity]) -> int:
    for index in range(len(entities) - 1, max(len(entities) - 1 - REACH, -1), -1):
        if entities[index].kind in HEADS:
            return index
    return len(entities)


def _parts(words: list[str], position: int, start: int, joints: set[int], scope: Scope) -> bool:
    """Say whether a clause begins between two matches.

    A negation holds over "with" and "and" where no finding stands between: "no rib with a
    fracture". "No edema with small effusions" denies the edema only.
    """
    weak = ("with", "and") if scope.status == ABSENT and scope.denied >= 0 else ()
    return any(
        index in joints and words[index] not in weak  # few words stand between
        for index in range(position, start)
    )


def _add(words: list[str], entity: Entity, entities: list[Entity], scope: Scope) -> None:
    """Append an entity, and let it end what its kind ends."""
    presupposes = scope.status == ABSENT and _presupposes(words, entity.end)
    if scope.status == ABSENT and scope.joined and entity.kind == DEVICE:
        # "No pneumothorax with a chest tube in place": nobody writes of a device that is not there.
        entity.status = scope.status = PRESENT
    elif scope.status == ABSENT and entities and _is_placed(words, entities[-1], entity):
        entity.status = scope.status = PRESENT
    if entity.kind in HEADS and words[max(entity.start - 3, 0) : entity.start] == _NONE_OF_THE:
        entity.status, presupposes = PRESENT, True
    entities.append(entity)
    if presupposes:
        scope.status = PRESENT
    if presupposes or entity.kind in HEADS:
        scope.denied = -1
    elif (
        scope.claim
        and words[entity.start - 1] in ("has", "have")
        and words[entity.end - 1].endswith("ed")
    ):
        for other in entities[scope.triggered :]:  # "neither effusion nor edema has changed"
            other.status = PRESENT
        scope.restart(entities)


def _is_placed(words: list[str], before: Entity, entity: Entity) -> bool:
    """Say whether a place shows that the entity is there: "no effusion, consolidation in the left
    base", "no ETT, NGT in the stomach".
    """
    if entity.kind not in HEADS or "," not in words[before.end : entity.start]:
        return False
    place = words[entity.end : entity.end + REACH]
    if not place or place[0] not in triggers.PREPOSITIONS or "or" in place:
        return False
    return entity.kind == DEVICE or not triggers.SIDES.isdisjoint(place)


_NONE_OF_THE = ["none", "of", "the"]  # of opacities, for example, which then are there


def _negate(
    words: list[str], start: int, end: int, kind: str, entities: list[Entity], scope: Scope
) -> None:
    """Begin what "no", "free of", "cannot" deny; one that is itself denied denies nothing."""
    if kind == DENIAL:
        scope.denied = end
        return
    if _is_denied(words, start, scope) and _turns_round(words, start, end, scope):
        before = words[scope.denied - 1]
        doubt = before in ("that", "cannot") or words[scope.denied - 2] in ("can", "could")
        scope.set(UNCERTAIN if doubt else PRESENT, entities)
        scope.denied = -1
        return
    if words[start - 3 : start - 1] == ["that", "there"] and not triggers.NOT.isdisjoint(
        words[max(start - 8, 0) : start - 3]
    ):
        scope.set(UNCERTAIN, entities)  # "it cannot be said that there is no effusion"
        return
    if words[end - 1] == "of" and (  # "partial resolution of", "slight clearing of"
        _held_back(words, start)
        or (words[end - 2] in triggers.GOING and words[start - 1] in triggers.LITTLE)
    ):
        scope.set(PRESENT, entities)
        scope.denied = -1
        return
    if words[start] == "nor" and scope.claim:
        scope.denied = end
        return
    scope.set(ABSENT, entities)
    scope.denied, scope.claim = end, words[end - 1] in ("that", "neither")
    scope.listing = words[start] not in triggers.NOT and words[end - 1] != "t"


def _turns_round(words: list[str], start: int, end: int, scope: Scope) -> bool:
    """Say whether the negation becomes none by the one before it: "not free of", "no lack of"."""
    if words[scope.denied - 1] == "that":  # "no evidence that there is no effusion"
        return True
    ends = ("of", "from", "for", "lacks", "without")
    return words[start] not in ("no", "never", "nor", "not") and words[end - 1] in ends


def _is_denied(
    words: list[str], start: int, scope: Scope, by: frozenset[str] | None = None
) -> bool:
    """Say whether a negation, by default any, is said of the trigger at `start`."""
    if scope.denied < 0 or start - scope.denied > REACH:
        return False
    if any(not word[0].isalnum() for word in words[scope.denied : start]):
        return False
    return by is None or words[scope.denied - 1] in by


def _goes_on(words: list[str], start: int, entities: list[Entity], scope: Scope) -> bool:
    """Say whether the suggestion at `start` is of what has just been denied.

    "No opacity to suggest pneumonia" it is; "no effusion, opacity suggestive of pneumonia" states
    the opacity.
    """
    if scope.status != ABSENT or len(entities) == scope.triggered:
        return False
    if "," in words[entities[-1].end : start]:
        return False
    joints = {",", "("} | ({"and"} if words[start] in triggers.MODALS else set())
    for index in range(len(entities) - 1, max(scope.triggered, len(entities) - 2 * REACH), -1):
        between = words[entities[index - 1].end : entities[index].start]
        if "or" in between:
            return True
        if not joints.isdisjoint(between):
            for entity in entities[index:]:
                entity.status = PRESENT
            return False
    return True


def _begins_anew(words: list[str], start: int, entities: list[Entity], scope: Scope) -> bool:
    stated = scope.status == ABSENT and len(entities) > scope.triggered
    return stated and not _goes_on(words, start, entities, scope)


def _tells_which(
    words: list[str], start: int, end: int, entities: list[Entity], scope: Scope
) -> bool:
    """Say whether what follows tells what is denied or doubted: "no lobe that is collapsed", "it is
    possible that there is an effusion".
    """
    if words[start:end] == ["which"]:
        modal = end < len(words) and words[end] in triggers.MODALS
        return scope.status == ABSENT and modal
    doubted = scope.status == UNCERTAIN and scope.triggered == len(entities)
    return words[start:end] == ["that"] and (scope.status == ABSENT or doubted)


def _still(words: list[str], start: int, end: int) -> bool:
    """Say whether what is not seen may be there: "not seen previously", "cannot be well seen"."""
    formerly = not triggers.FORMERLY.isdisjoint(words[end : end + REACH])
    return formerly or words[start - 1] in triggers.PARTLY


def _held_back(words: list[str], start: int) -> bool:
    """Say whether what the trigger tells has not come to its end: "nearly resolved"."""
    for index in range(start - 1, max(start - 1 - REACH, -1), -1):
        if not words[index][0].isalnum() and words[index] not in ("'", "-"):
            return False
        if words[index] in triggers.ALMOST:
            return True
    return False


def _negate_back(
    words: list[str], start: int, end: int, entities: list[Entity], links: list[int], scope: Scope
) -> None:
    last = words[end - 1]
    if last in triggers.GONE and not triggers.NOT_WHOLLY.isdisjoint(words[end : end + 1]):
        return  # "has resolved partially"
    if last == "removal":  # "chest tube removal"
        if entities and entities[-1].kind == DEVICE and entities[-1].end == start:
            entities[-1].status = ABSENT
        return
    if last in ("withdrawn", "pulled") and "".join(words[end : end + 1]).isdigit():
        return  # by some centimetres
    held = _held_back(words, start) or _is_denied(words, start, scope, triggers.NOT)
    unsettled = not triggers.UNSETTLED.isdisjoint(words[max(start - 2, 0) : start])
    if (held or unsettled) and last in ("excluded", "out"):
        _doubt_back(words, start, end, entities, links, scope)
    elif held:  # "has not resolved", "is not absent"
        scope.restart(entities)
    else:
        _deny(words, start, end, entities, scope)


def _deny(words: list[str], start: int, end: int, entities: list[Entity], scope: Scope) -> None:
    """Deny what stands before in the clause; where nothing does, what follows."""
    if words[start] == "none" and "".join(words[end : end + 1]) in triggers.PREPOSITIONS:
        return  # "left effusion, none on the right"
    scope.first = max(scope.first, _after_predicate(words, entities, scope.first))
    before = entities[scope.first :]
    if _leads(words, start, end, before):
        scope.restart(entities)
        if words[start] != "none":
            scope.set(ABSENT, entities)
        return
    if scope.status == UNCERTAIN and scope.triggered == len(entities):  # "may have resolved"
        _apply(before, UNCERTAIN)
    elif scope.claim and words[end - 1] in triggers.GONE:
        for entity in before:  # "no evidence that the effusion has resolved"
            entity.status = PRESENT
    else:
        tips = [entity for entity in before if words[entity.end - 1] in triggers.ENDS]
        _apply(tips or before, ABSENT)
    scope.restart(entities)


def _after_predicate(words: list[str], entities: list[Entity], first: int) -> int:
    """Return the first entity after "unchanged," in "effusion unchanged, pneumothorax resolved"."""
    for index in range(len(entities) - 1, max(first, len(entities) - 1 - 2 * REACH), -1):
        predicate = entities[index - 1]
        if predicate.kind == MODIFIER and "," in words[predicate.end : entities[index].start]:
            return index
    return first


def _leads(words: list[str], start: int, end: int, before: list[Entity]) -> bool:
    """Say whether the trigger at `start` is said of what follows: "resolved pneumothorax".

    So it is where no noun stands before it in the clause, or right after a comma or "and".
    """
    if all(entity.kind in (MODIFIER, POSITION) for entity in before):
        return True
    if words[start - 1] not in triggers.LEADING or end == len(words):
        return False
    after = words[end]
    return after[0].isalnum() and after not in triggers.VERBS and after not in triggers.PREPOSITIONS


def _doubt_back(
    words: list[str], start: int, end: int, entities: list[Entity], links: list[int], scope: Scope
) -> None:
    settled = words[start] != "?" and words[end - 1] not in ("excluded", "out")
    if settled and _is_denied(words, start, scope, triggers.NOT):  # "is not suspected"
        _deny(words, start, end, entities, scope)
        return
    forward = words[start] not in ("?", "if") and words[start] != "less"
    if forward and _leads(words, start, end, entities[scope.first :]):
        scope.restart(entities)
        scope.set(UNCERTAIN, entities)
        return
    if links:
        scope.first = max(scope.first, _after_comma(words, entities, links[-1]))
    _apply(entities[scope.first :], UNCERTAIN)
    if scope.first:  # "opacity, but edema is not excluded"
        links.append(scope.first)
    stated = any(entity.kind in HEADS for entity in entities[scope.first :])
    scope.restart(entities)
    if words[start] == "if" and not stated:  # "if any, a small effusion"
        scope.set(UNCERTAIN, entities)


def _after_comma(words: list[str], entities: list[Entity], link: int) -> int:
    """Return the first entity after the last comma, or after the suggestion where none is.

    "Opacity, likely edema, pneumonia not excluded" doubts neither the opacity nor, again, edema.
    """
    for index in range(len(entities) - 1, link, -1):
        if "," in words[entities[index - 1].end : entities[index].start]:
            return index
    return link


def _presupposes(words: list[str], end: int) -> bool:
    """Say whether what follows is there although the entity is not: "no change in effusion"."""
    after = words[end] if end < len(words) else ""
    if words[end - 1] == "change" and after in triggers.SINCE:
        return True
    if words[end - 1] == "changes" and after == "of":  # "no changes of emphysema"
        return False
    return words[end - 1] in triggers.CHANGES and after in ("in", "of")


def _continues(words: list[str], start: int) -> bool:
    """Say whether the adverb at `start` goes on from what stands before it.

    "Opacity, likely edema" does; "opacity and a possible nodule" does not.
    """
    while start and words[start - 1] in ("a", "an", "the", "also", "new"):
        start -= 1
    return start > 0 and words[start - 1] not in ("and", "with", "or")


def _apply(entities: list[Entity], status: str) -> None:
    """Give `status` to entities that were stated; doubt also covers what was denied."""
    for entity in entities:
        if entity.status == PRESENT or status == UNCERTAIN:
            entity.status = status
