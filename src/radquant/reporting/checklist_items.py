"""The items of two reporting checklists, by their numbers, and what answers each of them.

TRIPOD-LLM: Gallifant et al., Nature Medicine 31, 60-69 (2025), doi:10.1038/s41591-024-03425-5, the
rows of table 2. CLAIM 2024 update: Tejani et al., Radiology: Artificial Intelligence 6(4), e240300
(2024), doi:10.1148/ryai.240300. Numbers and sections are theirs, as are the names of CLAIM's items;
TRIPOD-LLM has sentences, which are shortened here. The originals decide.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One item; `answers` are keys of `checklist_facts.answers`."""

    number: str
    section: str
    name: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Checklist:
    name: str
    source: str
    items: tuple[Item, ...]


def _items(*rows: tuple[str, str, str, str]) -> tuple[Item, ...]:
    return tuple(Item(n, section, name, tuple(keys.split())) for n, section, name, keys in rows)


TRIPOD_LLM = Checklist(
    "TRIPOD-LLM",
    "Gallifant et al., Nature Medicine 31, 60–69 (2025), doi:10.1038/s41591-024-03425-5, table 2",
    _items(
        ("1", "Title", "LLM study, task, population, outcome", "title"),
        ("2", "Abstract", "see TRIPOD-LLM for abstracts (2a to 2l)", "abstract"),
        ("3a", "Background", "healthcare context, use case and rationale", "background"),
        ("3b", "Background", "target population and intended use", "intended_use no_device cohort"),
        ("4", "Objectives", "objectives; development, tuning or evaluation", "objectives"),
        ("5a", "Data", "sources of training, tuning and evaluation data", "sources leak"),
        ("5b", "Data", "description and distribution of the data", "numbers cohort"),
        ("5c", "Data", "dates of the oldest and the newest text", "data_dates model_dates"),
        ("5d", "Data", "preprocessing and quality checks", "cleaning"),
        ("5e", "Data", "missing and imbalanced data, omissions", "missing"),
        ("6a", "Analytical methods", "LLM name, version, last training", "model model_dates"),
        ("6b", "Analytical methods", "LLM development and alignment", "development"),
        ("6c", "Analytical methods", "how text was generated, settings", "decoding prompt"),
        ("6d", "Analytical methods", "initial and postprocessed output", "output"),
        ("6e", "Analytical methods", "classification and thresholds", "classification"),
        ("7a", "LLM output", "metrics of the quality of outputs", "metrics"),
        ("7b", "LLM output", "relevance of the metrics; human evaluation", "relevance readers"),
        ("7c", "LLM output", "outcome, how predictions were calculated", "outcome"),
        ("7d", "LLM output", "subjective assessment: assessors, agreement", "readers"),
        ("7e", "LLM output", "comparison with LLMs, humans, benchmarks", "comparators"),
        ("8a", "Annotation", "how text was labeled", "annotator"),
        ("8b", "Annotation", "number of annotators, agreement", "annotator_agreement"),
        ("8c", "Annotation", "background of annotators, models that label", "annotator"),
        ("9a", "Prompting", "prompt design, curation and selection", "prompt prompt_design"),
        ("9b", "Prompting", "data used to develop the prompts", "examples prompt_data"),
        ("10", "Summarization", "preprocessing before summarization", "cleaning truncation"),
        ("11", "Instruction tuning/alignment", "instructions, data, evaluators", "no_training"),
        ("12", "Compute", "compute or proxies of it", "hardware compute"),
        ("13", "Ethical approval", "committee, consent or waiver", "ethics"),
        ("14a", "Open science", "funding and role of the funders", "funding"),
        ("14b", "Open science", "conflicts of interest", "conflicts"),
        ("14c", "Open science", "study protocol", "protocol"),
        ("14d", "Open science", "registration", "registration"),
        ("14e", "Open science", "availability of the data", "data_availability"),
        ("14f", "Open science", "availability of the code", "code_availability"),
        ("15", "Public involvement", "patients and public", "involvement"),
        ("16a", "Participants", "flow of texts and patients", "flow"),
        ("16b", "Participants", "characteristics of each split", "numbers cohort data_dates"),
        ("16c", "Participants", "development against evaluation data", "distribution"),
        ("16d", "Participants", "participants and events in each analysis", "analysed"),
        ("17", "Performance", "by the metrics, and human evaluation", "performance readers"),
        ("18", "LLM updating", "results of an updated LLM", "updating"),
        ("19a", "Interpretation", "interpretation, fairness", "interpretation"),
        ("19b", "Limitations", "limitations, bias, uncertainty", "limitations"),
        ("19c", "Usability in context", "challenges in using the data", "data_challenges"),
        ("19d", "Usability in context", "intended use, user, oversight", "intended_use no_device"),
        ("19e", "Usability in context", "poor or missing input", "poor_input"),
        ("19f", "Usability in context", "interaction, expertise of users", "interaction"),
        ("19g", "Usability in context", "next steps", "next_steps"),
    ),
)

