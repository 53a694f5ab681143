"""BERTScore F1 of an output against the reference, by a text encoder from a local folder.

It is that of Zhang et al. (2020), arXiv:1904.09675, as the package `bert_score` 0.3.13 computes it
without idf and without rescaling. Each token is matched with the most similar one of the other
text, by the cosine of their hidden states. The special tokens at the ends can be matched and do not
count themselves.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.files import sha256_file
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.kind import About, Column

if TYPE_CHECKING:
    import torch

ABOUT = About(
    columns=(Column("bertscore", "BERTScore F1", range=(-1, 1)),),
    citation="Zhang et al. (2020)",
    group="overlap",
    name="BERTScore",
    remark=(
        "BERTScore is not rescaled. A text that is longer than its model takes is cut, as the "
        "package bert_score does."
    ),
)
ENVIRONMENT = None
WEIGHTS = ("model.safetensors",)
NEEDED = ("config.json", *WEIGHTS)
BATCH = 32
MOST_TOKENS = 1_000_000  # a tokenizer that knows no limit says 1e30


def on(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("directory"))


def check(settings: Mapping[str, Any]) -> None:
    folder = Path(settings["directory"])
    lost = [name for name in NEEDED if not (folder / name).is_file()]
    if lost:
        raise UserError(
            f"scoring.bertscore.directory is {folder}, which has no {lost[0]}; name the folder of "
            "a text encoder with its tokenizer, or set it to null"
        )


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    check(settings)
    import torch
    from transformers import AutoModel, AutoTokenizer

    from radquant.failures import loading

    torch.set_num_threads(threads)
    folder = Path(settings["directory"])
    with loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if type(tokenizer).__name__.startswith(("Roberta", "GPT2")):  # as the package does
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, add_prefix_space=True
            )
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    layers = model.config.num_hidden_layers
    layer = layers if settings["layer"] is None else settings["layer"]
    if layer > layers:
        raise UserError(
            f"scoring.bertscore.layer is {layer}, but the model in {folder} has {layers} layers; "
            "give one of them"
        )
    model.eval()
    digest = sha256_file(folder / WEIGHTS[0])[:12]

    def measure(pairs: Pairs) -> Iterator[tuple[float, ...]]:
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            texts = list(dict.fromkeys(text for pair in batch for text in pair))
            states = dict(zip(texts, _states(model, tokenizer, layer, texts), strict=True))
            for reference, output in batch:
                yield (f1(states[reference], states[output]),)

    return Loaded(f"layer {layer} of {model.config.model_type} (sha256 {digest})", measure, (0.0,))


State = tuple["torch.Tensor", "torch.Tensor"]  # unit vectors [tokens, size], whether each counts


def _states(model: Any, tokenizer: Any, layer: int, texts: list[str]) -> Iterator[State]:
    import torch

    longest = min(
        tokenizer.model_max_length,
        getattr(model.config, "max_position_embeddings", MOST_TOKENS),
        MOST_TOKENS,
    )
    encoded = tokenizer(
        [text.strip() for text in texts],
        padding=True,
        truncation=longest < MOST_TOKENS,
        max_length=longest if longest < MOST_TOKENS else None,
        return_tensors="pt",
    )
    with torch.no_grad():
        found = model(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            output_hidden_states=True,
        ).hidden_states[layer]
    unit = torch.nn.functional.normalize(found, dim=-1)
    ends = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    for vectors, ids, mask in zip(
        unit, encoded["input_ids"], encoded["attention_mask"].bool(), strict=True
    ):
        counts = torch.tensor([int(token) not in ends for token in ids[mask]])
        yield vectors[mask], counts


def f1(reference: State, output: State) -> float:
    """Return BERTScore F1 of two texts; 0 where one of them has no token that counts."""
    similar = output[0] @ reference[0].T
    if not output[1].any() or not reference[1].any():
        return 0.0
    precision = float(similar.max(dim=1).values[output[1]].mean())
    recall = float(similar.max(dim=0).values[reference[1]].mean())
    if precision + recall == 0:
        return 0.0
    # Equal texts exceed 1 by what rounding adds.
    return max(-1.0, min(1.0, 2 * precision * recall / (precision + recall)))
