"""Make a RadGraph archive with random weights in the layout of the published ones.

    python tests/tiny_radgraph.py DIRECTORY [MODEL_TYPE]

writes DIRECTORY/MODEL_TYPE.tar.gz (config.json, vocabulary/, weights.th) and the text encoder's
folder DIRECTORY/tiny-encoder/. Run it in the environment of envs/radgraph.txt. The annotations of
this model mean nothing; the code that loads and runs it is the real one.
"""

import contextlib
import json
import sys
import tarfile
import tempfile
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


def make(directory: Path, model_type: str, seed: int = 0) -> None:
    """Write the archive of `model_type` and the encoder into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_encoder(directory / ENCODER)
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / model_type
        (model / "vocabulary").mkdir(parents=True)
        (model / "config.json").write_text(json.dumps(configuration(ENCODER)))
        write_vocabulary(model / "vocabulary", model_type)
        write_weights(model, model_type, directory / ENCODER, seed)
        with tarfile.open(directory / f"{model_type}.tar.gz", "w:gz") as archive:
            for name in ("config.json", "vocabulary", "weights.th"):
                archive.add(model / name, arcname=name)


def write_encoder(directory: Path) -> None:
    from transformers import BertConfig, BertTokenizerFast

    directory.mkdir(exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *WORDS.split()]
    pieces += [f"##{letter}" for letter in letters]
    (directory / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True).save_pretrained(directory)
    BertConfig(
        vocab_size=len(dict.fromkeys(pieces)),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    ).save_pretrained(directory)


def configuration(encoder: str) -> dict:
    bert = {"model_name": encoder, "max_length": 64}
    per_word = {"spans_per_word": 0.5}
    return {
        "dataset_reader": {
            "type": "dygie",
            "max_span_width": 3,
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
            "max_span_width": 3,
            "target_task": "relation",
            "feedforward_params": {"num_layers": 1, "hidden_dims": 16, "dropout": 0.4},
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


def write_weights(model: Path, model_type: str, encoder: Path, seed: int) -> None:
    """Let the package build its own network, keep its random weights, and save them.

    The loader wants weights.th to be there already, so it is given one when it asks.
    """
    from radgraph import RadGraph
    from radgraph.dygie.models import dygie

    rewritten = configuration(str(encoder))
    published = (model / "config.json").read_text()
    (model / "config.json").write_text(json.dumps(rewritten))
    load_state_dict = dygie.DyGIE.load_state_dict

    def keep_random(self: torch.nn.Module, *_: object, **__: object) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, weight in sorted(self.state_dict().items()):
            if not weight.is_floating_point():
                continue
            if "LayerNorm.weight" in name:
                weight.fill_(1.0)
            elif name.endswith("bias"):
                # Below zero, so that most spans are no entity and most pairs no relation.
                weight.fill_(-1.0 if is_output(name) else 0.0)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
        torch.save(self.state_dict(), model / "weights.th")

    torch.save({}, model / "weights.th")
    dygie.DyGIE.load_state_dict = keep_random
    try:
        with contextlib.redirect_stdout(sys.stderr):
            RadGraph(model_type=model_type, model_cache_dir=str(model.parent), cuda=-1)
    finally:
        dygie.DyGIE.load_state_dict = load_state_dict
        (model / "config.json").write_text(published)
    (model / "vocabulary" / ".lock").unlink(missing_ok=True)


def is_output(name: str) -> bool:
    return name.startswith(("_ner._ner_scorers", "_relation._relation_scorers")) and (
        "_linear_layers" not in name
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "radgraph-xl")
