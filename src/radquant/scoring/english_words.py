"""Words by which English reports are told from those of other languages.

The words of the lexicon's lists, function words, several hundred of medicine, and what at least
four reports of the public Open-I corpus use. Lower case, alphabetical; the plurals and verb forms
that `language` derives are left out.
"""

_ENGLISH = """
    abdomen abdominal ability able abnormal abnormalities abnormality abnormally about above
    abscess absence absent abuse accentuated accident accompanied accompany accompanying
    accounted accumulation acetabulum acquired acromioclavicular across active acute addition
    additional additionally adenopathy adequate adhesion adjacent admitted adrenal advanced
    advise advised aerated aeration afib after again against age aggressive ago aicd air
    airspace airtrapping airway aka alcohol aligned alignment all alleged allergic allowing
    almost alone along alongside already also altered alternatively although alveolar alveoli
    always am aml amongst amount ample an anasarca anastomosis and anemia anesthesia aneurysm
    angina angiography angle angulation ankle annual annulus anomaly another anterior anteriorly
    anterolateral anticipated any anyone anything aorta aortic aortopulmonary ap apart apex
    apical apically apices apparent appear appearance appeared appearing appendix appetite
    appreciable appreciably appreciated appropriate approximate approximately approximating arch
    architectural ards are area arm around arrest arrhythmia arterial arteries artery arthritic
    arthritis arthropathy arthroplasty artifact as asbestosis ascending ascites aside ask asked
    aspect aspiration assault assess assessed assessment associated asthma asymmetric
    asymmetrical asymmetrically asymmetry asymptomatic at atelectasis atelectatic
    atherosclerosis atherosclerotic atria atrial atriocaval atrium attack attending attention
    attenuation attributable attributed atx atypical available avulsion away axial axilla
    axillary azygos azygous baby back background bacteremia bacterial balloon band bandlike
    bariatric basal base based baseline basilar basketball be because become been before began
    behind being below beneath benign besides best better between beyond biapical biapically
    bibasal bibasally bibasilar bibasilarly bicycle big bilateral bilaterally biliary bilobar
    bilobed biopsy bladder bleb bleed bleeding block blood bloody blunt blunted blunting blurred
    bmt bodies body bone bony border borderline both bowel boy bp brachiocephalic bradycardia
    brain breast breath breathing bridging broad broken bronchi bronchial bronchiectasis
    bronchiectatic bronchiolar bronchiolitis bronchitis bronchogram bronchopneumonia
    bronchoscopy bronchospasm bronchovascular bronchus brother bulbous bulge bulky bulla bullae
    bullet bullous burn but by bypass ca cabg cage calcific calcification calcified caliber
    called callus calvarium came can canal cancer cannot cannula carcinoma cardia cardiac cardio
    cardiogenic cardiomediastinal cardiomediastinum cardiomegaly cardiomyopathy
    cardiopericardial cardiophrenic cardiopulmonary cardiothoracic care careful carina carpal
    case cath catheter catheterization cause caused causing cava caval cavitary cavitation
    cavity cavoatrial cell centimeter central centrally cephalization cerclage cerebral certain
    cervical chamber change changed changing characteristic characterization characterized check
    chemical chemotherapy chest chf child chills choking cholecystectomy cholelithiasis
    cholesterol chronic cigarette cine circumscribed cirrhosis cirrhotic clavicle clavicular
    clear clearance cleared clearing clearly clinic clinical clinically clip close closure clr
    cm coarse coarsened code coil cold collapse collapsed collection collision colon colonic
    colonoscopy coma combination come comminuted communicate communicated compared comparison
    compartment compatible compensatory complaining complains complaints complete completely
    complex complicated complication component compound compression compressive concern
    concerned concerning concurrent configuration confirm confirmed confluent confused confusion
    congenital congested congestion congestive conjunction consider consideration considered
    considering consistent consists consolidating consolidation consolidative conspicuous
    constant constipation continue continued contour contralateral contrast contusion conus
    convexity convincing copd cord coronal coronary correct correlate correlated correlation
    correspond corresponding cortex cortical costal costochondral costophrenic cough coughing
    could count couple course coursing covid cp crackles crash critical crowding ct cuff cuffing
    culture current currently curvature curvilinear cut cvc cvl cxr cyst cystic date dated day
    deal decrease decreased decreasing decubitus dedicated deep defibrillator defined definite
    definitely definition definitively deformed deformities deformity degeneration degenerative
    degree delineate delineated delivery demineralization demineralized demonstrate demonstrated
    denies dense densities density department dependent depression desaturation descending
    described desired despite destruction destructive detect detected detection determine
    developed developing development deviated deviation device dextro dextroconvex
    dextrocurvature dextroscoliosis diabetes diabetic diagnosis diagnostic dialysis diameter
    diaphragm diaphragmatic diarrhea dictated dictation did differences different differential
    difficult difficulty diffuse diffusely dilatation dilated dilation diminished disc discoid
    discomfort discontinued discovery discrete discussed disease dish disk dislocated
    dislocation displaced displacement dissection distal distally distended distension
    distention distortion distress distribution diuresis dizziness dizzy do dobbhoff dobhoff
    doctor document documented does doing done dorsal dose double doubt down downward dr drain
    drainage drowning drug dry dual duct due duodenum during dx dysphagia dyspnea dz each
    earlier early easily easy echocardiogram echogenic ectasia ectasis ectatic ectomy ed edema
    edematous eff effacement effect effusion eighth either elbow electrode electronic
    electronically elements elevated elevation eleventh elongated elongation else embolism
    embolization embolus emergency emergent emphysema emphysematous employment empyema end
    ending endoscopy endotracheal endplate ends engorged engorgement enhance enhanced
    enhancement enlarged enlargement enlarging enough ensure enter enteric entire entirely
    enzyme epicardial epidural epigastric episode equivocal er erect esophageal esophagus
    especially essentially et etiology etoh ett eval evaluate evaluated evaluation even evening
    eventration ever every evidence evident evolving exacerbation exaggerated exaggeration exam
    examination example excavatum except exception excess excessive exclude excluded excluding
    exertion exertional existing expanded expansion expected explained exposure extend extending
    extensive extent external extremity extubated extubation face facility fact factors failure
    faint faintly fall family far fat father fatigue favor favored favoring features febrile
    feeding feel feet fell felt fem female femoral femur fever few fibrillation fibronodular
    fibrosis fibrotic fibrous field fifth filled film filter find finding fine finger first
    fissural fissure fixation flank flattened flattening flexure floor florid flowing flu fluffy
    fluid focal foci focus follicle follow followed following followup food foot football for
    foraminal forearm foreign form formation found fourth fracture fractured fragment frank free
    french from frontal full fullness fully fungal further fusion fx gain gait gallbladder
    gallstone ganz gas gastric gastroesophageal gastrointestinal gave ge general generalized
    generator get girl give given gland glandular glass glenohumeral glenoid go goes goiter good
    got grade gradual graft gram granuloma granulomata granulomatous great greater greatest
    gross grossly ground groundglass gunshot habitus had hand happen hard hardware has have
    having haze haziness hazy he head headache healed healing hearing heart heavily heavy height
    help helpful hemangioma hematoma hemidiaphragm hemithoraces hemithoracic hemithorax
    hemodialysis hemoglobin hemoptysis hemorrhage hemothorax hepatic hepatomegaly her here
    hernia herniation heterogeneous hiatal hiatus hickman high hila hilar hilum him hip his
    histoplasmosis history hit hiv hoarse hodgkin hold hole home homogeneous honeycombing horse
    hospital hour housing how however hr htn humeral humerus husband hx hydronephrosis
    hydropneumothorax hydrostatic hydrothorax hyperaerated hyperaeration hyperdensity
    hyperechoic hyperexpanded hyperexpansion hyperinflated hyperinflation hyperlipidemia
    hyperlucency hyperlucent hypertension hypertensive hypertrophic hypertrophy hypnosis
    hypoaeration hypoechoic hypoinflated hypoinflation hypopharynx hypotension hypoventilated
    hypoventilation hypoventilatory hypoxemia hypoxemic hypoxia hypoxic iabp iasis icd icu idea
    identified idiopathic if ij ileus ill image imaging immigrant immigration impacted implant
    implantation important impression improved improvement improving in inactive incidental
    incidentally include including incomplete incompletely increase increased increasing
    increasingly indeed indeterminate indicate indicated indicating indication indicative
    indistinct indistinctness indwelling infant infarct infarction infected infection infectious
    inferior inferiorly infiltrate infiltration infiltrative inflammation inflammatory inflated
    inflation influenza information infrahilar infrasegmental ingested ingestion inhalation
    injuries injury inlet innumerable inpatient insert inserted inside inspiration inspiratory
    instead instrumentation intact intensity intercostal interest interim interlobar
    intermittent internal interpreted interspace interstitial interstitium interval
    intervertebral into intra intraabdominal intracranial intraperitoneal intrathoracic
    intravenous introducer intubated intubation invasion invasive involving ipsilateral
    irregular irregularities irregularity is isolated issue it itis its itself iv ivc jaundice
    job joint jp jugular junction just keep keeping kept kerley kicked kidney kind knee knob
    know known kyphoplasty kyphoscoliosis kyphosis kyphotic lab lack ladder laminectomy
    laparotomy large largely larger largest larynx last lat late latent later lateral laterally
    layering lead leaflet leak least leave left leftsided leftward leg lesion less let lethargy
    leukemia leukocytosis level levocurvature levoscoliosis lie lies life ligament light
    lightheadedness lij like likely limit limited line linear lingula lingular list listhesis
    little live liver lll lobar lobe lobectomy lobulated localized located location loculated
    long longer look loop lordosis lordotic loss lot low lower lucency lucent lul lumbar
    lumbosacral lumen lung lv lvad lymph lymphadenopathy lymphangitic lymphoma lytic made main
    mainly mainstem maintained make malaise malalignment male malignancy malignant malposition
    malpositioned malunion mammogram man manner manubrium many margin marginal margination mark
    marked markedly markers marking marrow mass massive masslike mastectomy mastoid material
    matter may maybe me mean measured measures measuring medial medially median mediastinal
    mediastinum medical medication mediport megaly melanoma mental metallic metastases
    metastasis metastatic mg mid midabdomen middle midline midlung midportion midsternal
    midthoracic might migrate migrated migration mild mildly miles mind minimal minimally minor
    minute miss mitral mixed ml mm moderate moderately monitor monitoring month more morning
    most mother motion motor motorcycle move mr mri much mucous mucus multi multifocal
    multilevel multilobar multiple muscle must mva mvc my myeloma myocardial nad name narrowed
    narrowing nasogastric nature nausea near nearly neck necrosis necrotizing need needle
    negative neither neonate neoplasm neoplastic nephrolithiasis nephrostomy nerve never
    nevertheless new newborn newly next ng ngt night ninth nipple nl no node nodular nodularity
    nodule non noncalcified noncardiogenic nondisplaced nondistended none nonobstructing
    nonobstructive nonproductive nonsmoker nonspecific nonunion nor normal normally nose not
    note noted nothing notification notified now number numbness numerous nurse nursing obesity
    objective oblique obliquely obliteration obscuration obscure obscured observed obstructing
    obstruction obstructive obtained obvious occasional occlusion odesis oedema of off often og
    ogt ok okay old oma omata on once one ongoing only onset op opacification opacified
    opacities opacity opathy open operative opportunistic or orbits order ordering organizing
    origin orogastric orthopnea osis osseous osseus osteoarthritis osteoarthrosis osteopenia
    osteopenic osteophyte osteophytosis osteoporosis osteoporotic ostomy other otherwise our out
    outcome outflow outlet outpatient outside ovarian ovaries ovary over overall overdose
    overinflated overinflation overlap overlapping overlie overload overlying overnight overt
    ovoid own oxygen pa pacemaker pacer pacing pad page paged pain palpitation pancreas
    pancreatic pancreatitis parahilar paramediastinal paranasal paraspinal paratracheal
    paravertebral parenchyma parenchymal parent part partial partially particularly partly pass
    passed passes past patchy patent pathologic pathology patient pattern pectoral pectus
    pedestrian pelvis penetrating penia people per perforated perforation performed perhaps
    peribronchial pericardial pericardium perihilar peripheral peripherally periphery peritoneal
    peritoneum perivascular periventricular persist persistent persistently persisting person
    pharynx phone phrenic physical physician physiology picc pigtail place placed placement plan
    plaque plasia plasty plate platelet platelike please pleura pleural pleuritic
    pleuroparenchymal pls plug plugging plus pm pna pneumatocele pneumobilia pneumomediastinum
    pneumonectomy pneumonia pneumonic pneumonitis pneumopericardium pneumoperitoneum
    pneumothoraces pneumothorax point polytrauma poor poorly port portable portacath portion
    position positional positioned positioning positive possibility possible possibly post
    posterior posteriorly posterolateral postop postoperative postpartum postradiation
    postsurgical posttraumatic posttreatment potassium potential potentially power ppd pre
    predominantly pregnancy pregnant premature preop preoperative preprocedure presence present
    preserved pressure presumably presumed presumptive presumptively previous previously primary
    primordial prior prisoner prn probable probably probe problem procedure process productive
    profound prognosis progressed progression progressive project projected projecting
    projection prolapse prolonged prominence prominent pronounced prostate prosthesis prosthetic
    protection protocol protrusion provided proximal proximally proximity pseudotumor pt ptx
    pulm pulmonary pulmonic pump pyloric pylorus quadrant quality question questionable
    questioned quick quite ra radial radiating radiation radiograph radiographer radiographic
    radiographically radiologist radiopaque raise raising rales range rarefaction rash rate
    rather ray re reach reaches reaction reactive read reading real reason receipt received
    recent receptor recess recommend recommended recorder rectal recurrence recurrent
    redemonstrated redemonstration redistribution reduced reduction reference referring reflect
    reflecting reflective reflux regard region relate related relating relative relatively
    remain remainder remained remaining remarkable remote removal removed renal repair repeat
    replacement report reported reporting reposition repositioning represent representing
    require requirement resection reside resident residual resolution resolved resolving
    respective respectively respiratory rest result resulting resuscitation retained reticular
    reticulation reticulonodular retraction retrocardiac retrosternal reveal review reviewed
    rhythm rib ribcage ribs right rightsided rightward rij ring risk rll rml rod role room root
    rotated rotation rotator round rounded routine rt rul rule ruled run runny rv rx sacroiliac
    sagittal said same sarcoid sarcoidosis sarcoma satisfactory saturation saw say scan scapula
    scapular scar scarring scattered scheduled sclerosis sclerotic scoliosis scoliotic screening
    screw seal seated second secondary secretion section sedated see seem seen segment segmental
    seizure sella semi send senescent sensation sense sensitivity sepsis septal septic sequela
    sequelae sequence sequential series serious service set setting seventh several severe
    severely severity shadow shaft shape shaped sharp sharply she sheath shielded shift shifted
    shock short shortness should shoulder show showed shunt shunting side sided sidehole sign
    signal signed significant significantly silhouette silicosis similar simple simulate since
    single sinus sister sit six sixth size sized skeletal skeleton skin slight slightly small
    smaller smith smoke smoker smoking so sob soccer sodium soft solitary soma some something
    somewhat soon sore sounds space speak specific specifically specimen spiculated spinal spine
    spleen splenic splenomegaly spondylitic spondylosis sports spur spurring sputum stab
    stability stable stably staff stage stairs stand standard staple start started starting
    state static status stay stellate stenosis stent step sternal sternotomy sternum still
    stimulator stoma stomach stone stool stop story stranding strandy strangulated streak
    streaky stripe stroke strong struck structure student studies study sub subacute subcarinal
    subcentimeter subclavian subcostal subcutaneous subdiaphragmatic subject subjective
    subluxation subluxed submitted suboptimal subphrenic subpleural subsegment subsegmental
    subsequent substantial substantially substernal subtle such sudden suggest suggested
    suggesting suggestion suggestive sulci sulcus summary superimposed superior superiorly
    supine support supporting supportive supraclavicular suprahilar sure surgery surgical
    suspect suspected suspicion suspicious suture svc swallowed swallowing swan sweating sweats
    swelling sx symmetric symmetrical symptomatic symptoms syncopal syncope syndesmophyte
    syndrome table tachycardia tachypnea taken tattoo tavr tb team technical technically
    technique telephone tell temperature tenderness tendon tension tenth tenting term terminate
    terminating test testicular testis th than that the their them themselves then therapy there
    these they thickened thickening thin thing think third this thoracentesis thoracic
    thoracolumbar thoracostomy thoracotomy thorax those though thought three throat thrombosis
    thrombus through throughout thus thyroid tibial tightness time tingling tiny tip tired
    tissue to tobacco today together tonsil too took top torso tortuosity tortuous total touch
    toward trace trach trachea tracheal tracheobronchial tracheostomy tract transcribed transfer
    transferred transplant transvenous transverse trapping trauma traumatic travel traverse
    treated treatment tree tremor triangular tricuspid triple troponin true trunk try tube
    tuberculosis tuberculous tuberosity tubing tumor tunneled turn twelfth two tx type typical
    ulcer ulnar ultrasound unable unavailable uncertain unchanged unclear uncoiled uncoiling
    under underlying unfolded unfolding unilateral unit unknown unless unlikely unobstructed
    unremarkable unresponsive unstable unsteady until unusual up upon upper upright uptake
    upward ureter urgent us use used useful using usual uterus vague value valve varices vasc
    vascular vascularity vasculature vehicle vein vena venous vent ventilated ventilator ventral
    ventricle ventricular verify version versus vertebra vertebrae vertebral vertebroplasty very
    vessel via view viral viscera visible vision visit visualized vocal voice volume vomiting vs
    walk wall want ward warm warning warranted was water way wbc we weakness wedge wedged
    wedging week weight weighted well were wet what wheeze wheezing when where whereas whether
    which while white who whole whom whose why wide widened widening widespread width wife will
    window wire wish with withdrawn within without wnl wo woman word work worker workup world
    worrisome worry worse worsened worsening would wound wrist wrong xray year yes yesterday yet
    yof you young your zone
"""
ENGLISH_WORDS = frozenset(_ENGLISH.split())
