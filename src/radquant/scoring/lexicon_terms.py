"""The words that the lexicon annotator knows. Lower case; singular, plurals are derived.

A term of several words is written with underscores. Hyphens are tokens of their own, as in
RadGraph's tokenization, so both `ground-glass` and `ground_glass` are listed where both occur.
"""


def listed(block: str) -> tuple[str, ...]:
    return tuple(term.replace("_", " ") for term in block.split())


def words(block: str) -> frozenset[str]:
    return frozenset(block.split())


# Observations that name a finding, a procedure's trace or a device: heads of their phrase.
FINDINGS = listed("""
    abnormality abscess adenopathy adhesion aerated aeration air air-fluid_level air_bronchogram
    air_fluid_level air_trapping airspace_disease airtrapping anasarca anastomosis aneurysm
    anomaly ards arthritic arthritis arthropathy artifact asbestosis ascites aspiration asthma
    asymmetry atelectasis atelectatic atherosclerosis atx azygous_lobe bleb bleeding blunted
    blunting bronchial_cuffing bronchiectasis bronchiectatic bronchiolar bronchiolitis
    bronchitis bronchogram bronchopneumonia bronchospasm bronchovascular_crowding bulge bulla
    bullous bypass cabg calcific calcification calcified callus cancer carcinoma cardiomeg
    cardiomegaly cardiomyopathy cavitary cavitation cavity cephalization chf cholecystectomy
    cholelithiasis collapse collapsed collection compression congestion consol consolidated
    consolidation constipation contusion copd crowding cuffing curvature cyst cystic deformed
    deformity degeneration degenerative degenerative_change demineralization demineralized
    density depression deviated deviation dextroconvex dextrocurvature dextroscoliosis
    dilatation dilated dilation disc_disease disease dislocated dislocation displacement
    dissection distended distension distention dyspnea ectasia ectatic edema eff effacement
    effusion elevated elevation elongated elongation embolism embolization embolus emphysema
    emphysematous empyema engorged engorgement enlarged enlargement enlarging eventration
    exacerbation exaggeration extubated extubation failure fat_pad fibronodular fibrosis
    fibrotic finding flattened flattening fluid fluid_collection fluid_overload foreign_body
    fracture fracture_line fractured fragment free_air fullness fusion fx gallstone gas ggo
    goiter granuloma granulomata granulomatous haziness heart_failure hemangioma hematoma
    hemorrhage hemothorax hepatomegaly hernia herniation hilar_prominence honeycombing
    hydropneumothorax hydrothorax hyperaerated hyperaeration hyperdensity hyperexpanded
    hyperexpansion hyperinflated hyperinflation hyperlucency hyperlucent hypertension
    hypertrophy hypoaeration hypoinflated hypoinflation hypoventilated hypoventilation
    hypoventilatory ild ileus indistinct indistinctness infarct infarction infection infil
    infiltrate infiltration infiltrative inflammation inflammatory inflated inflation injury
    interstitial_abnormality interstitial_change interstitial_disease interstitial_lung_disease
    intubated intubation irregularity kerley_b_line kerley_line kyphoplasty kyphoscoliosis
    kyphosis kyphotic laminectomy leak lesion levocurvature levoscoliosis lobectomy lordosis
    lordotic loss lucency lucent lymphadenopathy lymphangitic malalignment malignancy
    malposition malpositioned malunion marking mass mass_effect mastectomy metastases metastasis
    metastatic mets mucous_plugging mucus_plug mucus_plugging narrowed narrowing necrosis
    neoplasm neoplastic nephrolithiasis nodular_density nodularity nodule nonunion obesity
    obliteration obscuration obscured obstruction obstructive occlusion oedema opacification
    opacified opacity osteoarthritis osteoarthrosis osteopenia osteopenic osteophyte
    osteophytosis osteoporosis osteoporotic overinflated overinflation overload pathology pectus
    perforation perivascular_haze plaque pleural_line pleural_thickening plugging pna
    pneumatocele pneumo pneumobilia pneumomediastinum pneumonectomy pneumonia pneumonitis
    pneumopericardium pneumoperitoneum pneumothoraces pneumothorax process prominence prominent
    pseudotumor ptx rarefaction reaction reactive_airways_disease redistribution resection
    reticulation reticulonodular retraction rotated rotation sarcoid sarcoidosis scar scarring
    sclerosis sclerotic scoliosis scoliotic scoliotic_curvature sepsis septal_line
    septal_thickening sequela sequelae shadow shift shifted shunting silicosis splenomegaly
    spondylitic spondylosis spur spurring stenosis sternotomy stone stranding streak subluxation
    subluxed surgery swelling syndesmophyte tb tenting thickened thickening thoracentesis
    thoracotomy thrombosis thrombus tortuosity tortuous trauma tuberculosis tuberculous tumor
    uncoiled uncoiling unfolded unfolding varices vascular_congestion vertebroplasty volume_loss
    volume_overload wedge_deformity wedged wedging widened widening
""")

