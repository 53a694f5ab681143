"""Compare annotations with the radgraph package's own, text by text.

    python tests/compare_radgraph.py DIRECTORY OUTPUT

Run in the environment of envs/radgraph.txt. For each of the three models, with random weights made
in DIRECTORY, OUTPUT (JSON) says what was compared. It also says of how many texts the annotation
differs.
"""

import contextlib
import json
import random
import sys
from pathlib import Path

from tiny_radgraph import WORDS, Shape, make

from radquant.scoring import radgraph

ODD = ["12.5", "cm;", "(x)", "/.", "%).", "\\n", "\n", "肺", "😀", "\u200b", "Zygomatic", "a" * 90]
FIXED = [
    *("edema", ".", "no edema . no edema .", "\\n\\f", "\u200b", " \n "),
    "No pleural effusion.\nThe heart is normal in size (12.5 cm).\n\nNo pneumothorax.",
    "stable tube without pneumothorax of the right lung " * 30,  # many windows of the encoder
    "the heart is normal " * 15 + "the heart is",  # with [CLS] and [SEP] one piece too long
]


def some_texts(number: int, seed: int) -> list[str]:
    """Texts of all lengths, some of a single word, some longer than the encoder's window."""
    draw = random.Random(seed)
    words = [*WORDS.split(), *ODD]
    lengths = [draw.choice([1, 2, 5, 20, draw.randint(10, 60), 90]) for _ in range(number)]
    return FIXED + [" ".join(draw.choices(words, k=length)) for length in lengths]


def compare(directory: Path, model_type: str, texts: list[str]) -> dict[str, object]:
    # Many entities and relations, so that the spans that fill a shorter text's rows are some, too.
    make(directory, model_type, Shape(entities=0.5, relations=0.5))
    annotator = radgraph.load(model_type, str(directory))
    found = dict(annotator.annotate(list(dict.fromkeys(texts))))
    package = load_the_package(directory, model_type)
    expected = {text: package([text])["0"] for text in dict.fromkeys(texts) if found[text]["text"]}
    different = [
        text
        for text, own in expected.items()
        if found[text] != {"text": own["text"], "entities": own["entities"]}
    ]
    entities = [entity for own in expected.values() for entity in own["entities"].values()]
    return {
        "texts": len(expected),
        "different": len(different),
        "blank": sorted(set(found) - set(expected)),
        "entities": len(entities),
        "relations": sum(len(entity["relations"]) for entity in entities),
    }


def load_the_package(directory: Path, model_type: str) -> object:
    """The package by itself: another network, as its users load it."""
    from radgraph import RadGraph
    from radgraph.allennlp.common import cached_transformers

    cached_transformers._model_cache.clear()
    cached_transformers._tokenizer_cache.clear()
    with contextlib.ExitStack() as stack:
        model = radgraph._from_directory(model_type, directory, stack)
        encoder = radgraph._encoder(model, directory)
        cache = radgraph._working_copy(model, model_type, encoder, stack)
        return RadGraph(model_type=model_type, model_cache_dir=str(cache), cuda=-1)


if __name__ == "__main__":
    results = {}
    for name in ("radgraph", "radgraph-xl", "modern-radgraph-xl"):
        results[name] = compare(Path(sys.argv[1]) / name, name, some_texts(60, seed=len(name)))
    Path(sys.argv[2]).write_text(json.dumps(results))
