"""The words that the lexicon annotator knows. Lower case; singular, plurals are derived.

A term of several words is written with underscores. Hyphens are tokens of their own, as in
RadGraph's tokenization, so both `ground-glass` and `ground_glass` are listed where both occur.
"""

from itertools import product


def _terms(block: str) -> tuple[str, ...]:
    return tuple(term.replace("_", " ") for term in block.split())


def _words(block: str) -> frozenset[str]:
    return frozenset(block.split())


def _phrases(*parts: frozenset[str]) -> set[str]:
    return {" ".join(words).replace("_", " ") for words in product(*parts)}


# Observations that name a finding, a procedure's trace or a device: heads of their phrase.
FINDINGS = _terms("""
    abnormality abscess adenopathy adhesion aerated aeration air air-fluid_level air_bronchogram
    air_fluid_level air_trapping airspace_disease airtrapping anasarca anastomosis aneurysm
    anomaly ards arthritic arthritis arthropathy artifact asbestosis ascites aspiration asthma
    asymmetry atelectasis atelectatic atherosclerosis azygous_lobe bleb bleeding blunted blunting
    bronchial_cuffing bronchiectasis bronchiectatic bronchiolar bronchiolitis bronchitis
    bronchogram bronchopneumonia bronchospasm bronchovascular_crowding bulge bulla bullous bypass
    cabg calcific calcification calcified callus cancer carcinoma cardiomegaly cardiomyopathy
    cavitary cavitation cavity cephalization chf cholecystectomy cholelithiasis collapse collapsed
    collection compression congestion consol consolidation constipation contusion copd crowding cuffing
    curvature cyst cystic deformed deformity degeneration degenerative degenerative_change
    demineralization demineralized density depression deviated deviation dextroconvex
    dextrocurvature dextroscoliosis dilatation dilated dilation disc_disease disease dislocated
    dislocation displacement dissection distended distension distention dyspnea ectasia ectatic
    edema eff effacement effusion elevated elevation elongated elongation embolism embolization
    embolus emphysema emphysematous empyema engorged engorgement enlarged enlargement enlarging
    eventration exacerbation exaggeration extubated extubation failure fat_pad fibronodular
    fibrosis fibrotic finding flattened flattening fluid fluid_collection fluid_overload
    foreign_body fx fracture fracture_line fractured fragment free_air fullness fusion gallstone gas ggo goiter
    granuloma granulomata granulomatous haziness heart_failure hemangioma hematoma hemorrhage
    hemothorax hepatomegaly hernia herniation hilar_prominence honeycombing hydropneumothorax
    hydrothorax hyperaerated hyperaeration hyperdensity hyperexpanded hyperexpansion hyperinflated
    hyperinflation hyperlucency hyperlucent hypertension hypertrophy hypoaeration hypoinflated
    hypoinflation hypoventilated hypoventilation hypoventilatory ild ileus indistinct indistinctness
    infarct infarction infection infiltrate infiltration infiltrative inflammation inflammatory
    inflated inflation injury interstitial_abnormality interstitial_change interstitial_disease
    interstitial_lung_disease intubated intubation irregularity kerley_b_line kerley_line
    kyphoplasty kyphoscoliosis kyphosis kyphotic laminectomy leak lesion levocurvature
    levoscoliosis lobectomy lordosis lordotic loss lucency lucent lymphadenopathy lymphangitic
    malalignment malignancy malposition malpositioned malunion marking mass mass_effect mastectomy
    metastases metastasis mets metastatic mucous_plugging mucus_plug mucus_plugging narrowed narrowing
    necrosis neoplasm neoplastic nephrolithiasis nodular_density nodularity nodule nonunion
    obesity obliteration obscuration obscured obstruction obstructive occlusion oedema
    opacification opacified opacity osteoarthritis osteoarthrosis osteopenia osteopenic osteophyte
    osteophytosis osteoporosis osteoporotic overinflated overinflation overload pathology pectus
    perforation perivascular_haze plaque pleural_line pleural_thickening plugging pna pneumatocele pneumobilia
    pneumomediastinum pneumonectomy pneumonia pneumonitis pneumopericardium pneumoperitoneum
    pneumothoraces pneumothorax process prominence prominent pseudotumor ptx rarefaction reaction
    reactive_airways_disease redistribution resection reticulation reticulonodular retraction
    rotated rotation sarcoid sarcoidosis scar scarring sclerosis sclerotic scoliosis scoliotic
    scoliotic_curvature sepsis septal_line septal_thickening sequela sequelae shadow shift shifted
    shunting silicosis splenomegaly spondylitic spondylosis spur spurring stenosis sternotomy
    stone stranding streak subluxation subluxed surgery swelling syndesmophyte tb tenting
    thickened thickening thoracentesis thoracotomy thrombosis thrombus tortuosity tortuous trauma
    tuberculosis tuberculous tumor uncoiled uncoiling unfolded unfolding varices
    vascular_congestion vertebroplasty volume_loss volume_overload wedge_deformity wedged wedging
    widened widening
""")

