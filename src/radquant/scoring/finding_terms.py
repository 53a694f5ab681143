"""The findings that are told apart, and the words that name them."""

# Each finding with its terms. A term is a word, or the beginning of one (effusion*), or several of
# them joined by +. The first is then part of the observation itself. The others are anywhere among
# the observation, what modifies it, and where it is. The first finding that fits is the one.
SPECIFIC = {
    "pneumothorax": "pneumothora* hydropneumothora* pneumo ptx*",
    "pneumomediastinum": "pneumomediastin*",
    "free air": "pneumoperiton* air+free gas+free free+intraperiton*",
    "subcutaneous emphysema": "emphysema*+subcutan* gas+subcutan* air+subcutan*",
    "pericardial effusion": "effusion*+pericard* fluid+pericard*",
    "pleural effusion": "effusion* eff effs hydrothora* hemothora* empyema* fluid+pleura*",
    "pneumonia": "pneumonia* pneumonic pneumonitis bronchopneumonia* infection* infectious pna",
    "tuberculosis": "tubercul* tb",
    "consolidation": "consolidat* consol",
    "atelectasis": "atelecta* atx collaps* loss+volume",
    "low lung volumes": "low+volume* low+inflation* hypoinflat* hypoventil* hypoaerat* "
    "decreas*+volume* diminish*+volume* reduc*+volume* hypoexpan*",
    "heart failure": "chf failure",
    "pulmonary edema": "edema* oedema* kerley septal+line septal+lines",
    "vascular congestion": "congest* engorg* cephaliz* redistribut* overload* prominen*+vascul* "
    "prominen*+vessel* increas*+vascul* dilat*+vessel* distend*+vein* distent*+vein*",
    "cardiomegaly": "cardiomeg* enlarg*+heart enlarg*+cardi* enlarg*+silhouette large+heart "
    "large+cardi* prominen*+heart prominen*+cardi* increas*+heart increas*+cardi*",
    "widened mediastinum": "widen* enlarg*+mediast* prominen*+mediast*",
    "adenopathy or hilar enlargement": "adenopath* lymphadenopath* enlarg*+hil* prominen*+hil* "
    "full*+hil* enlarg*+node*",
    "pulmonary hypertension": "hypertens* enlarg*+arter* prominen*+arter*",
    "aneurysm": "aneurysm* dissect*",
    "aortic tortuosity or calcification": "atheroscl* atheroma* tortuo* unfold* uncoil* ectasia "
    "ectatic elongat*+aort* calcifi*+aort* calcifi*+arch calcifi*+knob dilat*+aort* "
    "enlarg*+aort* prominen*+aort*",
    "malignancy": "malignan* mets cancer* carcinoma* metasta* neoplas* tumor* lymphoma*",
    "nodule": "nodul* micronodul*",
    "mass": "mass masses",
    "granuloma or calcification": "granulom* calcif* histoplasm*",
    "fracture": "fractur* fx fxs",
    "interstitial disease": "interstit* ild opaci*+interstit* densit*+interstit* "
    "infiltrat*+interstit* "
    "thicken*+interstit* abnormal*+interstit* disease*+interstit* fibrosis fibrotic reticul* "
    "honeycomb* prominen*+marking* "
    "increas*+marking* coarse*+marking* marking*+prominen* marking*+increas* marking*+coarse* "
    "prominen*+interstit* coarse*+interstit* "
    "silicosis sarcoid* asbestos*",
    "hyperinflation or emphysema": "emphysem* hyperinflat* hyperexpan* hyperaerat* hyperlucen* "
    "overinflat* copd bulla* bullous bleb* flatten*+diaphragm* flatten*+hemidiaphragm* "
    "trapping airtrapping obstructive",
    "airway disease": "bronchiect* bronchit* bronchiol* cuff* bronchospas* thicken*+bronch* asthma",
    "scarring or pleural thickening": "scar* thicken* plaque* pleuroparenchym* adhesion*",
    "blunted costophrenic angle": "blunt*",
    "raised diaphragm": "elevat*+diaphragm* elevat*+hemidiaphragm* raised+hemidiaphragm* eventrat*",
    "hernia": "herni*",
    "mediastinal shift": "shift shifts shifting shifted+mediast* shifted+trache* shifted+heart "
    "shifted+cardi* deviat*",
    "degenerative change": "degenerat* spondyl* osteophyt* arthrit* arthros* arthropath* spur* "
    "osteoarthr* syndesmophyt* hypertroph* endplate* disc+disease disk+disease "
    "narrow*+disc narrow*+disk",
    "scoliosis or kyphosis": "scolio* *scoliosis kypho* curvature *curvature lordosis",
    "osteopenia": "osteopen* osteopor* deminerali*",
    "compression deformity": "compress* wedg* height+loss",
    "endotracheal tube": "endotracheal ett et+tube tube+endotracheal intubat*",
    "tracheostomy": "tracheost* trach",
    "enteric tube": "ng ngt og nasogastric orogastric dobbhoff dobhoff dobbhof tube+enteric "
    "tube+feeding tube+gastric tube+nasogastric tube+orogastric",
    "chest tube": "tube+chest tube+thoracostomy tube+pleural pigtail* drain drains",
    "pacemaker": "pacemak* pacer* pacing icd aicd defibrill* lead leads generator*",
    "central line": "picc line lines catheter* cath port ports mediport* portacath "
    "swan hickman sheath introducer*",
    "aortic balloon pump": "iabp balloon pump pumps",
    "postoperative change": "sternotom* cabg bypass clip clips suture* staple* wire wires hardware "
    "fixation screw* rod rods prosthe* arthroplast* replacement* surger* surgic* postsurg* "
    "postoperat* resect* *ectomy *ectomies stent* graft* fusion kyphoplast* vertebroplast* "
    "anastomos* thoracotom* valve+replacement*",
}
# Words that many findings share: they name one only when no list above knows what modifies them.
GENERAL = {
    "opacity": "opaci* ggo ggos infil infiltrat* airspace disease+air density densities ground "
    "groundglass haz* bronchogram* shadow*",
    "tube": "tube tubes",
}
CANONICAL = (*SPECIFIC, *GENERAL)

# Observations that state the absence of disease or say nothing by themselves: not findings.
_NORMALITY = """
    normal normally unremarkable clear intact patent stable unchanged change changed changes
    expanded sharp midline free within limits symmetric abnormality abnormalities process processes
    disease diseases acute finding findings evidence active marking markings pathology
    abnormal abnormally aerated aeration inflated inflation tip tips side hole holes
    sidehole sideholes sideport sideports
    prominent retraction shifted displacement malposition malpositioned
    enlarging enlarged enlargement extubated extubation coil coils coiled kink kinked loop looped
"""
NOT_FINDINGS = frozenset(_NORMALITY.split())
