"""Whether learning the rotation pays: SpinQuant (Liu et al. 2024, arXiv:2405.16406).

Takes the model, the calibration set and the evaluation reports of a finished run, and measures the
likelihood of the references with activations of 4 bits, one scale for each token, behind four
rotations: none; values and the input of down_proj only; those and the residual stream, by Hadamard
matrices (QuaRot, what `transform: hadamard` does); and the same with the stream's rotation learned.
Each with weights as they are and with weights plainly rounded to 4 bits.

The learned rotation starts at the Hadamard one and lowers the loss of the next token on the
calibration texts with rounded activations and weights as they are. The gradient passes through
rounding as if it were not there. Steps stay among the orthogonal matrices by the Cayley transform
(Li, Li and Todorovic 2020, arXiv:2002.01113, with SpinQuant's bound on their size).
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparing import CONFIDENCE, compared, table, with_interval
from measuring import REPOSITORY
from torch import Tensor, nn

from radquant import prompts
from radquant.checkpoints.loading import load_tokenizer
from radquant.cli import progress
from radquant.errors import UserError
from radquant.families.architectures import Architecture
from radquant.families.inspection import architecture_of, decoder_layers, head_dim_of, layer_linears
from radquant.files import read_json, read_table, write_json
from radquant.generation import batching, transformers_likelihood
from radquant.generation.prefix import run_prefix
from radquant.generation.stage import rows_of
from radquant.packed.grid import quantize
from radquant.quantization.rotated_embeddings import rotate_model
from radquant.quantization.rotation import plan_rotation
from radquant.runtime.activations import quantize_activations
from radquant.settings.precision import Activations
from radquant.settings.recipe import Recipe

ACTIVATIONS = Activations(bits=4)
WEIGHTS = Recipe(method="rtn", bits=4, group_size=64)
NONE, PARTS, HADAMARD, LEARNED = "none", "values, down_proj", "Hadamard", "learned"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("results", type=Path, help="of a finished run: its model, data and calibration set")
    add("--output", type=Path, required=True, metavar="JSON", help="figures")
    add("--steps", type=int, default=40, help="of the learned rotation (%(default)s)")
    add("--rate", type=float, default=1.5, help="its first step's size (%(default)s)")
    add("--batch", type=int, default=8, help="texts a step (%(default)s)")
    add("--reports", type=int, help="how many of the references (all)")
    add("--threads", type=int, default=1)
    return parser.parse_args()


def load_model(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def rotated(directory: Path, kind: str) -> tuple[Any, dict[str, nn.Linear]]:
    """The model behind one of the rotations, and its linear layers by name."""
    model = load_model(directory)
    architecture = architecture_of(model.config, model)
    if kind != NONE:
        rotation = plan_rotation(architecture, model.config, head_dim_of(model.config))
        if rotation.signs is None:
            raise UserError(f"{directory}: the residual stream of this model cannot be rotated")
        rotation = replace(rotation, signs=None) if kind == PARTS else rotation
        rotate_model(model, architecture, rotation)
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            # Made without a record for gradients, which only a copy can have.
            module.weight = nn.Parameter(module.weight.clone(), requires_grad=False)
    return model, linears_of(model, architecture)


def linears_of(model: Any, architecture: Architecture) -> dict[str, nn.Linear]:
    return {
        f"{architecture.decoder_layers}.{number}.{name}": linear
        for number, layer in enumerate(decoder_layers(model, architecture))
        for name, linear in layer_linears(layer, architecture).items()
    }


def round_inputs(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A forward hook that rounds a layer's input and lets gradients pass."""
    x = args[0]
    return (x + (quantize_activations(x.detach(), ACTIVATIONS) - x.detach()), *args[1:])


def round_weights(linears: Mapping[str, nn.Linear]) -> None:
    for linear in linears.values():
        linear.weight.copy_(quantize(linear.weight, WEIGHTS).dequantize())


# ------------------------------------------------------------------------------------- learning


def turned_weights(
    model: Any, linears: Mapping[str, nn.Linear], writers: tuple[str, ...], turn: Tensor
) -> dict[str, Tensor]:
    """The weights, by name, of a model whose residual stream is turned by [hidden, hidden]."""
    weights = {
        f"{name}.weight": turn.T @ linear.weight
        if name.endswith(tuple(f".{writer}" for writer in writers))
        else linear.weight @ turn
        for name, linear in linears.items()
    }
    names = {id(module): name for name, module in model.named_modules()}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        weights[f"{names[id(module)]}.weight"] = module.weight @ turn
    return weights


def cayley_step(turn: Tensor, gradient: Tensor, rate: float) -> Tensor:
    """One step down the gradient among the orthogonal matrices, all [n, n].

    With the skew-symmetric A of the gradient's part along the manifold, (I + a/2·A)⁻¹(I − a/2·A)·X
    is orthogonal for every step size a.
    """
    along = gradient @ turn.T
    skew = along - along.T
    size = min(rate, 1 / (float(skew.abs().sum(0).max()) + 1e-8))
    one = torch.eye(len(turn), dtype=turn.dtype)
    return torch.linalg.solve(one + size / 2 * skew, (one - size / 2 * skew) @ turn)


def batches_of(texts: list[list[int]], size: int, steps: int, pad: int) -> Iterator[Any]:
    """`steps` batches of texts, in another order every time all were seen: ids and mask."""
    generator = torch.Generator().manual_seed(0)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order += torch.randperm(len(texts), generator=generator).tolist()
        chosen, order = order[:size], order[size:]
        yield batching.pad_left([texts[i] for i in chosen], 0, pad, torch.device("cpu"))


