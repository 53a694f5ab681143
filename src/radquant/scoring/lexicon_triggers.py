"""The words by which the lexicon tells what is present, absent or uncertain, and where clauses end.

They are written as in `lexicon_terms`.
"""

from itertools import product

from radquant.scoring.lexicon_terms import listed, words


def phrases(*parts: frozenset[str]) -> set[str]:
    return {" ".join(part).replace("_", " ") for part in product(*parts)}


# "No X": what follows is absent. The word itself is no observation.
NEGATIONS = listed("""
    absence_of are_against aren't argue_against argued_against argues_against arguing_against
    clear_from clear_of clearance_of cleared_of clearing_of denies detection_of devoid_of didn't
    disappearance_of doesn't don't evidence_against excludes excluding fail_to failed_to
    failing_to fails_to free_from free_of hasn't haven't incompatible_with inconsistent_with
    instead_of interval_clearing_of interval_removal_of interval_resolution_of isn't lack
    lack_of lacked lacking lacks neg_for negative_for neither never nil no no_evidence_of
    no_evidence_that no_indication_that no_longer no_sign_of non none_of nor not nothing
    rather_than removal_of resolution_of rules_out sensitivity_for speak_against speaks_against
    to_detect unlikely_to w/o w/out wasn't weren't without zero
""") + tuple(sorted({
    *phrases(words("is was are were be being"), words("negative_for neg_for")),
    *phrases(words("no"), words("evidence_of_any radiographic_evidence_of")),
}))  # fmt: skip

# "X cannot be seen": they deny what is said of X, and nothing that follows.
DENIALS = listed("""
    can't can_no_longer can_not cannot could_no_longer could_not couldn't not_adequately not_as
    not_as_well not_completely not_entirely not_fully not_optimally not_well unable_to won't
""")
# Words that a denial ends with. What they say is seen is then not seen: "not seen", "isn't seen".
NOT = words("not cannot longer t never nor")

# "Cannot be well seen": it is seen.
PARTLY = words("adequately completely entirely fully optimally well")

# Words of seeing: "X is not clearly seen" denies X.
SEEN = listed("""
    apparent appeared appreciable appreciated confirmed demonstrated depicted detectable
    detected developed discerned discernible evident found identifiable identified in_place
    noted observed occurred perceptible present reaccumulated reappeared recognizable recognized
    recurred returned seen suggested visible visualised visualized
""")
# "Not seen previously": it may be there now. "Not seen beyond the clavicle": it is seen before.
FORMERLY = words("before beyond earlier formerly past previous previously prior then")

# "X has resolved": what stands before it in the clause is absent; where nothing does, what follows.
POST_NEGATIONS = listed("""
    absent are_negative been_discontinued been_extubated been_pulled been_taken_out
    been_withdrawn cleared completely_cleared completely_excluded completely_resolved
    completely_ruled_out disappeared excluded gone improbable is_lacking is_negative neg none
    removal removed resolved ruled_out unlikely vanished was_negative was_pulled were_negative
""") + tuple(sorted(
    phrases(words("is are"), words("considered felt thought"), words("improbable unlikely"))
))  # fmt: skip
# Of these, those that say that something was there. "No evidence that X has resolved": it is there.
GONE = words("cleared disappeared extubated gone out pulled removed resolved vanished withdrawn")
OVER = GONE | {"longer"}
# "X has almost cleared", "partial resolution of X", "to document resolution of X": X is there.
ALMOST = words("""
    allow almost confirm confirming document documenting ensure ensuring eventual expected
    follow further gradual incomplete incompletely largely mostly near nearly not ongoing
    partial partially partly slow some substantial substantially t until verify
""")

# "Slight clearing of X", "X has cleared somewhat": X is there, too. Before "resolved" they would be
# said of X itself.
LITTLE = words("minimal mild moderate modest slight")
GOING = words("clearance clearing disappearance resolution")
NOT_WHOLLY = words("incompletely largely mostly nearly partially partly slightly somewhat")

# After one of these, "resolved" is said of what follows.
LEADING = words("a an and for from of suggesting suggests the with ,")
# A finding that is still to be excluded is not excluded: "fracture must be excluded".
UNSETTLED = words("must needs should to")

