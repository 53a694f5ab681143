"""RadCliQ-v1 (Yu et al. 2023): radiologists' count of errors, predicted from four other scores.

The published composite (rajpurkarlab/CXR-Report-Metric at 208c45c) is a line through the four
scores, each standardised on ReXVal. BLEU-2 has the weight 4e-12 in it and is left out. Its RadGraph
score is the mean of both F1 by RadGraph 1.0 and its first model; so the run's annotator must be
that. Here are the other two. BERTScore is that of distilroberta-base (layer 5, with idf of the
different references and the published baseline). The other is the cosine of CheXbert's embeddings.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radquant.scoring.measures import folders
from radquant.scoring.measures.chexbert import load_labeler
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.kind import About, Column, Pooled

PACKAGE = "bert-score"
ENVIRONMENT = "judges"
FOLDERS = {
    "distilroberta-base": "distilbert/distilroberta-base",
    "chexbert.pth": "StanfordAIMI/RRG_scorers",
    "bert-base-uncased": "google-bert/bert-base-uncased",
}
# Mean and standard deviation on ReXVal, and weight.
RADGRAPH = (0.53792312, 0.30282584, -0.377083683)
BERTSCORE = (0.61757256, 0.22430938, -0.370300100)
EMBEDDING = (0.76479421, 0.25394391, -0.252616218)


def composite(radgraph: np.ndarray, bertscore: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Return RadCliQ-v1 of each report from its three scores, all [reports]."""
    scores = ((radgraph, RADGRAPH), (bertscore, BERTSCORE), (embedding, EMBEDDING))
    parts = [weight * (value - mean) / sd for value, (mean, sd, weight) in scores]
    return np.asarray(sum(parts))


ABOUT = About(
    columns=(
        Column("radcliq_bertscore", "BERTScore (distilroberta)", range=(-10, 1)),
        Column("radcliq_embedding", "CheXbert embedding", range=(-1, 1)),
    ),
    citation="Yu et al. (2023)",
    group="model judge",
    name="RadCliQ-v1",
    pooled=(
        Pooled(
            "radcliq_v1",
            "RadCliQ-v1",
            ("rg1_mean", "radcliq_bertscore", "radcliq_embedding"),
            lambda columns: np.column_stack([composite(*columns.T), np.ones(len(columns))]),
            lambda sums: np.asarray(sums[..., 0] / sums[..., 1]),
            better="less",
        ),
    ),
    remark="RadCliQ-v1 predicts a count of errors, so less is better; it holds RadGraph's score.",
)


on = folders.on


def check(settings: Mapping[str, Any]) -> None:
    folders.check("radcliq", FOLDERS, settings)


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    directory = folders.check("radcliq", FOLDERS, settings)
    device = folders.begin(threads)
    import torch

    labeler = load_labeler(directory, device)

    def embedding(text: str) -> np.ndarray:
        words = labeler.tokenizer(
            text.strip(), truncation=True, max_length=512, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = labeler.model.bert(**words.to(device)).last_hidden_state
        return np.asarray(hidden[0, 0].float().cpu())

    def measure(pairs: Pairs) -> Iterator[tuple[float, ...]]:
        for (reference, output), similarity in zip(
            pairs, bertscores(pairs, directory, device), strict=True
        ):
            one, other = embedding(reference), embedding(output)
            norms = np.linalg.norm(one) * np.linalg.norm(other)
            cosine = float(one @ other / norms) if norms else 0.0
            yield (similarity, min(1.0, max(-1.0, cosine)))

    return Loaded(folders.identity(PACKAGE, FOLDERS, directory), measure, None)


def bertscores(pairs: Pairs, directory: Path, device: str) -> list[float]:
    """Return BERTScore's F1 of each pair, by the package bert_score."""
    from bert_score import BERTScorer

    references = [reference for reference, _ in pairs]
    with contextlib.chdir(directory):
        scorer = BERTScorer(
            model_type="distilroberta-base",
            num_layers=5,
            idf=True,
            idf_sents=sorted(set(references)),  # the same for every system
            rescale_with_baseline=True,
            lang="en",
            device=device,
            nthreads=1,
        )
    _, _, f1 = scorer.score([output for _, output in pairs], references, batch_size=64)
    return [float(value) for value in f1]