DEVICES = _terms("""
    aicd arthroplasty balloon band bullet cannula cath catheter cerclage clip coil cuff
    defibrillator device dobbhoff dobbhoff_tube dobhoff dobhoff_tube drain dual-lead electrode
    et_tube ett filter fixation generator graft hardware hickman iabp icd implant instrumentation
    introducer jp_drain knee_replacement lead line loop_recorder lvad mediport monitor_lead needle
    nephrostomy ng_tube ngt og_tube ogt pacemaker pacer pacing_device picc picc_line
    pigtail_catheter plate port port-a-cath port_a_cath portacath power_port prosthesis prosthetic
    pump recorder replacement ring rod screw sheath shunt side_hole side_port sidehole staple
    stent sternal_wire stimulator support_device suture swan swan-ganz swan_ganz tavr
    thoracostomy_tube tip trach tracheostomy tracheostomy_tube tube tubing valve_replacement wire
""")

# Observations that state the absence of disease; predicates of an anatomy.
NORMAL = _terms("""
    adequate aligned appropriate clear clearing expanded free free_of_acute_disease intact limits
    maintained midline negative non-distended nondistended nonobstructive nonspecific normal
    normally patent preserved satisfactory sharp standard symmetric symmetrical top_normal
    unobstructed unremarkable upper_normal well-aerated well-defined well-expanded well-inflated
    well_aerated well_defined well_expanded well_inflated well_positioned well_seated
    well_ventilated within_normal_limits
""")

# Observations that qualify another: degree, size, time course, shape, certainty-free attributes.
MODIFIERS = _terms("""
    abnormal abnormally active acute additional advanced again_seen age-indeterminate age-related
    aggressive air-space air_space airspace alveolar ample associated asymmetric asymmetrical
    asymmetrically atherosclerotic atypical bacterial band-like bandlike benign bilobed blurred
    borderline bridging broad bronchial_wall bulbous bulky cardiogenic central_venous change
    changed changing chronic chronic-appearing cirrhotic coarse coarsened comminuted compensatory
    complete completely complex compound compressive confluent congenital congested congestive
    consolidative constant continued convincing critical curvilinear decrease decreased decreasing
    dense dependent diffuse diffusely diminished discoid discrete displaced double-lumen drainage
    dual dual-chamber dual_chamber dual_lead early endotracheal enhanced enteric evolving
    exaggerated excess excessive extensive faint faintly feeding few fibrous fine florid flowing
    fluffy focal foci focus frank gross ground-glass ground_glass groundglass hazy healed healing
    heterogeneous high hydrostatic hypertrophic ill-defined ill_defined impacted improved
    improvement improving incidental incomplete incompletely increase increased increasing
    increasingly infected infectious inferiorly innumerable intermittent interval irregular
    isolated large larger layering limited linear little lobulated localized loculated low lytic
    malignant many marked markedly mass-like massive masslike metallic mild mildly minimal
    minimally minor mixed moderate moderately monitoring multifocal multilevel multilobar multiple
    nasogastric new newly nodular non-calcified non-cardiogenic non-displaced noncalcified
    noncardiogenic nondisplaced nonobstructing numerous obstructing occasional old opportunistic
    organizing orogastric overnight overt ovoid partial partially partly patchy perforated
    peribronchial perivascular persistent persistently persisting pigtail plaque-like plate-like
    platelike pneumonic poor poorly post-operative post-surgical post-traumatic postoperative
    postradiation postsurgical posttraumatic posttreatment primordial profound progressed
    progression progressive pronounced radiopaque reactive recent recurrent reduced related remote
    residual resolving retained reticular round rounded scattered secondary senescent septal
    sequential severe severely sharply significant significantly similar simple single single-lead
    single_lead slight slightly small small-to-moderate smaller solitary spiculated stable stably
    static stellate strandy strangulated streaky sub-centimeter subacute subcentimeter suboptimal
    substantial substantially subtle support supporting suspicious tension tiny trace triple-lumen
    triple_lumen tunneled unchanged underlying unusual vague venous_hypertensive very viral
    wedge-like wedge-shaped well-circumscribed widespread worse worsened worsening
""")

