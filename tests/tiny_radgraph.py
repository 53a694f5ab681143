"""Make a RadGraph archive with random weights in the layout of the published ones.

    python tests/tiny_radgraph.py DIRECTORY [MODEL_TYPE [SHAPE …]]

writes DIRECTORY/MODEL_TYPE.tar.gz (config.json, vocabulary/, weights.th) and the text encoder's
folder DIRECTORY/tiny-encoder/; SHAPE are the numbers of `Shape` in their order. Run it in the
environment of envs/radgraph.txt. The annotations of this model mean nothing; the code that loads
and runs it is the real one.
"""

import contextlib
import dataclasses
import json
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

import torch

ENCODER = "tiny-encoder"
# Labels as the published models have them: the older one abbreviates, the newer ones spell out.
LABELS = {
    "radgraph": ["ANAT-DP", "OBS-DP", "OBS-DA", "OBS-U"],
    "radgraph-xl": [
        "Observation::definitely present",
        "Anatomy::definitely present",
        "Observation::definitely absent",
        "Observation::uncertain",
    ],
}
LABELS["modern-radgraph-xl"] = LABELS["radgraph-xl"]
WORDS = (
    "no the heart is normal lungs are clear effusion pleural opacity in left right lower lobe "
    "mild edema acute pneumothorax size of and or with without tube stable . , - : /"
)
SAMPLE = "mild opacity in the left lower lobe . no pleural effusion or edema . the heart is normal"


@dataclasses.dataclass(frozen=True)
class Shape:
    """The size of a network; the published ones are about `Shape(768, 12, 12, 512)`."""

    hidden: int = 16
    layers: int = 1
    span_width: int = 3
    window: int = 64  # word pieces
    # How many of the spans of `SAMPLE` are entities, and of its pairs of spans relations.
    entities: float = 0.3
    relations: float = 0.5


def make(directory: Path, model_type: str, shape: Shape, seed: int = 0) -> None:
    """Write the archive of `model_type` and the encoder into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    if model_type == "modern-radgraph-xl":
        write_modern_encoder(directory / ENCODER, shape)
    else:
        write_encoder(directory / ENCODER, shape)
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / model_type
        (model / "vocabulary").mkdir(parents=True)
        (model / "config.json").write_text(json.dumps(configuration(ENCODER, shape)))
        write_vocabulary(model / "vocabulary", model_type)
        write_weights(model, model_type, directory / ENCODER, shape, seed)
        with tarfile.open(directory / f"{model_type}.tar.gz", "w:gz") as archive:
            for name in ("config.json", "vocabulary", "weights.th"):
                archive.add(model / name, arcname=name)


def write_encoder(directory: Path, shape: Shape) -> None:
    from transformers import BertConfig, BertTokenizerFast

    directory.mkdir(exist_ok=True)
    pieces = word_pieces()
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n")
    BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True).save_pretrained(directory)
    BertConfig(
        vocab_size=len(pieces),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(2, shape.hidden // 64),
        intermediate_size=(2 if shape.hidden < 256 else 4) * shape.hidden,
        max_position_embeddings=shape.window,
    ).save_pretrained(directory)


def write_modern_encoder(directory: Path, shape: Shape) -> None:
    """An encoder of the newest model's kind, whose tokenizer class is the general one."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import ModernBertConfig, PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(word_pieces())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    named = {f"{name}_token": piece for name, piece in names.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(directory)
    ModernBertConfig(
        vocab_size=len(vocabulary),
        hidden_size=shape.hidden,
        num_hidden_layers=3 * shape.layers,  # one of three looks at the whole text
        num_attention_heads=max(2, shape.hidden // 64),
        intermediate_size=2 * shape.hidden,
        max_position_embeddings=shape.window,
        local_attention=16,
        pad_token_id=0,
        cls_token_id=2,
        bos_token_id=2,
        sep_token_id=3,
        eos_token_id=3,
    ).save_pretrained(directory)


def word_pieces() -> list[str]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *WORDS.split()]
    return list(dict.fromkeys([*pieces, *(f"##{letter}" for letter in letters)]))