# "Possible X": what follows is uncertain.
UNCERTAINTIES = listed("""
    +/- can_not_exclude can_not_rule_out cannot_exclude cannot_rule_out concern_for concern_of
    consider considerations_include correlate_for correlation_for could differential
    differential_considerations differential_diagnosis differential_includes doubt doubted
    doubtful equivocal equivocal_for evaluate_for exclude favor favored if in_case_of
    likelihood_of likely may maybe might must_be_considered not_exclude not_necessarily perhaps
    possibility_of possible possibly potential potentially presumably presumptive presumptively
    probability_of probable probably query question question_of questionable r/o rule_out
    should_a should_an should_any should_there suggestion_of suspect suspicion suspicion_of
    suspicious_of unclear_if versus vs whether worry_for ±
""")
# Of these, those that a denial does not deny: "does not exclude X".
EXCLUDING = words("exclude excluding out necessarily")

# "X cannot be excluded": what stands before it in the clause is uncertain.
POST_UNCERTAINTIES = listed("""
    ? are_also_possible are_considerations are_presumed are_questioned are_suspected
    are_uncertain can_not_be_confirmed cannot_be_confirmed cannot_be_proven
    could_also_be_considered could_be_considered could_be_present difficult_to_exclude
    difficult_to_rule_out hard_to_exclude hard_to_rule_out if_any if_present
    impossible_to_exclude in_the_differential is_a_concern is_a_consideration is_a_possibility
    is_also_a_possibility is_also_possible is_considered is_favored is_presumed is_questioned
    is_suspected is_uncertain less_likely may_be_present might_be_present
    must_also_be_considered must_be_considered not_certain not_proven presumed questioned
    remains_a_consideration remains_a_possibility remains_uncertain should_be_considered
    suspected was_uncertain would_be_difficult_to_exclude
""")

# "A may represent B": A is suggestive of B, and B is uncertain. "Perhaps due to", "could also be".
MODALS = words("may might could would can")
_BETWEEN = words("also all both either well potentially possibly partly partially still")
_PREDICATES = words("""
    be be_a_combination_of be_attributable_to be_attributed_to be_caused_by be_compatible_with
    be_consistent_with be_due_to be_from be_in_keeping_with be_indicative_of be_related_to
    be_secondary_to be_suggestive_of correspond_to have_been_due_to have_been_from indicate mean
    raise_concern_for reflect relate_to represent result_from simulate suggest
""")
_ADVERBS = words("""
    likely more_likely most_likely perhaps possibly potentially presumably presumptively
    probably very_likely
""")
_CAUSES = words("""
    a_combination_of accounted_for_by as_a_result_of attributable_to attributed_to because_of
    caused_by correspond_to corresponding_to corresponds_to due_to explained_by from
    in_keeping_with indicating reflect reflecting reflects related_to relating_to represent
    representing represents resulting_from secondary_to
""")
_RAISED = words("""
    concern_for concern_of possibility_of question_of suspicion_for the_possibility_of
    the_question_of
""")
SUGGESTIONS = listed("""
    appearance_suggests appears_to_represent c/f concerning_for consideration_of
    favored_to_reflect favored_to_represent favoring favors felt_to_represent is_suspicious_for
    likely_a likely_to_be s/o suggest suggesting suggestive_of suggests suspicious_for
    thought_to_reflect thought_to_represent worrisome_for
""") + tuple(sorted({
    *phrases(MODALS, _PREDICATES),
    *phrases(MODALS, _BETWEEN, _PREDICATES),
    *phrases(_ADVERBS, _CAUSES),
    *phrases(words("raise raises raising"), _RAISED),
}))  # fmt: skip

# Of the uncertainties, those that may also end their clause: "Atelectasis is likely."
BACKWARD = words(
    "doubted doubtful likely possible possibly probable probably questionable equivocal"
)

# "A consistent with B": A is suggestive of B, and B keeps its status.
STATEMENTS = listed("""
    2/2 attributable_to c/w caused_by characteristic_of compatible_to compatible_with
    consistent_of consistent_with d/t diagnostic_of due_to in_keeping_with indicates indicating
    indicative_of reflect reflecting reflective_of reflects related_to represent representing
    represents secondary_to typical_of
""")

# The scope of a negation or an uncertainty ends here.
STOPS = listed("""
    accompanied additionally also although apart_from aside_from because besides beyond but
    compared except exception_of finding: however in_comparison in_the_setting_of instead
    nevertheless other_than otherwise positive_for s/p save_for since status_post still that
    though whereas which while yes yet
""")