# Structures: heads of an anatomical phrase.
ANATOMY = _terms("""
    abdomen abdominal acetabulum acromioclavicular acromioclavicular_joint airway alveoli angle
    ankle annulus aorta aortic aortic_arch aortic_knob aortopulmonary_window apex apices
    appearance arch area arm arterial artery atria atrial atriocaval atrium axilla axillary azygos
    azygous base bases basilar biapical biapically bibasal bibasally bibasilar bibasilarly biliary
    body bone bony border bowel bowel_loop brachiocephalic brachiocephalic_vein breast bronchi
    bronchial bronchovascular bronchus caliber calvarium cardiac cardiac_silhouette cardio
    cardiomediastinal cardiomediastinum cardiopericardial cardiophrenic cardiopulmonary
    cardiothoracic carina caval cavoatrial cavoatrial_junction cervical chamber chest clavicle
    clavicular colon colonic configuration contour coronary cortex cortical costal costochondral
    costophrenic costophrenic_angle costophrenic_sulcus cp_angle diaphragm diaphragmatic disc disk
    duct duodenum endplate epicardial epigastric esophageal esophagus extremity fat fem
    femoral_head femur field fissural fissure flexure gallbladder gastric gastroesophageal
    gastroesophageal_junction ge_junction glenohumeral glenoid great_vessel heart heart_border
    heart_silhouette heart_size hemidiaphragm hemithoraces hemithorax hepatic hepatic_flexure
    hiatal hiatus hila hilar hilum hip humeral humeral_head humerus hypopharynx ij
    inferior_vena_cava infrahilar infrasegmental intercostal interlobar internal_jugular
    interspace interspaces interstitial interstitium intervertebral intra-abdominal intraabdominal
    intraperitoneal intrathoracic ivc joint jugular junction kidney knee knob larynx leaflet level
    lingula lingular liver lll lobar lobe loop lul lumbar lumbosacral lumen lung lung_apex
    lung_apices lung_base lung_bases lung_field lung_zone lymph lymph_node main_pulmonary_artery
    mainstem mainstem_bronchus manubrium margin mediastinal mediastinal_contour mediastinum
    midabdomen midlung midthoracic mitral mitral_annulus myocardial neck nipple node osseous
    outflow_tract outlet pancreas parahilar paramediastinal paraspinal paratracheal paravertebral
    parenchyma parenchymal pectoral pelvis pericardial pericardium perihilar periphery peritoneal
    peritoneum pharynx phrenic pleura pleural pleuroparenchymal position pulmonary
    pulmonary_vasculature pulmonic pyloric pylorus quadrant recess region renal retrocardiac
    retrosternal rib rib_cage ribcage ribs right_heart_border rll rml root rul sacroiliac scapula
    scapular segment sella shoulder silhouette sinus size skeletal skeleton skin soft_tissue space
    spinal spine spleen splenic splenic_flexure sternal sternum stomach structure subcarinal
    subclavian subclavian_vein subcutaneous subdiaphragmatic subphrenic subpleural sulci sulcus
    superior_vena_cava supraclavicular suprahilar svc thoracic thoracolumbar thorax thyroid tissue
    tonsil trachea tracheal tracheobronchial tree tricuspid trunk tuberosity valve vascular
    vascularity vasculature vein vena_cava venous ventricle ventricular vertebra vertebrae
    vertebral vertebral_body vessel viscera volume wall window zone
""")

# Side and position: they qualify a structure, or stand for it when none is named.
POSITIONS = _terms("""
    anterior anteriorly anterolateral apical apically ascending aspect basal bilateral bilaterally
    bilobar both central centrally contralateral descending distal distally dorsal downward eighth
    eleventh external fifth first fourth hemithoracic inferior internal ipsilateral lateral
    lateral_aspect laterally left left-sided leftsided leftward lower main medial medially mid
    mid-portion middle midportion ninth overlying peripheral peripherally portion posterior
    posteriorly posterolateral proximal proximally right right-sided rightsided rightward second
    segmental seventh sixth subcostal subsegment subsegmental superior superiorly tenth third
    transverse twelfth unilateral upper upward ventral
""")