DEVICES = listed("""
    aicd arthroplasty balloon band bullet cannula cath catheter cerclage clip coil cuff
    defibrillator device dobbhoff dobbhoff_tube dobhoff dobhoff_tube drain dual-lead electrode
    et_tube ett filter fixation generator graft hardware hickman iabp icd implant
    instrumentation introducer jp_drain knee_replacement lead line loop_recorder lvad mediport
    monitor_lead needle nephrostomy ng_tube ngt og_tube ogt pacemaker pacer pacing_device picc
    picc_line pigtail_catheter plate port port-a-cath port_a_cath portacath power_port
    prosthesis prosthetic pump recorder replacement ring rod screw sheath shunt side_hole
    side_port sidehole staple stent sternal_wire stimulator support_device suture swan swan-ganz
    swan_ganz tavr thoracostomy_tube tip trach tracheostomy tracheostomy_tube tube tubing
    valve_replacement wire
""")

# Observations that state the absence of disease; predicates of an anatomy.
NORMAL = listed("""
    adequate aligned appropriate clear clearing expanded free free_of_acute_disease intact
    limits maintained midline negative non-distended nondistended nonobstructive nonspecific
    normal normally patent preserved satisfactory sharp standard symmetric symmetrical
    top_normal unobstructed unremarkable upper_normal well-aerated well-defined well-expanded
    well-inflated well_aerated well_defined well_expanded well_inflated well_positioned
    well_seated well_ventilated within_normal_limits
""")

# Observations that qualify another: degree, size, time course, shape, certainty-free attributes.
MODIFIERS = listed("""
    abnormal abnormally active acute additional advanced again_seen age-indeterminate
    age-related aggressive air-space air_space airspace alveolar ample associated asymmetric
    asymmetrical asymmetrically atherosclerotic atypical bacterial band-like bandlike benign
    bilobed blurred borderline bridging broad bronchial_wall bulbous bulky cardiogenic
    central_venous change changed changing chronic chronic-appearing cirrhotic coarse coarsened
    comminuted compensatory complete completely complex compound compressive confluent
    congenital congested congestive consolidative constant continued convincing critical
    curvilinear decrease decreased decreasing dense dependent diffuse diffusely diminished
    discoid discrete displaced double-lumen drainage dual dual-chamber dual_chamber dual_lead
    early endotracheal enhanced enteric evolving exaggerated excess excessive extensive faint
    faintly feeding few fibrous fine florid flowing fluffy focal foci focus frank gross
    ground-glass ground_glass groundglass hazy healed healing heterogeneous high hydrostatic
    hypertrophic ill-defined ill_defined impacted improved improvement improving incidental
    incomplete incompletely increase increased increasing increasingly infected infectious
    inferiorly innumerable intermittent interval irregular isolated large larger layering
    limited linear little lobulated localized loculated low lytic malignant many marked markedly
    mass-like massive masslike metallic mild mildly minimal minimally minor mixed moderate
    moderately monitoring multifocal multilevel multilobar multiple nasogastric new newly
    nodular non-calcified non-cardiogenic non-displaced noncalcified noncardiogenic nondisplaced
    nonobstructing numerous obstructing occasional old opportunistic organizing orogastric
    overnight overt ovoid partial partially partly patchy perforated peribronchial perivascular
    persistent persistently persisting pigtail plaque-like plate-like platelike pneumonic poor
    poorly post-operative post-surgical post-traumatic postoperative postradiation postsurgical
    posttraumatic posttreatment primordial profound progressed progression progressive
    pronounced radiopaque reactive recent recurrent reduced related remote residual resolving
    retained reticular round rounded scattered secondary senescent septal sequential severe
    severely sharply significant significantly similar simple single single-lead single_lead
    slight slightly small small-to-moderate smaller solitary spiculated stable stably static
    stellate strandy strangulated streaky sub-centimeter subacute subcentimeter suboptimal
    substantial substantially subtle support supporting suspicious tension tiny trace
    triple-lumen triple_lumen tunneled unchanged underlying unusual vague venous_hypertensive
    very viral wedge-like wedge-shaped well-circumscribed widespread worse worsened worsening
""")

