"""A folder for engines.py's --results, with a model of 1 or 4 billion random weights.

    python benchmarks/engines_shapes.py --shape 1b --output shapes/1b
    python benchmarks/engines.py --results shapes/1b --work shapes/engines-1b --quick

after the README's first command, whose reports and tokenizer it takes. Random weights cost what
real ones do. Their perplexity means nothing, but that engines which compute the same agree on it.
The checkpoint's weights are rounded to the nearest, in AWQ's layout, and it has the name awq-w4.
All engines are in memory at once: of 4 billion weights, name some by --engines, and then others.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import script
from rehearsal_models import Shape, make_model

from radquant.cli import run
from radquant.errors import UserError

# The sizes that the config.json files of Llama 3.2 1B and Qwen3 4B state.
LLAMA = {
    **{"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64},
    **{"vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 131072},
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}
QWEN = {
    **{"hidden_size": 2560, "num_hidden_layers": 36, "intermediate_size": 9728},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
    **{"vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 40960},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}


def llama(_: int | None) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**LLAMA, architectures=["LlamaForCausalLM"], bos_token_id=1, eos_token_id=2)


def qwen(_: int | None) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**QWEN, architectures=["Qwen3ForCausalLM"], bos_token_id=1, eos_token_id=2)


CONFIGS = {"1b": llama, "4b": qwen}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shape", choices=CONFIGS, required=True, help="Llama 3.2 1B's, or Qwen3 4B's")
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--output", type=Path, required=True, help="the folder to make")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    original = args.results / "models" / "original"
    if not original.is_dir():
        raise UserError(f"{original} is not there; make it by the README's first command")

    def beside(directory: Path, _: Path | None) -> None:
        for name in ("tokenizer*", "chat_template*"):
            for file in original.glob(name):
                shutil.copy(file, directory)

    (args.output / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(args.results / "data" / "eval.csv", args.output / "data")
    made = args.output / "models" / "original"
    if not made.is_dir():
        make_model(Shape(CONFIGS[args.shape], (), beside, 1, 1.0, ""), made)
    checkpoint = args.output / "checkpoints" / "awq-w4"
    if checkpoint.is_dir():
        return
    options = ["--model", made, "--method", "rtn", "--bits", 4, "--group-size", 64]
    sys.exit(subprocess.run(script("quantize.py", *options, "--output", checkpoint)).returncode)


if __name__ == "__main__":
    run(main)