# "No X": what follows is absent. The word itself is no observation.
NEGATIONS = _terms("""
    absence_of argue_against argued_against argues_against arguing_against
    clear_from clear_of clearance_of cleared_of clearing_of denies detection_of devoid_of
    disappearance_of doesn't don't didn't are_against evidence_against excluding fail_to failed_to
    excludes failing_to fails_to free_from free_of hasn't haven't incompatible_with inconsistent_with
    instead_of interval_clearing_of interval_removal_of interval_resolution_of isn't aren't wasn't
    weren't lack_of lacked lacking lacks neg_for negative_for neither never no none_of no_evidence_of
    no_evidence_that no_indication_that no_longer no_sign_of non nor not nothing_to rather_than
    removal_of resolution_of rules_out sensitivity_for speak_against speaks_against to_detect unlikely_to
    w/o w/out without zero
""") + tuple(sorted({
    *_phrases(_words("is was are were be being"), _words("negative_for neg_for")),
    *_phrases(_words("no"), _words("evidence_of_any radiographic_evidence_of")),
}))  # fmt: skip

# "X cannot be seen": they deny what is said of X, and nothing that follows.
DENIALS = _terms("""
    can't can_no_longer can_not cannot couldn't could_no_longer could_not not_adequately
    not_completely not_entirely not_fully not_optimally not_well unable_to won't
""")
# Of these, those after which something is seen all the same: "is not well seen".
PARTLY = _words("adequately completely entirely fully optimally well")
# What a denial ends with, so that what is seen after it is not: "not seen", "isn't seen".
NOT = _words("not cannot longer t never nor")

# Words of seeing: "X is not clearly seen" denies X.
SEEN = _terms("""
    apparent appeared appreciable appreciated confirmed demonstrated depicted detectable detected developed discerned discernible
    evident found identifiable identified in_place noted observed occurred perceptible present
    reaccumulated reappeared recognized recognizable recurred returned seen suggested visible visualised visualized
""")
# "Not seen previously": it may be there now.
FORMERLY = _words("before earlier formerly previous previously prior then")

# "X has resolved": what stands before it in the clause is absent; where nothing does, what follows.
POST_NEGATIONS = _terms("""
    absent been_discontinued been_extubated been_pulled been_removed been_taken_out been_withdrawn
    cleared completely_cleared completely_excluded completely_resolved completely_ruled_out disappeared excluded gone has_cleared has_resolved have_cleared
    have_resolved improbable is_absent is_lacking is_negative is_removed removal neg none removed resolved ruled_out
    unlikely vanished was_pulled was_removed were_removed
""")
# Of these, those that say that something was there. "No evidence that X has resolved": it is there.
GONE = _words("cleared disappeared extubated gone out pulled removed resolved vanished withdrawn")
# "X has almost cleared", "partial resolution of X", "to document resolution of X": X is there.
ALMOST = _words("""
    almost confirm confirming document documenting ensure ensuring eventual expected follow
    further gradual incomplete incompletely largely mostly near nearly not ongoing partial partially
    partly slow some substantial substantially t until verify
""")

# "Possible X": what follows is uncertain.
UNCERTAINTIES = _terms("""
    can_not_exclude can_not_rule_out cannot_exclude cannot_rule_out concern_for concern_of consider
    considerations_include correlate_for correlation_for could differential
    differential_considerations differential_diagnosis differential_includes doubt doubted
    doubtful equivocal equivocal_for evaluate_for exclude favor favored likelihood_of likely may maybe might
    must_be_considered not_exclude not_necessarily perhaps possible possibly potential potentially probability_of
    presumably presumptive presumptively probable probably query question question_of questionable r/o
    rule_out should_a should_an should_any should_there suggestion_of suspect suspicion
    suspicion_of suspicious_of the_possibility_of unclear_if versus vs whether worry_for if +/- ±
""")
# Of these, those that a denial does not deny: "does not exclude X".
EXCLUDING = _words("exclude excluding out necessarily")

