"""What images in the calibration set are worth: text alone, images too, and images weighted.

The model is Gemma 3 270M with a small random vision tower before it, whose features are scaled to
the size of embedded tokens. What it writes means nothing of an image, and images are random, too.
But its language layers are a real model's, and they read images as MedGemma's do. Measured is the
loss on the reports' own tokens behind an image, beside the original's.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from comparing import table
from gemma import make_gemma
from measuring import measured, script
from PIL import Image
from quantization import difference
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    SiglipVisionConfig,
)

from radquant.files import read_table, write_table, write_text

PROMPT = "Describe this chest X-ray."
SIZE, PATCH, TOKENS = 112, 14, 16  # pixels, pixels of a patch, tokens of an image
SPECIAL = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{% if turn['content'] is string %}"
    "{{ turn['content'] }}{% else %}{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}"
)
# Options of scripts/calibration_set.py; images are shown where an image root is named.
SETS: dict[str, list[str] | None] = {
    "text alone": None,
    "image and text": [],
    "image at 1/4": ["--image-weight", "0.25"],
    "image at 1/16": ["--image-weight", "0.0625"],
    "image seen, weight 0": ["--image-weight", "0"],
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--work", type=Path, default=Path("benchmarks/calibration-images"), help="%(default)s")
    add("--gemma", type=Path, help="Gemma 3 270M, if it is there already")
    add("--samples", type=int, default=64, help="calibration reports (%(default)s)")
    add("--reports", type=int, default=60, help="held-out reports (%(default)s)")
    add("--methods", nargs="+", default=["awq", "gptq"], help="%(default)s")
    add("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    return parser.parse_args()


@torch.no_grad()
def make_model(gemma: Path, output: Path) -> None:
    """Gemma 3 270M behind a random vision tower, with its processor."""
    from transformers import AutoModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(gemma, extra_special_tokens=SPECIAL)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    text = AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.bfloat16)
    vision = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config=text.config.to_dict() | {"vocab_size": len(tokenizer)},
        vision_config=vision.to_dict(),
        mm_tokens_per_image=TOKENS,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
    )
    text.resize_token_embeddings(len(tokenizer))
    model = Gemma3ForConditionalGeneration(config).to(torch.bfloat16)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.tie_weights()
    width = text.config.hidden_size
    embeddings = text.get_input_embeddings().weight[:1000].float() * width**0.5
    projector = model.model.multi_modal_projector
    torch.nn.init.normal_(projector.mm_input_projection_weight)
    seen = model.model.get_image_features(
        torch.randn(4, 3, SIZE, SIZE, dtype=torch.bfloat16), return_dict=True
    ).pooler_output.float()
    ratio = embeddings.norm(dim=-1).mean() / seen.norm(dim=-1).mean()
    projector.mm_input_projection_weight *= ratio.to(torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(output)
    pixels = Gemma3ImageProcessorPil(size={"height": SIZE, "width": SIZE})
    processor = Gemma3Processor(
        image_processor=pixels,
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
        image_seq_length=TOKENS,
    )
    processor.save_pretrained(output)


def make_reports(args: argparse.Namespace) -> None:
    """train.csv and eval.csv with a random image for each report."""
    train = read_table(args.results / "data" / "train.csv").sample(frac=1, random_state=0)
    train = train[train["findings"].str.strip() != ""].iloc[: 2 * args.samples + args.reports]
    (args.work / "images").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    names = [f"{n}.png" for n in range(len(train))]
    for name in names:
        coarse = random.integers(0, 256, (8, 8), dtype=np.uint8)  # light and dark areas
        Image.fromarray(coarse).resize((SIZE, SIZE)).save(args.work / "images" / name)
    train = train.assign(images=names)
    write_table(args.work / "eval.csv", train.iloc[: args.reports])
    write_table(args.work / "train.csv", train.iloc[args.reports :])


def encode(args: argparse.Namespace, reports: Path, features: Path) -> None:
    shard = features / "shard-1-of-1"
    named = ["--reports", reports, "--image-root", args.work / "images", "--dtype", "bfloat16"]
    named += ["--output", shard.with_suffix(".parquet"), "--metrics", shard.with_suffix(".json")]
    measured(script("encode_images.py", "--model", args.work / "model", *named))


def calibration(args: argparse.Namespace, name: str) -> list[Any]:
    """Make a calibration set; the options that hand it to quantize.py."""
    folder = args.work / name.replace(" ", "-").replace("/", "-").replace(",", "")
    samples, more = folder.with_suffix(".parquet"), SETS[name]
    shown: list[Any] = []
    if more is not None:
        shown = ["--image-root", args.work / "images", *more]
        shown += ["--images-output", args.work / "shown.csv"]
    named = ["--train", args.work / "train.csv", "--prompt-text", PROMPT, "--with-images"]
    named += ["--target", "findings", "--samples", args.samples, *shown]
    named += ["--output", samples, "--record", folder.with_suffix(".json")]
    measured(script("calibration_set.py", "--model", args.work / "model", *named))
    if more is None:
        return ["--calibration", samples]
    features = args.work / "features"
    encode(args, args.work / "shown.csv", features)
    return ["--calibration", samples, "--features", features]


def likelihood(args: argparse.Namespace, model: Path, name: str) -> pd.DataFrame:
    """Nats and tokens of each held-out reference behind its image, by a model or checkpoint."""
    output = args.work / f"{name}.nll.parquet"
    if not output.is_file():
        named: list[Any] = ["--model", model, "--precision", "p", "--target", "findings"]
        named += ["--train", args.work / "train.csv", "--eval", args.work / "eval.csv"]
        named += ["--prompt-text", PROMPT, "--examples", 0, "--image-root", args.work / "images"]
        named += ["--features", args.work / "evaluation", "--dtype", "bfloat16"]
        named += ["--output", output, "--metrics", output.with_suffix(".json")]
        measured(script("likelihood.py", *named), args.threads)
    return read_table(output).set_index("id")


def row(name: str, found: pd.DataFrame, original: pd.DataFrame) -> list[str]:
    original = original.loc[found.index]
    both = [each["nll"].to_numpy() for each in (found, original)]
    tokens = found["tokens"].to_numpy()
    interval = difference(np.array([both[0], tokens]), np.array([both[1], tokens]))
    return [name, f"{np.exp(both[0].sum() / tokens.sum()):.2f}", interval]


def main() -> None:
    args = parse_arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    gemma = args.gemma or args.work / "gemma3-270m"
    if not gemma.is_dir():
        make_gemma(gemma, args.work)
    if not (args.work / "model").is_dir():
        make_model(gemma, args.work / "model")
        make_reports(args)
        encode(args, args.work / "eval.csv", args.work / "evaluation")
    original = likelihood(args, args.work / "model", "original")
    rows = [[*row("original", original, original)[:2], "–"]]
    for method in args.methods:
        for name in SETS:
            output = args.work / f"{method}-{list(SETS).index(name)}"
            if not output.is_dir():
                given = calibration(args, name)
                recipe = ["--method", method, "--bits", 4, "--group-size", 64]
                recipe += ["--threads", args.threads, "--output", output]
                named = ["--model", args.work / "model", *given, *recipe]
                measured(script("quantize.py", *named), args.threads)
            found = likelihood(args, output, output.name)
            rows.append(row(f"{method.upper()}, {name}", found, original))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["calibrated on", "perplexity", "nats/token over the original (95 %)"]
    text = f"{len(original)} held-out reports, {args.samples} samples.\n\n{table(head, rows)}\n"
    write_text(args.work / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