def configuration(encoder: str, shape: Shape) -> dict:
    bert = {"model_name": encoder, "max_length": shape.window}
    per_word = {"spans_per_word": 0.5}
    return {
        "dataset_reader": {
            "type": "dygie",
            "max_span_width": shape.span_width,
            "token_indexers": {"bert": {"type": "pretrained_transformer_mismatched", **bert}},
        },
        "model": {
            "type": "dygie",
            "embedder": {
                "token_embedders": {"bert": {"type": "pretrained_transformer_mismatched", **bert}}
            },
            "initializer": {"regexes": []},
            "module_initializer": {"regexes": []},
            "modules": {
                "coref": {**per_word, "max_antecedents": 5, "coref_prop": 0},
                "ner": {},
                "relation": per_word,
                "events": {
                    "trigger_spans_per_word": 0.3,
                    "argument_spans_per_word": 0.8,
                    "loss_weights": {"trigger": 1.0, "arguments": 1.0},
                },
            },
            "feature_size": 4,
            "max_span_width": shape.span_width,
            "target_task": "relation",
            "feedforward_params": {
                "num_layers": 1,
                "hidden_dims": 16 if shape.hidden < 256 else 150,
                "dropout": 0.4,
            },
            "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
        },
    }


def write_vocabulary(directory: Path, model_type: str) -> None:
    labels = {
        "ner_labels": ["", *LABELS[model_type]],
        "relation_labels": ["modify", "located_at", "suggestive_of"],
    }
    for name, values in labels.items():
        path = directory / f"{model_type}__{name}.txt"
        path.write_text("\n".join(values) + "\n")
    (directory / "non_padded_namespaces.txt").write_text("*labels\n*tags\n")


def write_weights(model: Path, model_type: str, encoder: Path, shape: Shape, seed: int) -> None:
    """Let the package build its own network, keep its random weights, and save them.

    The loader wants weights.th to be there already, so it is given one when it asks.
    """
    from radgraph import RadGraph
    from radgraph.dygie.models import dygie

    rewritten = configuration(str(encoder), shape)
    published = (model / "config.json").read_text()
    (model / "config.json").write_text(json.dumps(rewritten))
    load_state_dict = dygie.DyGIE.load_state_dict

    def keep_random(self: torch.nn.Module, *_: object, **__: object) -> None:
        for name, weight in self.state_dict().items():
            # Of its own: a longer window or more layers leave all other weights as they are.
            generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
            if not weight.is_floating_point():
                continue
            if weight.dim() == 1 and name.endswith(("norm.weight", "Norm.weight")):
                weight.fill_(1.0)
            elif name.endswith("bias"):
                weight.fill_(0.0)
            else:
                # Scores are then as large in a wide network as in a narrow one, and words differ.
                deviation = 0.5 * (16 / shape.hidden) ** 0.5
                if "transformer_model" in name and shape.hidden > 16:
                    deviation = 0.02  # as encoders begin their training
                weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)

    torch.save({}, model / "weights.th")
    dygie.DyGIE.load_state_dict = keep_random
    try:
        with contextlib.redirect_stdout(sys.stderr):
            network = RadGraph(model_type=model_type, model_cache_dir=str(model.parent), cuda=-1)
            set_biases(network, model_type, shape)
        torch.save(network.model.state_dict(), model / "weights.th")
    finally:
        dygie.DyGIE.load_state_dict = load_state_dict
        (model / "config.json").write_text(published)
    (model / "vocabulary" / ".lock").unlink(missing_ok=True)


@torch.no_grad()
def set_biases(network: torch.nn.Module, model_type: str, shape: Shape) -> None:
    """Lower the last biases until only a share of the spans and pairs of `SAMPLE` are anything."""
    ner, relation = network.model._ner, network.model._relation
    scores = {}

    def keep_entities(found: torch.Tensor, *rest: object) -> object:
        scores["_ner"] = found
        return type(ner).predict(ner, found, *rest)

    def keep_relations(*embeddings: torch.Tensor) -> torch.Tensor:
        scores["_relation"] = type(relation)._compute_relation_scores(relation, *embeddings)
        return scores["_relation"]

    ner.predict, relation._compute_relation_scores = keep_entities, keep_relations
    network([SAMPLE])
    outputs = {
        "_ner": ner._ner_scorers[f"{model_type}__ner_labels"][-1]._module,
        "_relation": relation._relation_scorers[f"{model_type}__relation_labels"],
    }
    shares = {"_ner": shape.entities, "_relation": shape.relations}
    for name, output in outputs.items():
        best = scores[name][..., 1:].max(dim=-1).values  # the first is that of nothing
        output.bias.fill_(-best.flatten().quantile(1 - shares[name]).item())


if __name__ == "__main__":
    directory, model_type, *size = [*sys.argv[1:], "radgraph-xl"][: max(2, len(sys.argv) - 1)]
    make(Path(directory), model_type, Shape(*(float(x) if "." in x else int(x) for x in size)))
