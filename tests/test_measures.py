"""Measures with data or a model of their own: METEOR and BERTScore, and their place in a report."""

import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from explorer_reports import CONFIG, make_run
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from radquant.errors import UserError
from radquant.files import read_table, write_table
from radquant.reporting.collect import collect
from radquant.reporting.rulers import rulers
from radquant.reporting.rulers_section import rulers_section
from radquant.scoring.measures import bertscore, meteor, tables
from radquant.settings.run import BASELINES

ROOT = Path(__file__).parents[1]
WORDS = "[PAD] [UNK] [CLS] [SEP] small left right pleural effusion no edema mild nodule . acute"
PAIRS = [
    ("small left pleural effusion .", "small right pleural effusion ."),
    ("no acute edema .", "mild nodule . no effusion ."),
    ("mild edema .", "mild edema ."),
    ("no no no no no no no no no no no no no no no no no no", "small effusion ."),  # is cut
]
# What the package bert_score 0.3.13 gave for a model like this one was equal to 1e-6 as well.


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random BERT that takes 12 tokens."""
    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: number for number, word in enumerate(WORDS.split())}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=12, sep_token="[SEP]", **names
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(
        vocab_size=len(vocabulary),
        num_hidden_layers=3,
        max_position_embeddings=12,
        initializer_range=1.0,
        **size,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def plain_bertscore(folder, layer, reference, output):
    """By the paper's equations, one text and one token at a time."""
    model = BertModel.from_pretrained(folder).eval()
    vocabulary = {word: number for number, word in enumerate(WORDS.split())}

    def states(text):
        ids = [2, *(vocabulary[word] for word in text.split()[:10]), 3]
        with torch.no_grad():
            found = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
        return found.tolist()

    def cosine(one, other):
        product = sum(a * b for a, b in zip(one, other, strict=True))
        return product / math.hypot(*one) / math.hypot(*other)

    x, y = states(reference), states(output)
    precision = [max(cosine(b, a) for a in x) for b in y[1:-1]]
    recall = [max(cosine(a, b) for b in y) for a in x[1:-1]]
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return 2 * p * r / (p + r)


def test_bertscore_is_that_of_the_equations(encoder):
    loaded = bertscore.load({"directory": str(encoder), "layer": 2}, 1)
    found = [value for (value,) in loaded.measure(PAIRS)]
    assert found == pytest.approx([plain_bertscore(encoder, 2, *p) for p in PAIRS], abs=1e-5)
    assert max(found) <= 1
    last = bertscore.load({"directory": str(encoder), "layer": None}, 1)
    assert "layer 3" in last.identity
    assert next(last.measure(PAIRS))[0] == pytest.approx(
        plain_bertscore(encoder, 3, *PAIRS[0]), abs=1e-5
    )
    with pytest.raises(UserError, match=r"layer is 4, but the model in .* has 3 layers"):
        bertscore.load({"directory": str(encoder), "layer": 4}, 1)


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    """A dictionary in WordNet's format with one synset: heart and ticker are one thing."""
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "lexnames").write_text("00\tnoun.body\t1\n")
    for part in meteor.PARTS:
        for kind in ("index", "data"):
            (folder / f"{kind}.{part}").write_text("")
        (folder / f"{part}.exc").write_text("")
    (folder / "index.noun").write_text("heart n 1 0 1 0 00000000  \nticker n 1 0 1 0 00000000  \n")
    (folder / "data.noun").write_text("00000000 00 n 02 heart 0 ticker 0 000 | a pump  \n")
    return folder


def test_meteor_is_that_of_the_paper(wordnet):
    """By hand: the matches' weighted F, less nltk's penalty for the pieces they lie in."""
    loaded = meteor.load({"directory": str(wordnet)}, 1)
    pairs = [
        ("the heart is large", "the ticker is large"),  # all match, in one piece
        ("the heart is large", "the heart is small"),  # three of four, in one piece
        ("large heart", "heart large"),  # all match, in two pieces
        ("large heart", "clear lungs"),
        ("nodules", "nodule"),  # by stem
    ]
    expected = [1 - 0.5 / 4**3, 0.75 * (1 - 0.5 / 3**3), 1 - 0.5 * 1, 0, 1 - 0.5]
    assert [value for (value,) in loaded.measure(pairs)] == pytest.approx(expected, abs=1e-12)


