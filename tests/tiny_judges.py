"""Tiny weights with random values for judges, in the layout of the real ones.

Runs in the environment of the judges: python tests/tiny_judges.py FOLDER
"""

import sys
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
)

WORDS = "no there is a small large left right pleural effusion pneumonia edema normal chest . ,"
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}


def bert(folder: Path) -> BertConfig:
    """bert-base-uncased: configuration and tokenizer, whose weights CheXbert does not use."""
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(vocab_size=len(words), **TINY)
    config.save_pretrained(folder)
    return config


def chexbert(path: Path, config: BertConfig) -> None:
    """The published file's layout: model_state_dict with names behind "module."."""
    torch.manual_seed(0)
    state = {f"module.bert.{name}": value for name, value in BertModel(config).state_dict().items()}
    for head in range(14):
        classes = 2 if head == 13 else 4
        linear = torch.nn.Linear(config.hidden_size, classes)
        state |= {f"module.linear_heads.{head}.{k}": v for k, v in linear.state_dict().items()}
    # Random heads hardly tell texts apart.
    state = {k: 20 * v if "linear_heads" in k else v for k, v in state.items()}
    torch.save({"model_state_dict": state}, path)


def roberta(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    folder.mkdir()
    RobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(1)
    shape = TINY | {"num_hidden_layers": 6, "max_position_embeddings": 514}
    config = RobertaConfig(vocab_size=len(names), pad_token_id=1, bos_token_id=0, **shape)
    RobertaModel(config).save_pretrained(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    chexbert(target / "chexbert.pth", bert(target / "bert-base-uncased"))
    roberta(target / "distilroberta-base")