# These look like a negation or an uncertainty, and are none.
NEUTRAL = listed("""
    as_well_as been_pulled_back been_withdrawn_by been_withdrawn_slightly been_withdrawn_to
    can_be_seen can_not_be_assessed cannot_be_assessed cannot_be_evaluated consider_adjusting
    consider_advancement consider_advancing consider_chest_ct consider_ct consider_dedicated
    consider_follow consider_further consider_obtaining consider_removal consider_removing
    consider_repeat consider_repositioning consider_retracting consider_retraction
    consider_withdrawal consider_withdrawing could_not_be_assessed gram_negative if_clinically
    if_desired if_indicated if_necessary if_needed if_the if_these if_this if_warranted no_doubt
    no_interval_removal not_assessed not_evaluated not_only without_doubt
""") + tuple(sorted({
    *phrases(
        words("not"),
        words("appreciably markedly significantly substantially"),
        words("changed decreased different improved increased worsened"),
    ),
    *phrases(
        words("can could may might should would"),
        words("be_helpful be_obtained be_performed be_repeated be_useful help"),
    ),
    *phrases(
        words("clearing_of"), words("the both"), words("lung left_lung right_lung")
    ),
    *phrases(words("clearing_of"), words("lung left_lung right_lung")),
}))  # fmt: skip

# A finite verb: what follows is the predicate.
VERBS = words("""
    appear appeared appears are be been being course courses coursing demonstrate demonstrated
    demonstrates end ending ends extend extending extends had has have is lie lies overlie
    overlies project projecting projects reach reaches remain remained remains reside resides
    seem seems show showed shows terminate terminates terminating was were
""")

# After "no X is": the clause denies X; it does not begin a new statement.
PERCEPTION = words("""
    apparent appreciated demonstrated detected evident found identified noted observed present
    seen suggested visible visualized
""")

# After "but", these say that what was denied is there elsewhere.
PERSISTS = words("persist persists persisting present remain remains seen still")

# After a negation, these begin what is there: "no pneumothorax after placement of a line".
AFTERWARDS = words("after despite following just merely only")

SIDES = words("right left rul rml rll lul lll lingula")
# This part of a device may be out of sight while the device is not.
ENDS = words("tip tips hole holes port ports")

# Words between statements that have nothing to do with each other.
CONTRASTS = words("although but however though whereas while")

# Words that lead from a finding to where it is.
PREPOSITIONS = words("""
    above across adjacent along around at behind below beneath between by for from in inside
    into involving near of on over overlies overlying projecting through throughout to under
    within
""")

# A sentence that begins with one of these asks for something and states no finding.
REQUESTS = words("evaluate evaluation eval assess assessment please rule r check")
# "No change in X" denies the change alone.
CHANGES = words("""
    change changes decrease displacement enlargement improvement increase migration progression
    reduction worsening
""")

# After these, "no" and its like answer: "pneumothorax: none", "pneumonia? Yes, on the left".
NONE = words("absent neg negative nil none")
ANSWERS = NONE | words("""
    cannot doubtful likely n not possible present probable questionable removed resolved
    suspected unlikely y yes
""")
# "(-)" and "(+)" as an answer.
SIGNS = {"(-)": "none", "(–)": "none", "(+)": "yes"}
# What may be read as another word, and which; see `lexicon_tokens`.
SHORT = {
    **dict.fromkeys([*NONE, "no", "n", "w", "?"], "none"),
    **{sign + mark: word for sign, word in SIGNS.items() for mark in ("", ",", ";", ".", ":")},
    **{"y": "yes", "&": "and", "’": "'"},
}

# "No change since X": these do not go on with what is denied.
SINCE = words("compared from since when with")

# What follows one of these headings is why and how the examination was done.
REQUEST_HEADINGS = words("indication history information comparison technique reason examination")
# Headings that are known also where they are not written in capitals.
HEADINGS = words("""
    conclusion exam examination findings history impression indication information reason
""")
# Of these, all of it up to the next heading or paragraph, not a sentence only.
HISTORY_HEADINGS = words("indication history information reason")

# A sentence that begins with one of these speaks of what the one before it found.
ANAPHORA = words("this these it they findings which")