def test_damaged_data_are_one_sentence(wordnet, tmp_path):
    for path in wordnet.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "lexnames").write_text("not WordNet's\n")
    with pytest.raises(UserError, match="take WordNet's published files"):
        meteor.load({"directory": str(tmp_path)}, 1)


@pytest.mark.parametrize(("measure", "file"), [(meteor, "lexnames"), (bertscore, "config.json")])
def test_a_folder_without_its_files_is_refused(measure, file, tmp_path):
    assert not measure.on({"directory": None})
    assert measure.on({"directory": str(tmp_path)})
    with pytest.raises(UserError, match=rf"directory is {tmp_path}, which has no {file}; name the"):
        measure.check({"directory": str(tmp_path)})


def run_script(folder, system, wordnet, monkeypatch):
    shards = sorted(map(str, (folder / "generations" / system).glob("*.parquet")))
    command = ["measure.py", "--measure", "meteor"]
    command += ["--eval", str(folder / "data/eval.csv"), "--target", "impression"]
    command += ["--meteor-directory", str(wordnet), "--generations", *shards]
    command += ["--output", str(folder / f"measures/meteor/{system}.parquet")]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(ROOT / "scripts/measure.py"))["main"]()


def test_a_measures_columns_join_the_rulers(wordnet, tmp_path, monkeypatch, capsys):
    precisions = {name: CONFIG["precisions"][name] for name in ("original", "w4a4")}
    config = CONFIG | {"precisions": precisions}
    folder = make_run(tmp_path / "results", config=config)
    config = config | {"scoring": config["scoring"] | {"meteor": {"directory": str(wordnet)}}}
    run_script(folder, "w4a4", wordnet, monkeypatch)
    assert "meteor 0." in capsys.readouterr().out
    loaded = meteor.load({"directory": str(wordnet)}, 1)
    for system in ("original", *BASELINES):
        shards = sorted((folder / "generations" / system).glob("*.parquet"))
        evaluation = folder / "data/eval.csv"
        made = tables.measured(meteor.ABOUT.columns, loaded, evaluation, "impression", shards)
        write_table(folder / f"measures/meteor/{system}.parquet", made)
    run = collect(folder, config)
    (row,) = [row for row in rulers(run, {}) if row["name"] == "meteor"]
    values = {
        system: read_table(folder / f"measures/meteor/{system}.parquet")["meteor"].mean()
        for system in ("original", "w4a4", *BASELINES)
    }
    assert row["systems"] == pytest.approx(values)
    difference = row["differences"]["w4a4"]
    assert difference["mean"] == pytest.approx(values["w4a4"] - values["original"])
    assert difference["interval"]["low"] < difference["mean"] < difference["interval"]["high"]
    quality = {
        **{"rulers": [row | {"annotations": True}, row], "measures": run.measures, "reports": 12},
        **{"precisions": run.precisions, "annotator": "toy", "settings": {"confidence": 0.95}},
    }
    text = " ".join(rulers_section(quality).split())
    assert f"METEOR was made with {loaded.identity}." in text

    path = folder / "measures/meteor/w4a4.parquet"
    table = read_table(path)
    for changed, message in (
        (table.assign(meteor=1.5), "'meteor': 12 value.* are not numbers from 0 to 1, first at id"),
        (table.assign(measure="other"), "made with another meteor than the original's table"),
        (table.assign(text_hash="0" * 64), "is of other texts; delete it and run again"),
    ):
        write_table(path, changed)
        with pytest.raises(UserError, match=message):
            collect(folder, config)
