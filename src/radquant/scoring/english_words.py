"""Words by which English reports are told from those of other languages.

The words of the lexicon's lists, function words, a few hundred of radiology and its neighbours,
and what at least four reports of the public Open-I corpus use. Lower case, alphabetical; the
plurals and verb forms that `language` derives are left out.
"""

_ENGLISH = """
    abdomen abdominal ability able abnormal abnormalities abnormality abnormally about above
    abscess absence absent abuse accentuated accident accompanied accounted acetabulum acquired
    acromioclavicular across active acute addition additional additionally adenopathy adequate
    adhesion adjacent adrenal advanced advise advised aerated aeration after again against age
    aggressive ago aicd air airspace airtrapping airway aka aligned alignment all alleged
    allergic allowing almost alone along already also altered alternatively although alveolar
    alveoli always am aml amongst amount ample an anasarca anastomosis and anesthesia aneurysm
    angle angulation ankle annual annulus anomaly another anterior anteriorly anterolateral
    anticipated any anyone anything aorta aortic aortopulmonary ap apart apex apical apically
    apices apparent appear appearance appeared appearing appendix appreciably appreciated
    appropriate approximate approximately approximating arch architectural ards are area arm
    around arterial arteries artery arthritic arthritis arthropathy arthroplasty artifact as
    asbestosis ascending ascites aside ask asked aspect aspiration assault assess assessed
    assessment associated asthma asymmetric asymmetrical asymmetrically asymmetry at atelectasis
    atelectatic atherosclerosis atherosclerotic atria atrial atriocaval atrium attending
    attenuation attributable attributed atx atypical available avulsion away axial axilla
    axillary azygos azygous back background bacterial balloon band bandlike bariatric basal base
    based basilar be because become been before began behind being below beneath benign besides
    best better between beyond biapical biapically bibasal bibasally bibasilar bibasilarly big
    bilateral bilaterally biliary bilobar bilobed biopsy bladder bleb bleed bleeding blood
    blunted blunting blurred bmt bodies body bone bony border borderline both bowel boy bp
    brachiocephalic brain breast breath breathing bridging broad broken bronchi bronchial
    bronchiectasis bronchiectatic bronchiolar bronchiolitis bronchitis bronchogram
    bronchopneumonia bronchospasm bronchovascular bronchus brother bulbous bulge bulky bulla
    bullae bullet bullous but by bypass ca cabg cage calcific calcification calcified caliber
    called callus calvarium came can canal cancer cannot cannula carcinoma cardia cardiac cardio
    cardiogenic cardiomediastinal cardiomediastinum cardiomegaly cardiomyopathy
    cardiopericardial cardiophrenic cardiopulmonary cardiothoracic care carina carpal case cath
    catheter cause caused causing cava caval cavitary cavitation cavity cavoatrial cell
    centimeter central centrally cephalization cerclage cerebral certain cervical chamber change
    changed changing characteristic characterization characterized check chemotherapy chest chf
    child chills cholecystectomy cholelithiasis chronic cigarette cine circumscribed cirrhotic
    clavicle clavicular clear cleared clearing clearly clinical clinically clip close closure
    clr cm coarse coarsened coil collapse collapsed collection collision colon colonic coma
    combination come comminuted compared comparison compartment compatible compensatory
    complaining complains complaints complete completely complex complication compound
    compression compressive concern concerning configuration confirm confirmed confluent
    confusion congenital congested congestion congestive consider consideration considered
    considering consistent consists consolidating consolidation consolidative conspicuous
    constant constipation continued contour contralateral contrast contusion conus convexity
    convincing copd cord coronal coronary correlate correlated correlation correspond
    corresponding cortex cortical costal costochondral costophrenic coughing could couple course
    coursing cp crackles critical crowding ct cuff cuffing curvature curvilinear cut cvc cvl cxr
    cyst cystic date dated day deal decrease decreased decreasing decubitus dedicated deep
    defibrillator defined definite definitely definitively deformed deformities deformity
    degeneration degenerative demineralization demineralized demonstrate demonstrated denies
    dense densities density department dependent depression descending described desired
    destruction destructive detect detected detection determine developed developing development
    deviated deviation device dextro dextroconvex dextrocurvature dextroscoliosis diabetes
    diagnosis diagnostic dialysis diameter diaphragm diaphragmatic diarrhea dictated did
    differences different differential difficult difficulty diffuse diffusely dilatation dilated
    dilation diminished disc discoid discontinued discrete discussed disease dish disk
    dislocated dislocation displaced displacement dissection distal distally distended
    distension distention distortion distribution dizziness do dobbhoff dobhoff doctor document
    documented does doing done dorsal dose double doubt down downward dr drain drainage dual
    duct due duodenum during dx dyspnea dz each early easily easy echogenic ectasia ectasis
    ectatic ectomy ed edema edematous eff effacement effect effusion eighth either elbow
    electrode electronic electronically elements elevated elevation eleventh elongated
    elongation else embolism embolization embolus emergency emphysema emphysematous empyema end
    ending endotracheal endplate ends engorged engorgement enhance enhanced enhancement enlarged
    enlargement enlarging enough ensure enteric entire entirely epicardial epigastric episode
    equivocal er erect esophageal esophagus especially essentially et etiology etoh ett eval
    evaluate evaluated evaluation even evening eventration ever every evidence evident evolving
    exacerbation exaggerated exaggeration exam examination example excavatum except exception
    excess excessive exclude excluded excluding exertion expanded expected explained exposure
    extend extending extensive extent external extremity extubated extubation face facility fact
    factors failure faint faintly fall far fat father fatigue favor favored favoring features
    feeding feel feet fell felt fem female femoral femur few fibronodular fibrosis fibrotic
    fibrous field fifth filled film filter find finding fine finger first fissural fissure
    fixation flank flattened flattening flexure florid flowing fluffy fluid focal foci focus
    follicle follow followed following followup foot for foraminal forearm foreign form
    formation found fourth fracture fractured fragment frank free french from frontal full
    fullness fully further fusion fx gallbladder gallstone ganz gas gastric gastroesophageal
    gave ge general generalized generator get girl give given gland glandular glass glenohumeral
    glenoid go goes goiter good got grade graft gram granuloma granulomata granulomatous great
    greater greatest gross grossly ground groundglass gunshot habitus had hand happen hard
    hardware has have having haze haziness hazy he head headache healed healing heart help
    helpful hemangioma hematoma hemidiaphragm hemithoraces hemithoracic hemithorax hemoptysis
    hemorrhage hemothorax hepatic hepatomegaly her here hernia herniation heterogeneous hiatal
    hiatus hickman high hila hilar hilum him hip his histoplasmosis history hiv hodgkin hold
    hole home homogeneous honeycombing hour how however hr htn humeral humerus hx hydronephrosis
    hydropneumothorax hydrostatic hydrothorax hyperaerated hyperaeration hyperdensity
    hyperechoic hyperexpanded hyperexpansion hyperinflated hyperinflation hyperlucency
    hyperlucent hypertension hypertensive hypertrophic hypertrophy hypnosis hypoaeration
    hypoechoic hypoinflated hypoinflation hypopharynx hypoventilated hypoventilation
    hypoventilatory hypoxia iabp iasis icd icu idea identified idiopathic if ij ileus ill image
    imaging impacted implant implantation important impression improved improvement improving in
    incidental incidentally include including incomplete incompletely increase increased
    increasing increasingly indeed indeterminate indicate indicated indicating indication
    indicative indistinct indistinctness infant infarct infarction infected infection infectious
    inferior inferiorly infiltrate infiltration infiltrative inflammation inflammatory inflated
    inflation information infrahilar infrasegmental injuries injury innumerable inside
    inspiration inspiratory instead instrumentation intact intensity intercostal interest
    interim interlobar intermittent internal interpreted interspace interstitial interstitium
    interval intervertebral into intra intraabdominal intracranial intraperitoneal intrathoracic
    intravenous introducer intubated intubation invasion invasive involving ipsilateral
    irregular irregularities irregularity is isolated issue it itis itself iv ivc job joint jp
    jugular junction just keep keeping kept kerley kidney kind knee knob know known kyphoplasty
    kyphoscoliosis kyphosis kyphotic lab lack ladder laminectomy large largely larger largest
    larynx last lat late later lateral laterally layering lead leaflet leak least leave left
    leftsided leftward leg lesion less let leukocytosis level levocurvature levoscoliosis lie
    lies life ligament light lightheadedness lij like likely limit limited line linear lingula
    lingular list listhesis little live liver lll lobar lobe lobectomy lobulated localized
    located location loculated long longer look loop lordosis lordotic loss lot low lower
    lucency lucent lul lumbar lumbosacral lumen lung lv lvad lymph lymphadenopathy lymphangitic
    lymphoma lytic made main mainly mainstem maintained make malalignment male malignancy
    malignant malposition malpositioned malunion mammogram man manner manubrium many margin
    marginal margination mark marked markedly markers marking marrow mass massive masslike
    mastectomy mastoid material matter may maybe me mean measured measures measuring medial
    medially median mediastinal mediastinum medical medication mediport megaly melanoma mental
    metallic metastases metastasis metastatic mg mid midabdomen middle midline midlung
    midportion midsternal midthoracic might migration mild mildly mind minimal minimally minor
    minute miss mitral mixed ml mm moderate moderately monitor monitoring month more morning
    most mother motion move mr mri much mucous mucus multifocal multilevel multilobar multiple
    muscle must mva mvc my myeloma myocardial nad name narrowed narrowing nasogastric nature
    nausea near nearly neck necrosis need needle negative neither neoplasm neoplastic
    nephrolithiasis nephrostomy nerve never nevertheless new newborn newly next ng ngt ninth
    nipple nl no node nodular nodularity nodule non noncalcified noncardiogenic nondisplaced
    nondistended none nonobstructing nonobstructive nonproductive nonsmoker nonspecific nonunion
    nor normal normally not note noted nothing notification notified now number numbness
    numerous nurse obesity oblique obliquely obliteration obscuration obscure obscured observed
    obstructing obstruction obstructive obtained obvious occasional occlusion odesis oedema of
    off often og ogt ok okay old oma omata on once one only onset op opacification opacified
    opacities opacity opathy open operative opportunistic or orbits order ordering organizing
    orogastric osis osseous osseus osteoarthritis osteoarthrosis osteopenia osteopenic
    osteophyte osteophytosis osteoporosis osteoporotic ostomy other otherwise our out outcome
    outflow outlet outside ovarian ovaries ovary over overall overinflated overinflation overlap
    overlapping overlie overload overlying overnight overt ovoid own oxygen pa pacemaker pacer
    pacing pad page paged pain palpitations pancreas pancreatic parahilar paramediastinal
    paranasal paraspinal paratracheal paravertebral parenchyma parenchymal part partial
    partially particularly partly passed patchy patent pathologic pathology patient pattern
    pectoral pectus pelvis penia people per perforated perforation performed perhaps
    peribronchial pericardial pericardium perihilar peripheral peripherally periphery peritoneal
    peritoneum perivascular periventricular persistent persistently persisting person pharynx
    phrenic physical physician picc pigtail place placed placement plan plaque plasia plasty
    plate platelike please pleura pleural pleuritic pleuroparenchymal plug plugging pna
    pneumatocele pneumobilia pneumomediastinum pneumonectomy pneumonia pneumonic pneumonitis
    pneumopericardium pneumoperitoneum pneumothoraces pneumothorax point poor poorly port
    portable portacath portion position positional positioned positioning positive possibility
    possible possibly post posterior posteriorly posterolateral postop postoperative
    postradiation postsurgical posttraumatic posttreatment potential potentially power ppd pre
    predominantly pregnancy pregnant preop preoperative preprocedure presence present preserved
    pressure presumably presumed presumptive presumptively previous previously primary
    primordial prior prn probable probably problem procedure process productive profound
    prognosis progressed progression progressive project projected projecting projection
    prolapse prominence prominent pronounced prostate prosthesis prosthetic protocol protrusion
    provided proximal proximally proximity pseudotumor pt ptx pulmonary pulmonic pump pyloric
    pylorus quadrant quality question questionable questioned quick quite ra radial radiating
    radiation radiograph radiographer radiographic radiographically radiologist radiopaque raise
    raising rales range rarefaction rate rather re reach reaches reaction reactive read real
    reason receipt received recent receptor recess recommend recommended recorder rectal
    recurrence recurrent redemonstrated redemonstration redistribution reduced reduction
    referring reflect reflecting reflective regard region relate related relating relative
    relatively remain remainder remained remaining remarkable remote removal removed renal
    repair repeat replacement report reported reporting reposition repositioning represent
    representing require resection reside resident residual resolution resolved resolving rest
    result resulting retained reticular reticulation reticulonodular retraction retrocardiac
    retrosternal reveal review reviewed rib ribcage ribs right rightsided rightward rij ring
    risk rll rml rod role room root rotated rotation rotator round rounded routine rt rul rule
    ruled run rv rx sacroiliac sagittal said same sarcoid sarcoidosis sarcoma satisfactory
    saturation saw say scan scapula scapular scar scarring scattered scheduled sclerosis
    sclerotic scoliosis scoliotic screening screw seated second secondary section see seem seen
    segment segmental seizure sella semi send senescent sense sensitivity sepsis septal sequela
    sequelae sequence sequential series serious service set setting seventh several severe
    severely shadow shaft shape shaped sharp sharply she sheath shielded shift shifted short
    shortness should shoulder show showed shunt shunting side sided sidehole sign signal signed
    significant significantly silhouette silicosis similar simple simulate since single sinus
    sit six sixth size sized skeletal skeleton skin slight slightly small smaller smith smoking
    so sob soft solitary soma some something somewhat soon sore sounds space speak specific
    specifically specimen spiculated spinal spine spleen splenic splenomegaly spondylitic
    spondylosis spur spurring sputum stab stability stable stably stage stand standard staple
    start started starting state static status stay stellate stenosis stent step sternal
    sternotomy sternum still stimulator stoma stomach stone stool stop story stranding strandy
    strangulated streak streaky stripe strong structure studies study sub subacute subcarinal
    subcentimeter subclavian subcostal subcutaneous subdiaphragmatic subject subluxation
    subluxed suboptimal subphrenic subpleural subsegment subsegmental substantial substantially
    substernal subtle such suggest suggested suggesting suggestion suggestive sulci sulcus
    summary superimposed superior superiorly supine support supporting supraclavicular
    suprahilar sure surgery surgical suspect suspected suspicion suspicious suture svc swan
    sweats swelling sx symmetric symmetrical symptoms syncopal syncope syndesmophyte syndrome
    table tachycardia taken tavr tb team technical technically technique telephone tell
    tenderness tendon tension tenth tenting term terminate terminating test testicular testis th
    than that the their them themselves then therapy there these they thickened thickening thin
    thing think third this thoracentesis thoracic thoracolumbar thoracostomy thoracotomy thorax
    those though thought three throat thrombosis thrombus through throughout thus thyroid tibial
    tightness time tingling tiny tip tissue to tobacco today together tonsil too took top
    tortuosity tortuous total touch toward trace trach trachea tracheal tracheobronchial
    tracheostomy tract transcribed transplant transverse trapping trauma traumatic treatment
    tree tricuspid triple true trunk try tube tuberculosis tuberculous tuberosity tubing tumor
    tunneled turn twelfth two tx type typical ulnar ultrasound unable unavailable uncertain
    unchanged unclear uncoiled uncoiling under underlying unfolded unfolding unilateral unless
    unlikely unobstructed unremarkable until unusual up upon upper upright uptake upward ureter
    us use used useful using usual uterus vague value valve varices vasc vascular vascularity
    vasculature vehicle vein vena venous ventilated ventral ventricle ventricular versus
    vertebra vertebrae vertebral vertebroplasty very vessel view viral viscera visible visit
    visualized volume vomiting vs walk wall want warm warranted was water way wbc we weakness
    wedge wedged wedging week weighted well were what wheeze wheezing when where whereas whether
    which while white who whole whom whose why wide widened widening widespread width will
    window wire wish with withdrawn within without wnl wo woman word work workup world worrisome
    worry worse worsened worsening would wound wrist wrong xray year yes yesterday yet yof you
    young your zone
"""
ENGLISH_WORDS = frozenset(_ENGLISH.split())