CLAIM = Checklist(
    "CLAIM, 2024 update",
    "Tejani et al., Radiology: Artificial Intelligence 6(4), e240300 (2024), "
    "doi:10.1148/ryai.240300",
    _items(
        ("1", "Title or abstract", "Identification as a study of AI methodology", "title"),
        ("2", "Abstract", "Summary of study design, methods, results, conclusions", "abstract"),
        (
            "3",
            "Introduction",
            "Background, intended use and role",
            "background intended_use no_device",
        ),
        ("4", "Introduction", "Study aims, objectives, and hypotheses", "objectives margin"),
        ("5", "Study design", "Prospective or retrospective study", "design"),
        ("6", "Study design", "Study goal", "objectives"),
        ("7", "Data", "Data sources", "sources"),
        ("8", "Data", "Inclusion and exclusion criteria", "cleaning"),
        ("9", "Data", "Data pre-processing", "cleaning truncation"),
        ("10", "Data", "Selection of data subsets", "drawn"),
        ("11", "Data", "De-identification methods", "deidentification"),
        ("12", "Data", "How missing data were handled", "missing"),
        ("13", "Data", "Image acquisition protocol", "images"),
        ("14", "Reference standard", "Definition of the reference standard", "reference"),
        ("15", "Reference standard", "Rationale for the reference standard", "reference_reason"),
        ("16", "Reference standard", "Source of annotations", "reference annotator"),
        ("17", "Reference standard", "Annotation of test set", "annotator"),
        ("18", "Reference standard", "Inter- and intra-rater variability", "annotator_agreement"),
        ("19", "Data partitions", "How data were assigned to partitions", "numbers drawn"),
        ("20", "Data partitions", "Level at which partitions are disjoint", "disjoint leak"),
        ("21", "Testing data", "Intended sample size", "sample_size"),
        ("22", "Model", "Detailed description of model", "model development"),
        ("23", "Model", "Software libraries, frameworks, and packages", "software"),
        ("24", "Model", "Initialization of model parameters", "initialization"),
        ("25", "Training", "Details of training approach", "no_training calibration"),
        ("26", "Training", "Method of selecting the final model", "selection"),
        ("27", "Training", "Ensembling techniques", "ensembling"),
        ("28", "Evaluation", "Metrics of model performance", "metrics comparators"),
        ("29", "Evaluation", "Statistical measures of significance", "statistics margin"),
        ("30", "Evaluation", "Robustness or sensitivity analysis", "robustness"),
        ("31", "Evaluation", "Explainability or interpretability", "explainability"),
        ("32", "Evaluation", "Evaluation on internal data", "internal"),
        ("33", "Evaluation", "Testing on external data", "external"),
        ("34", "Evaluation", "Clinical trial registration", "registration"),
        ("35", "Results: data", "Numbers included and excluded", "flow"),
        ("36", "Results: data", "Demographic and clinical characteristics", "numbers cohort"),
        ("37", "Results: model performance", "Performance and uncertainty", "performance readers"),
        ("38", "Results: model performance", "Estimates and their precision", "performance"),
        ("39", "Results: model performance", "Failure analysis", "failures"),
        ("40", "Discussion", "Study limitations", "limitations"),
        ("41", "Discussion", "Implications for practice", "interpretation intended_use no_device"),
        ("42", "Other information", "Reference to the full study protocol", "protocol"),
        ("43", "Other information", "Availability", "code_availability data_availability"),
        ("44", "Other information", "Funding and other support", "funding"),
    ),
)
CHECKLISTS = (TRIPOD_LLM, CLAIM)