# "X cannot be excluded": what stands before it in the clause is uncertain.
POST_UNCERTAINTIES = _terms("""
    ? are_also_possible are_presumed are_questioned are_suspected can_not_be_confirmed
    cannot_be_confirmed could_also_be_considered could_be_considered could_be_present
    difficult_to_exclude hard_to_exclude if_any if_present impossible_to_exclude is_a_possibility
    is_also_a_possibility is_also_possible is_considered is_favored is_presumed is_questioned
    is_suspected less_likely may_be_present might_be_present must_also_be_considered
    must_be_considered not_certain presumed questioned should_be_considered suspected uncertain
    would_be_difficult_to_exclude
""")

# "A may represent B": A is suggestive of B, and B is uncertain. "Perhaps due to", "could also be".
_MODALS = _words("may might could would can")
_BETWEEN = _words("also all both either well potentially possibly partly partially still")
_PREDICATES = _words("""
    be be_a_combination_of be_attributable_to be_attributed_to be_caused_by be_compatible_with
    be_consistent_with be_due_to be_from be_in_keeping_with be_indicative_of be_related_to
    be_secondary_to be_suggestive_of correspond_to have_been_due_to have_been_from indicate mean
    raise_concern_for reflect relate_to represent result_from simulate suggest
""")
_ADVERBS = _words("""
    likely more_likely most_likely perhaps possibly potentially presumably presumptively probably
    very_likely
""")
_CAUSES = _words("""
    a_combination_of accounted_for_by as_a_result_of attributable_to attributed_to because_of
    caused_by correspond_to corresponding_to corresponds_to due_to explained_by from
    in_keeping_with indicating reflect reflecting reflects related_to relating_to represent
    representing represents resulting_from secondary_to
""")
_RAISED = _words("""
    concern_for concern_of possibility_of question_of suspicion_for the_possibility_of
    the_question_of
""")
SUGGESTIONS = _terms("""
    appearance_suggests appears_to_represent concerning_for consideration_of favored_to_reflect
    favored_to_represent favoring favors felt_to_represent is_suspicious_for likely_a likely_to_be
    suggest suggesting suggestive_of suggests suspicious_for thought_to_reflect
    thought_to_represent worrisome_for c/f s/o
""") + tuple(sorted({
    *_phrases(_MODALS, _PREDICATES),
    *_phrases(_MODALS, _BETWEEN, _PREDICATES),
    *_phrases(_ADVERBS, _CAUSES),
    *_phrases(_words("raise raises raising"), _RAISED),
}))  # fmt: skip

# Of the uncertainties, those that may also end their clause: "Atelectasis is likely."
BACKWARD = _words("doubted doubtful likely possible possibly probable probably questionable equivocal")

# "A consistent with B": A is suggestive of B, and B keeps its status.
STATEMENTS = _terms("""
    attributable_to caused_by characteristic_of compatible_to compatible_with consistent_of
    consistent_with diagnostic_of due_to in_keeping_with indicates indicating indicative_of
    reflect reflecting reflective_of reflects related_to represent representing represents
    secondary_to typical_of c/w d/t 2/2
""")

# The scope of a negation or an uncertainty ends here.
STOPS = _terms("""
    accompanied additionally also although apart_from aside_from because besides beyond but
    compared except exception_of positive_for finding: however in_comparison in_the_setting_of instead
    nevertheless other_than otherwise s/p save_for since status_post still that though whereas which
    while yet
""")

# Hold no negation or uncertainty although they look like one.
NEUTRAL = _terms("""
    as_well_as been_pulled_back been_withdrawn_by been_withdrawn_slightly been_withdrawn_to
    can_be_seen can_not_be_assessed cannot_be_assessed cannot_be_evaluated consider_adjusting consider_advancement
    consider_advancing consider_chest_ct consider_ct consider_dedicated consider_follow consider_further
    consider_obtaining consider_removal consider_removing consider_repeat consider_repositioning
    consider_retracting consider_retraction consider_withdrawal consider_withdrawing could_not_be_assessed
    gram_negative if_clinically if_the if_these if_this no_doubt no_interval_removal
    not_appreciably not_assessed not_evaluated not_markedly not_only not_significantly
    not_substantially without_doubt
""") + tuple(sorted({
    *_phrases(
        _words("can could may might should would"),
        _words("be_helpful be_obtained be_performed be_repeated be_useful help"),
    ),
    *_phrases(
        _words("clearing_of"), _words("the both"), _words("lung left_lung right_lung")
    ),
    *_phrases(_words("clearing_of"), _words("lung left_lung right_lung")),
}))  # fmt: skip

