"""Ranks on the processors of one machine, together: they share the weights, add gradients up in memory that all of them see, and each
updates its part. `bare.Engine` with the work and memory that ZeRO stage 1 saves (Rajbhandari et al. 2020), and nothing is sent.
`engine.build` takes it where all ranks can see each other's memory.

Every parameter is cut into equal parts, one a rank; a rank has moments of its own parts alone. In a step all ranks first have their
gradients, then each adds up and measures its parts, then each updates them, then all go on: at three points they wait for each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from models.optim import GroupPlan
from orchestration.training import shared, tables
from orchestration.training.bare import Engine, build_optimizer, rank
from orchestration.training.config import TrainConfig
from orchestration.training.fragments import Piece
from orchestration.training.reduction import NORM_PIECE, Reduction
from orchestration.training.tables import Table


@dataclass(frozen=True)
class Memory:
    """`weights`: one buffer for all. `gradients`: each rank's, with as much room again for rows of tables on their way."""

    weights: torch.Tensor
    gradients: list[torch.Tensor]


def memory(plan: list[GroupPlan], world: int) -> Memory | None:
    """Room for the trainable parameters of a plan; None where some rank cannot see all others' memory. Collective."""
    numel = sum(row.numel for row in plan if row.trainable)
    weights = shared.buffers(numel, world)
    gradients = shared.buffers(2 * numel, world) if weights else None  # pages that nobody touches take no memory
    return Memory(weights[0], gradients) if weights and gradients else None


class SharedEngine(Engine):
    """The bare engine for ranks of one machine: the same numbers, but for the order of sums."""

    def __init__(
        self,
        model: nn.Module,
        plan: list[GroupPlan],
        config: TrainConfig,
        device: torch.device,
        *,
        world: int,
        memory: Memory,
    ) -> None:
        self.memory, self.own = memory, memory.gradients[rank()]
        self.others = [one for number, one in enumerate(memory.gradients) if number != rank()]
        super().__init__(model, plan, config, device, world=world)

    def _reduction(self) -> Reduction | None:
        return None

    def _optimizer(self) -> torch.optim.Optimizer:
        """Of this rank's parts. The model's weights and gradients lie in the shared buffers from here on."""
        self.shared_tables = [] if self.config.compile else tables.take(self.model, self.clipped)
        widths = {id(table.weight): table.embedding_dim for table in self.shared_tables}
        self.parts, self.starts = dict[str, nn.Parameter](), dict[str, int]()
        self.dense, self.end = list[tuple[int, int]](), 0  # pieces of `own` that are this rank's to add up
        self.apart = list[tuple[int, int]]()  # where gradients lie that a step makes anew, tables left out
        for name in self.trainable:
            parameter, begin = self.parameters[name], self.end
            numel, width = parameter.numel(), widths.get(id(parameter), 1)  # rows of a table stay whole
            start, stop = (numel // width * (rank() + later) // self.world * width for later in (0, 1))
            self.end += numel
            if rank() == 0:
                self.memory.weights[begin : self.end].copy_(parameter.detach().flatten())
            parameter.data = self.memory.weights[begin : self.end].view_as(parameter)
            parameter.grad = self.own[begin : self.end].view_as(parameter)
            self.parts[name], self.starts[name] = nn.Parameter(parameter.data.view(-1)[start:stop]), start
            self.parts[name].grad = self.own[begin + start : begin + stop]
            if id(parameter) not in widths:
                cuts = range(begin + start, begin + stop, NORM_PIECE)
                self.dense += [(cut, min(begin + stop, cut + NORM_PIECE)) for cut in cuts]
                self.apart.append((begin, self.end))
        self._wait()  # rank 0's weights are there
        return build_optimizer(self.parts, self.rows, self.config)

    # ---------------------------------------------------------------------------------------------- computing

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self._scaled(self._marked(loss) / self.world).backward()

    def _update(self) -> None:
        self._add_up()
        super()._update()
        self._wait()  # the next forward pass reads all ranks' parts

    def _add_up(self) -> None:
        """This rank's parts of the gradients become sums over all ranks; `squares`: of all parts, for the norm."""
        staged = self._stage()
        self._wait()
        squares = 0.0
        for begin, end in self.dense:
            piece = self.own[begin:end]
            for other in self.others:
                piece += other[begin:end]
            squares += float(torch.dot(piece, piece))
        for table, rows, at in staged:
            mine = (rows >= self._first(table, rank())) & (rows < self._first(table, rank() + 1))
            numel = int(mine.sum()) * table.embedding_dim
            at += int((rows < self._first(table, rank())).sum()) * table.embedding_dim
            summed = self.own[at : at + numel]
            for other in self.others:
                summed += other[at : at + numel]
            squares += float(torch.dot(summed, summed))
            table.gradient.index_copy_(0, rows[mine], summed.view(-1, table.embedding_dim))
        self.staged, self.squares = staged, torch.tensor([squares], dtype=torch.float64)
        torch.distributed.all_reduce(self.squares)  # from here on nobody reads another rank's gradients

    def _stage(self) -> list[tuple[Table, torch.Tensor, int]]:
        """Each table, the rows of it that some rank touched, and where their gradients lie in every rank's buffer. When the last table's rows
        are known every rank has its gradients."""
        found, at = [], self.end
        for table in self.shared_tables:
            rows = table.rows()
            numel = len(rows) * table.embedding_dim
            torch.index_select(table.gradient, 0, rows, out=self.own[at : at + numel].view(len(rows), -1))
            found.append((table, rows, at))
            at += numel
        return found

    def _first(self, table: Table, rank: int) -> int:
        """The first of the table's rows that is this rank's."""
        return table.num_embeddings * rank // self.world

    def _total_norm(self) -> torch.Tensor:
        return self.squares.sqrt().float().squeeze()

    def _clear(self) -> None:
        for table, rows, _ in self.staged:
            table.gradient.index_fill_(0, rows, 0.0)
        for begin, end in self.apart:
            self.own[begin:end].zero_()

    def _wait(self) -> None:
        """Until all ranks are here. What they wrote before is seen after it."""
        torch.distributed.all_reduce(torch.zeros(1))

    # ---------------------------------------------------------------------------------------------- state

    def _held(self) -> list[Piece]:
        return [Piece(name, self.starts[name], part.numel(), part, 0) for name, part in self.parts.items() if len(part)]

    def _own(self) -> list[Piece]:
        return self._held()

    def _flats(self) -> list[tuple[torch.Tensor, list[str]]]:
        return [(part, [name]) for name, part in self.parts.items()]

    def _members(self) -> list[list[tuple[str, int]]]:
        names = {id(part): name for name, part in self.parts.items()}
        named = [
            [names.get(id(part), "(unknown parameter)") for part in group["params"]] for group in self.param_groups()
        ]
        return [[(n, self.parameters[n].numel() if n in self.parameters else 0) for n in group] for group in named]

    def close(self) -> None:
        tables.let_go(self.shared_tables)
        for parameter in self.clipped:
            parameter.grad = None
        super().close()
        self.parts.clear()
