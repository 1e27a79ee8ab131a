"""A memory of facts that a model of text looks into while it reads. Takes a model of a family in `TRUNKS` and a table of embedded facts; puts a
module in, in place, below the last layer. Called by `text.build`; `table` makes the table, once a base, for `orchestration.weights`.

A fact's key is the mean over its tokens of what enters the last layer of the pretrained encoder, as no training has changed it; a row's
query is the same mean of its own tokens. The facts with the largest cosine are attended by every token, as if they were more tokens (Fevry et
al. 2020, "Entities as Experts", look up one entity a mention; Verga et al. 2020, "Facts as Experts", look up triples), and what is read is
added through a gate. The last matrix begins at 0: an untrained memory changes nothing. Search is exact, one product with the whole table: a
batch of 32 against 150,000 facts takes some 4 GFLOP, less than one layer, and an index of approximate neighbours would add a
dependency and lose some of them.

Facts that a row must not see (`withheld`) are never among its neighbours. The module's parameters lie in the layer whose output it changes,
so depth groups, freezing, checkpoints and packages have them; the table lies beside the weights. B rows, L tokens, N facts, K
neighbours, W withheld facts, D width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.config import MemoryConfig, ModelConfig
from models.families import TRUNKS, ModelError, depth_names, unmemorable

FILE = "memory.npy"  # beside the weights: float16, three digits, which neighbours do not need more of
CHILD = "memory"
BATCH = 256  # facts embedded at once


class Memory(nn.Module):
    def __init__(self, width: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.gate, self.output = nn.Linear(width, 1), nn.Linear(width, width)
        for layer in (self.query, self.key, self.value, self.gate):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.eye_(self.value.weight)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("table_ND", torch.zeros(0, width), persistent=False)
        self.mask_BL: torch.Tensor | None = None
        self.withheld_BW: torch.Tensor | None = None

    def forward(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        scale = hidden_BLD.shape[-1] ** -0.5
        facts_BKD = (
            self.table_ND[self.nearest(hidden_BLD)].to(hidden_BLD.dtype) / scale
        )  # numbers as large as a token's
        score_BLK = self.query(hidden_BLD) @ self.key(facts_BKD).transpose(1, 2) * scale
        read_BLD = score_BLK.softmax(-1) @ self.value(facts_BKD)
        return hidden_BLD + torch.sigmoid(self.gate(hidden_BLD)) * self.output(read_BLD)

    @torch.no_grad()
    def nearest(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        """Numbers of the nearest facts (B, K), the nearest first."""
        score_BN = _mean(hidden_BLD.float(), self.mask_BL) @ self.table_ND.T
        if self.withheld_BW is not None:
            score_BN = _without(score_BN, self.withheld_BW)
        return score_BN.topk(min(self.neighbours, score_BN.shape[1])).indices

    def see(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.mask_BL = kwargs.get("attention_mask")

    def take(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.withheld_BW = kwargs.pop("withheld", None)
        return args, kwargs


def attach(model: nn.Module, folder: Path, config: MemoryConfig, *, seed: int) -> None:
    """What is random is drawn from `seed`. On the meta device, for plans, without the table. Raises ModelError for another family, and for a
    folder without the table."""
    settings: Any = model.config
    if why := unmemorable(str(settings.model_type)):
        raise ModelError(why)
    attribute, path = TRUNKS[settings.model_type]
    encoder = getattr(model, attribute)
    layers = encoder.get_submodule(path)
    if len(layers) < 2:
        raise ModelError(
            "model.memory: it stands below the last layer, and this model has one layer; give a deeper one"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        memory = Memory(settings.hidden_size, config.neighbours)
    if memory.gate.weight.device.type != "meta":
        memory.table_ND = _read(Path(folder) / FILE)
    below = layers[len(layers) - 2]
    below.add_module(CHILD, memory)
    below.register_forward_hook(_through)
    encoder.register_forward_pre_hook(memory.see, with_kwargs=True)
    model.register_forward_pre_hook(memory.take, with_kwargs=True)


def _through(layer: nn.Module, _: Any, output: Any) -> Any:
    memory = layer.get_submodule(CHILD)
    return (memory(output[0]), *output[1:]) if isinstance(output, tuple) else memory(output)


@torch.no_grad()
def table(folder: Path, rows: Sequence[Sequence[int]], pad_id: int) -> np.ndarray:
    """`(N, D)` float16 keys of length 1. `folder`: a pretrained encoder; `rows`: token ids of each fact's text."""
    from models.processing import collate
    from models.text import plain, quiet_transformers
    from models.trunk import trunk_output

    with quiet_transformers():
        model = plain(ModelConfig(path=str(folder)), folder, ["a", "b"]).eval()
    settings: Any = model.config
    depth = len(depth_names(settings.to_dict()) or ()) - 2  # all but the last layer and the head
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found_ND = np.empty((len(rows), settings.hidden_size), np.float16)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        ids_BL, mask_BL = collate([rows[row] for row in part], pad_id)
        found_ND[part] = _mean(trunk_output(model, depth, ids_BL, mask_BL), mask_BL).numpy()
    return found_ND


def _mean(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor | None) -> torch.Tensor:
    """Of length 1."""
    weight_BL1 = torch.ones_like(hidden_BLD[:, :, :1]) if mask_BL is None else mask_BL[:, :, None].to(hidden_BLD.dtype)
    return nn.functional.normalize((hidden_BLD * weight_BL1).sum(1), dim=-1)


def _without(score_BN: torch.Tensor, withheld_BW: torch.Tensor) -> torch.Tensor:
    """-1, for none, is a column of its own behind the last fact."""
    wide_BN1 = nn.functional.pad(score_BN, (0, 1))
    return wide_BN1.scatter(1, withheld_BW % wide_BN1.shape[1], float("-inf"))[:, :-1]


def _read(path: Path) -> torch.Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)).float()
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; a model with a memory has the table of its facts there") from None