def loss_of(model: Any, weights: dict[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
    """Mean NLL of the next token over all real ones but the first of each text."""
    logits = torch.func.functional_call(
        model, weights, kwargs={"input_ids": ids, "attention_mask": mask, "use_cache": False}
    ).logits
    wanted = (mask[:, 1:] & mask[:, :-1]).bool()
    scores = logits[:, :-1][wanted].log_softmax(-1)
    return -scores.gather(-1, ids[:, 1:][wanted][:, None]).mean()


def learn(
    model: Any, linears: dict[str, nn.Linear], texts: list[list[int]], pad: int, args: Any
) -> tuple[Tensor, list[float]]:
    """The rotation to apply on top of the model's own, [hidden, hidden], and each step's loss."""
    architecture = architecture_of(model.config, model)
    turn = torch.eye(model.config.hidden_size, dtype=torch.float64)
    losses = []
    batches = batches_of(texts, args.batch, args.steps, pad)
    for step, (ids, mask) in enumerate(progress(batches, "learning", args.steps, "steps")):
        now = turn.float().requires_grad_()
        loss = loss_of(model, turned_weights(model, linears, architecture.writers, now), ids, mask)
        (gradient,) = torch.autograd.grad(loss, now)
        turn = cayley_step(turn, gradient.double(), args.rate * (1 - step / args.steps))
        losses.append(float(loss))
        print(f"step {step + 1}: loss {float(loss):.4f}", file=sys.stderr)
    return turn.float(), losses


@torch.no_grad()
def turn_model(model: Any, linears: dict[str, nn.Linear], turn: Tensor) -> None:
    architecture = architecture_of(model.config, model)
    for name, weight in turned_weights(model, linears, architecture.writers, turn).items():
        model.get_parameter(name).copy_(weight)


# ------------------------------------------------------------------------------------ measuring


def references(
    results: Path, tokenizer: Any, count: int | None, seed: int | None = None
) -> list[prompts.Prompt]:
    """The prompts of a run's likelihood stage; seed: of its examples, the run's own for None."""
    config = read_json(results / "config.json")
    generation, target = config["generation"], config["task"]["target"]
    template = prompts.read_template(REPOSITORY / generation["prompt"], None)
    examples = prompts.draw_examples(
        rows_of(read_table(results / "data" / "train.csv")),
        prompts.columns_of(template),
        target,
        generation["examples"],
        generation["examples_max_words"],
        config["seed"] if seed is None else seed,
    )
    reports = rows_of(read_table(results / "data" / "eval.csv"))[:count]
    return [
        prompts.chat_prompt(tokenizer, template, row, examples, target, None, True)
        for row in reports
    ]


def nll_of(model: Any, made: list[prompts.Prompt], pad: int, name: str) -> np.ndarray:
    """The NLL of every reference, [reports] in nats."""
    plan = batching.plan_batches(made, 20)
    longest = max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made)
    nll = np.zeros(len(made))
    with torch.inference_mode():
        prefix = run_prefix(model, batching.shared_prefix(made), longest)
    for batch in progress(plan, name, len(plan), "batches"):
        nll[batch] = transformers_likelihood.answer_nll(
            model, [made[i] for i in batch], pad, prefix
        )
    return nll


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    directory = args.results / "models" / "original"
    tokenizer = load_tokenizer(directory)
    pad = tokenizer.pad_token_id
    made = references(args.results, tokenizer, args.reports)
    samples = read_table(args.results / "calibration" / "samples.parquet")
    texts = [list(map(int, ids)) for ids in samples["input_ids"]]
    nll = {"original": nll_of(load_model(directory), made, pad, "original")}
    losses: list[float] = []
    for kind in (NONE, PARTS, HADAMARD, LEARNED):
        model, linears = rotated(directory, HADAMARD if kind == LEARNED else kind)
        for linear in linears.values():
            linear.register_forward_pre_hook(round_inputs)
        if kind == LEARNED:
            turn, losses = learn(model, linears, texts, pad, args)
            turn_model(model, linears, turn)
        nll[f"W16A4, {kind}"] = nll_of(model, made, pad, f"W16A4 {kind}")
        round_weights(linears)
        nll[f"W4A4, {kind}"] = nll_of(model, made, pad, f"W4A4 {kind}")
    tokens = np.array([len(prompt.answer_ids) for prompt in made], dtype=np.float64)
    report(args, nll, tokens, losses)


def report(
    args: argparse.Namespace, nll: Mapping[str, np.ndarray], tokens: np.ndarray, losses: list[float]
) -> None:
    """Write the figures and print the table."""
    rows, figures = [], {}
    for name, found in nll.items():
        bits, _, kind = name.partition(", ")
        base = nll.get(f"{bits}, {HADAMARD}")
        over = None if base is None or kind == HADAMARD else compared(found, base, tokens)
        figures[name] = {"nll": float(found.sum() / tokens.sum()), "over_hadamard": over}
        rows.append([bits, kind, f"{figures[name]['nll']:.4f}", with_interval(over)])
    write_json(
        args.output,
        {"reports": len(tokens), "steps": args.steps, "losses": losses, "figures": figures},
    )
    print(f"{len(tokens)} references, {args.steps} steps of {args.batch} texts.\n")
    head = ["", "rotation", "NLL", f"over Hadamard ({CONFIDENCE:.0%})"]
    print(table(head, rows))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