# A finite verb: what follows is the predicate.
VERBS = _words("""
    is are was were be been being has have had remain remains remained appear appears appeared
    seem seems show shows showed demonstrate demonstrates demonstrated terminate terminates
    terminating end ends ending project projects projecting reside resides lie lies extend
    extends extending course courses coursing overlie overlies reach reaches
""")

# After "no X is": the clause denies X; it does not begin a new statement.
PERCEPTION = _words("""
    seen identified present noted demonstrated evident appreciated visualized detected visible
    observed found apparent suggested
""")

# After a negation, these begin what is there: "no pneumothorax after placement of a line".
AFTERWARDS = _words("after despite following just merely only")

# Of a device, this may be out of sight while the device is not.
ENDS = _words("tip tips hole holes port ports")

# Words that lead from a finding to where it is.
PREPOSITIONS = _words("""
    in at of within over overlying above below along near involving throughout to into
    on adjacent around projecting between across overlies under beneath through behind by
    within inside from for
""")

# Endings of a word that make it a finding even when no list holds it.
FINDING_ENDINGS = (
    "itis", "osis", "ectasis", "megaly", "oma", "omata", "opathy", "ectomy", "ostomy", "plasia",
    "penia", "listhesis", "plasty", "iasis", "odesis",
)  # fmt: skip
NOT_FINDINGS = _words("diagnosis prognosis coma stoma hypnosis soma")

# A sentence that begins with one of these asks for something and states no finding.
REQUESTS = _words("evaluate evaluation eval assess assessment please rule r check")
# "No change in X" denies the change alone.
CHANGES = _words("""
    change changes increase decrease progression worsening improvement enlargement reduction
    displacement migration
""")

# After these, "no" and its like answer: "pneumothorax: none", "pneumonia? Yes, on the left".
NONE = _words("absent neg negative nil none")
ANSWERS = NONE | _words("cannot not possible present probable questionable unlikely yes")
# What is read as another word: see `lexicon_tokens`.
SHORT = NONE | _words("no w")

# What changes, or since when, follows one of these.
OF_WHAT = _words("compared from in of since when with")

# What follows one of these headings is why and how the examination was done.
REQUEST_HEADINGS = _words("indication history information comparison technique reason examination")
# Headings that are known also where they are not written in capitals.
HEADINGS = REQUEST_HEADINGS | _words("conclusion exam findings impression")
# Of these, all of it up to the next heading or paragraph, not a sentence only.
HISTORY_HEADINGS = _words("indication history information reason")

# A sentence that begins with one of these speaks of what the one before it found.
ANAPHORA = _words("this these it they findings which")

# Names of diseases, singular: they are what an opacity may be and suggest none themselves.
DISEASES = _words("""
    ards aspiration atelectasis cardiomegaly chf congestion copd edema effusion emphysema empyema
    fracture hemorrhage hernia infection pneumonia pneumothoraces pneumothorax
""")

# Long names, one slip away from which a word is taken for them; see `lexicon_spelling`.
SHORTEST_NAME = 5
# Of shorter names no letter may be wrong: an enema is no edema, and a module no nodule.
LONG_NAME = 7
_NAMES = _words("""
    adenopathy aneurysm aspiration atelectasis atelectatic bronchiectasis bronchitis calcification
    calcified cardiomegaly catheter congestion consolidation degenerative edema effusion emphysema
    emphysematous endotracheal engorgement fibrosis fracture granuloma hematoma hemorrhage
    hemothorax hernia hydropneumothorax hyperinflated hyperinflation infiltrate interstitial kyphosis
    lymphadenopathy malignancy mediastinum metastasis nasogastric nodule opacification opacity
    osteopenia osteoporosis pacemaker pleural pneumomediastinum pneumonia pneumoperitoneum
    pneumothorax scoliosis sternotomy subcutaneous tracheostomy tuberculosis
""")
NAMES = (
    _NAMES
    | {name + "s" for name in _NAMES if name[-1] not in "sy"}
    | _words("""
        absence adenopathies calcifications fractured metastases negative opacities opacified
        pneumothoraces without
    """)
)
# Words of their own.
NO_SLIPS = _words("effusive")
