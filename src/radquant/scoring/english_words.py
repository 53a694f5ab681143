"""Common English words that the lexicon's lists lack: of the language, and of reports.

Function words, a few hundred words of radiology and its neighbours, and what at least four reports
of the public Open-I corpus use. Lower case, singular, alphabetical.
"""

_COMMON = """
    ability able abnormalities about abuse accentuated accident acquired addition adrenal advise
    advised after against ago aka alignment alleged allergic allowing alone already altered
    alternatively always am aml amongst amount an and anesthesia angulation annual another
    anticipated anyone anything ap appendix approximate approximately approximating
    architectural arteries ask asked assault attending attenuation atx available avulsion away
    axial back background bariatric based become before began best better big biopsy bladder
    bleed blood bmt bodies boy bp brain breath breathing broken brother bullae ca called came
    canal cardia care carpal case cause causing cell cerebral certain characterization
    characterized chemotherapy child chills cigarette cine clinical clinically close closure clr
    cm collision come compartment complaining complains complaints complication confirm
    confusion consider considering consists consolidating conspicuous contrast conus convexity
    cord coronal correlate correlated correlation coughing couple crackles ct cut cvc cvl cxr
    date dated day deal decubitus dedicated deep definite deformities densities department
    described desired destruction destructive determine developed developing development dextro
    diabetes dialysis diameter diarrhea dictated did differences different difficulty discussed
    dish distortion distribution dizziness do doctor document documented does doing done dose
    down dr during dx dz each easily easy echogenic ed edematous eff elbow electronic
    electronically elements else emergency enhance enhancement enough ensure entire episode er
    erect especially essentially etiology etoh evaluated even evening ever every exam example
    excavatum exception exertion expected exposure extent face facility fact factors fall far
    father fatigue features feel feet fell female filled film find finger flank follicle follow
    followed following followup foot foraminal forearm form formation french frontal full
    further fx gave general generalized get girl give given gland glandular go goes good got
    grade greater greatest grossly gunshot habitus hand happen having he headache help helpful
    hemoptysis her here him his histoplasmosis hiv hodgkin hold home homogeneous hour how hr htn
    hx hydronephrosis hyperechoic hypoechoic hypoxia icu idea idiopathic image imaging
    implantation important impression incidentally including indeed indicated infant injuries
    inspiration inspiratory intensity interest interim interpreted intracranial intravenous
    invasion invasive irregularities issue itself iv job just keep kept kind know known lab
    ladder largest last lat late later least leave leg let leukocytosis life ligament light
    lightheadedness lij limit list live located location long look lot lv lymphoma made mainly
    make male mammogram man manner marginal margination mark markers marrow mastoid material
    matter me measured measures measuring median medical medication melanoma mental mg
    midsternal mind minute miss ml mm month morning mother motion move mr mri much muscle mva
    mvc my myeloma nad name nature nausea need nerve newborn next nl none nonproductive
    nonsmoker note nothing notification notified now number numbness nurse oblique obliquely
    obscure obtained obvious off often ok okay once one onset op opacities open or orbits order
    ordering osseus our outcome outside ovarian ovaries ovary overall overlap overlapping own
    oxygen pa page paged pain palpitations pancreatic paranasal part particularly passed
    pathologic patient pattern people per performed periventricular person physical physician
    place placed placement plan pleuritic point portable positional positioning positive postop
    ppd pre predominantly pregnancy pregnant preop preoperative preprocedure presence pressure
    previous previously primary prior prn problem procedure productive projected projection
    prolapse prostate protocol protrusion provided proximity pt quality quick quite ra radial
    radiating radiation radiograph radiographer radiographic radiographically radiologist rales
    range rate re read real receipt received receptor recommend recommended rectal recurrence
    redemonstrated redemonstration referring regard relative relatively remainder remaining
    remarkable repair repeat report reported reporting reposition repositioning require resident
    rest reveal review reviewed rij risk role room rotator routine rt run rv rx sagittal said
    same sarcoma saturation saw say scan scheduled screening section see seizure semi send sense
    sequence series serious service set several shaft shape she shielded short shortness signal
    signed sit six sized smith smoking so sob some something somewhat soon sore sounds speak
    specific specifically specimen sputum stab stability stage stand start started starting
    state stay step stool stop story stripe strong studies study subject substernal such summary
    superimposed supine sure sweats sx symptoms syncopal syncope syndrome table tachycardia team
    technical technically telephone tell tenderness tendon term test testicular testis th their
    them themselves then therapy there thin thing think those three throat thus tibial tightness
    time tingling tobacco today together too took total touch toward transcribed transplant
    treatment true try turn two tx type ulnar ultrasound unable unavailable uncertain unless
    until up upon upright uptake ureter us use used useful using usual uterus value vasc vehicle
    view visit vomiting walk want warm warranted water way wbc we weakness week weighted what
    wheeze wheezing when where white who whole whom whose why wide width will wish wnl wo woman
    word work workup world wound wrist wrong xray year yes yesterday yof you young your
"""
COMMON = frozenset(_COMMON.split())
