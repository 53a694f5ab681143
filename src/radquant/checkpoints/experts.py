"""The experts of a mixture as linear layers, which they are in the files.

transformers computes with all experts of a layer as two tensors of three dimensions. Linear layers
can be quantized and packed one by one, as serving engines read them.
"""

from typing import Any

import torch
from torch import Tensor, nn

from radquant.families.lookup import family_of


class Expert(nn.Module):
    """One expert: act(gate(x)) · up(x), and what reads that."""

    def __init__(self, width: int, inner: int, activation: Any) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.act_fn = activation

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return made


class Experts(nn.ModuleList):
    """The experts of a layer, called as transformers' own module is."""

    def forward(self, hidden_states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """hidden_states: [tokens, width]. chosen, weights: each token's experts, [tokens, k]."""
        result = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self):
            token, place = torch.where(chosen == number)
            if len(token):
                made = expert(hidden_states[token]) * weights[token, place, None]
                result.index_add_(0, token, made.to(result.dtype))
        return result


def experts_apart(config: Any) -> str:
    """Where a decoder layer has experts that are linear layers here; "": nowhere."""
    table = family_of(config.get_text_config().model_type).architecture
    return table.experts if table is not None else ""


def take_apart(model: nn.Module, path: str) -> None:
    """Put linear layers, on the meta device, in the place of each module of experts at `path`."""
    found = [name for name, _ in model.named_modules() if name.endswith(f".{path}")]
    for name in found:
        fused: Any = model.get_submodule(name)
        count, width, inner = fused.down_proj.shape
        with torch.device("meta"):
            apart = Experts(Expert(width, inner, fused.act_fn) for _ in range(count))
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, apart)
