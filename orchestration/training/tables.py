"""Gradients of embedding tables, of which a step touches a few rows. Takes a model and its trainable parameters; gives
`Table`s, whose rows alone are summed over ranks, measured and set back to zero. Engines use them, on CPUs: MiniLM's table is 47 of its 91 MB
of gradients, and a batch of 1,200 tokens touches 3% of its rows.

What the backward pass adds goes straight into the parameter's gradient, which must lie there, zero in all rows that were not touched:
no table of zeros is made for each micro-batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

WORTH = 2**20  # elements: below that a dense sum takes under a millisecond


class Table(nn.Embedding):
    """An embedding that notes which rows its backward passes touched."""

    touched: list[torch.Tensor]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.weight.grad is None or not torch.is_grad_enabled():
            return super().forward(input)
        found: torch.Tensor = _Lookup.apply(self.weight, input, self)
        return found

    def rows(self) -> torch.Tensor:
        """Numbers of the rows that some rank touched, ascending, the same on every rank; then none are noted. Collective where there are
        several."""
        mask = torch.zeros(self.num_embeddings, dtype=torch.uint8)
        for ids in self.touched:
            mask[ids] = 1
        self.touched.clear()
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(mask, op=torch.distributed.ReduceOp.MAX)
        return mask.nonzero().squeeze(1)

    @property
    def gradient(self) -> torch.Tensor:
        assert self.weight.grad is not None
        return self.weight.grad


class Tables:
    """Those of one rank alone: their gradients lie here from step to step."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter]) -> None:
        self.tables = take(model, parameters)
        self.own = {id(table.weight) for table in self.tables}
        self.rows = list[torch.Tensor]()
        for table in self.tables:
            table.weight.grad = torch.zeros_like(table.weight)

    def touched(self) -> list[torch.Tensor]:
        """The gradients of the rows that this step touched, for the norm."""
        self.rows = [table.rows() for table in self.tables]
        return [table.gradient.index_select(0, rows) for table, rows in zip(self.tables, self.rows, strict=True)]

    def clear(self) -> None:
        for table, rows in zip(self.tables, self.rows, strict=True):
            table.gradient.index_fill_(0, rows, 0.0)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor, table: Table) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.table = table
        return functional.embedding(ids, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, None, None]:
        table: Table = ctx.table
        (ids,) = ctx.saved_tensors
        ids, grad = ids.flatten(), grad.flatten(0, -2)
        if table.padding_idx is not None:
            kept = ids != table.padding_idx
            ids, grad = ids[kept], grad[kept]
        table.gradient.index_add_(0, ids, grad)
        table.touched.append(ids)
        return None, None, None


def take(model: nn.Module, parameters: list[nn.Parameter]) -> list[Table]:
    """The large embeddings of the model that are among the parameters and are nothing else besides: one that is also the output layer
    gets a gradient in all rows."""
    uses: dict[int, int] = {}
    for module in model.modules():
        for own in module._parameters.values():
            uses[id(own)] = uses.get(id(own), 0) + 1
    known = {id(parameter) for parameter in parameters}
    found = []
    for module in model.modules():
        if type(module) is nn.Embedding and id(module.weight) in known and uses[id(module.weight)] == 1:
            plain = module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
            if plain and module.weight.numel() >= WORTH and module.weight.device.type == "cpu":
                module.__class__ = Table
                module.touched = []  # type: ignore[assignment]
                found.append(module)
    return found  # type: ignore[return-value]


def let_go(tables: list[Table]) -> None:
    """They are ordinary embeddings again."""
    for table in tables:
        table.__class__ = nn.Embedding  # type: ignore[assignment]
        del table.touched