# Structures: heads of an anatomical phrase.
ANATOMY = listed("""
    abdomen abdominal acetabulum acromioclavicular acromioclavicular_joint airway alveoli angle
    ankle annulus aorta aortic aortic_arch aortic_knob aortopulmonary_window apex apices
    appearance arch area arm arterial artery atria atrial atriocaval atrium axilla axillary
    azygos azygous base bases basilar biapical biapically bibasal bibasally bibasilar
    bibasilarly biliary body bone bony border bowel bowel_loop brachiocephalic
    brachiocephalic_vein breast bronchi bronchial bronchovascular bronchus caliber calvarium
    cardiac cardiac_silhouette cardio cardiomediastinal cardiomediastinum cardiopericardial
    cardiophrenic cardiopulmonary cardiothoracic carina caval cavoatrial cavoatrial_junction
    cervical chamber chest clavicle clavicular colon colonic configuration contour coronary
    cortex cortical costal costochondral costophrenic costophrenic_angle costophrenic_sulcus
    cp_angle diaphragm diaphragmatic disc disk duct duodenum endplate epicardial epigastric
    esophageal esophagus extremity fat fem femoral_head femur field fissural fissure flexure
    gallbladder gastric gastroesophageal gastroesophageal_junction ge_junction glenohumeral
    glenoid great_vessel heart heart_border heart_silhouette heart_size hemidiaphragm
    hemithoraces hemithorax hepatic hepatic_flexure hiatal hiatus hila hilar hilum hip humeral
    humeral_head humerus hypopharynx ij inferior_vena_cava infrahilar infrasegmental intercostal
    interlobar internal_jugular interspace interspaces interstitial interstitium intervertebral
    intra-abdominal intraabdominal intraperitoneal intrathoracic ivc joint jugular junction
    kidney knee knob larynx leaflet level lingula lingular liver lll lobar lobe loop lul lumbar
    lumbosacral lumen lung lung_apex lung_apices lung_base lung_bases lung_field lung_zone lymph
    lymph_node main_pulmonary_artery mainstem mainstem_bronchus manubrium margin mediastinal
    mediastinal_contour mediastinum midabdomen midlung midthoracic mitral mitral_annulus
    myocardial neck nipple node osseous outflow_tract outlet pancreas parahilar paramediastinal
    paraspinal paratracheal paravertebral parenchyma parenchymal pectoral pelvis pericardial
    pericardium perihilar periphery peritoneal peritoneum pharynx phrenic pleura pleural
    pleuroparenchymal position pulmonary pulmonary_vasculature pulmonic pyloric pylorus quadrant
    recess region renal retrocardiac retrosternal rib rib_cage ribcage ribs right_heart_border
    rll rml root rul sacroiliac scapula scapular segment sella shoulder silhouette sinus size
    skeletal skeleton skin soft_tissue space spinal spine spleen splenic splenic_flexure sternal
    sternum stomach structure subcarinal subclavian subclavian_vein subcutaneous
    subdiaphragmatic subphrenic subpleural sulci sulcus superior_vena_cava supraclavicular
    suprahilar svc thoracic thoracolumbar thorax thyroid tissue tonsil trachea tracheal
    tracheobronchial tree tricuspid trunk tuberosity valve vascular vascularity vasculature vein
    vena_cava venous ventricle ventricular vertebra vertebrae vertebral vertebral_body vessel
    viscera volume wall window zone
""")

# Side and position: they qualify a structure, or stand for it when none is named.
POSITIONS = listed("""
    anterior anteriorly anterolateral apical apically ascending aspect basal bilateral
    bilaterally bilobar both central centrally contralateral descending distal distally dorsal
    downward eighth eleventh external fifth first fourth hemithoracic inferior internal
    ipsilateral lateral lateral_aspect laterally left left-sided leftsided leftward lower main
    medial medially mid mid-portion middle midportion ninth overlying peripheral peripherally
    portion posterior posteriorly posterolateral proximal proximally right right-sided
    rightsided rightward second segmental seventh sixth subcostal subsegment subsegmental
    superior superiorly tenth third transverse twelfth unilateral upper upward ventral
""")

# Endings of a word that make it a finding even when no list holds it.
FINDING_ENDINGS = (
    "itis", "osis", "ectasis", "megaly", "oma", "omata", "opathy", "ectomy", "ostomy", "plasia",
    "penia", "listhesis", "plasty", "iasis", "odesis",
)  # fmt: skip
NOT_FINDINGS = words("diagnosis prognosis coma stoma hypnosis soma")

# Names of diseases, singular: they are what an opacity may be and suggest none themselves.
DISEASES = words("""
    ards aspiration atelectasis cardiomegaly chf congestion copd edema effusion emphysema
    empyema fracture hemorrhage hernia infection pneumonia pneumothoraces pneumothorax
""")

# Long names, one slip away from which a word is taken for them; see `lexicon_spelling`.
SHORTEST_NAME = 5
# Of shorter names no letter may be wrong: an enema is no edema, and a module no nodule.
LONG_NAME = 7
_NAMES = words("""
    adenopathy aneurysm aspiration atelectasis atelectatic bronchiectasis bronchitis
    calcification calcified cardiomegaly catheter congestion consolidation degenerative edema
    effusion emphysema emphysematous endotracheal engorgement fibrosis fracture granuloma
    hematoma hemorrhage hemothorax hernia hydropneumothorax hyperinflated hyperinflation
    infiltrate interstitial kyphosis lymphadenopathy malignancy mediastinum metastasis
    nasogastric nodule opacification opacity osteopenia osteoporosis pacemaker pleural
    pneumomediastinum pneumonia pneumoperitoneum pneumothorax scoliosis sternotomy subcutaneous
    tracheostomy tuberculosis
""")
NAMES = (
    _NAMES
    | {name + "s" for name in _NAMES if name[-1] not in "sy"}
    | words("""
    absence adenopathies calcifications fractured metastases negative opacified opacities
    pneumothoraces without
""")
)
# Words of their own.
NO_SLIPS = words("effusive fibrosus")
