"""Forward, backward, update with bare torch, and what every engine has in common. Takes a plain model, the planned table of
groups and the `train` part; gives the interface that the loop sees. Used as it is where every worker holds the whole state;
`zero.DeepSpeedEngine` overrides what ZeRO does otherwise.

Calls marked *collective* must be made by all ranks. Nothing here waits for a GPU, but for `snapshot` and, where batches may be left
out, `skipped` and LAMB's update."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from models import optimizers
from models.optim import GroupPlan
from models.state import NamedTensors, named_state
from orchestration.errors import UserError
from orchestration.training.config import TrainConfig
from orchestration.training.fragments import HostCopies, Piece, Snapshot, share
from orchestration.training.live import LiveGroup, compare
from orchestration.training.reduction import Reduction, total_norm
from orchestration.training.scaling import LossScale
from orchestration.training.tables import Tables, let_go

Read = Callable[[str, int, int], torch.Tensor]  # (tensor's name, start, stop) -> those elements of it, flattened


class Engine:
    """Bare torch on any number of workers; `stage` is None. fp32 weights; bf16 and fp16 are autocast."""

    stage: int | None = None

    def __init__(
        self, model: nn.Module, plan: list[GroupPlan], config: TrainConfig, device: torch.device, *, world: int = 1
    ) -> None:
        self.model, self.plan, self.config, self.device, self.world = model, plan, config, device, world
        self.rows = [row for row in plan if row.trainable]
        self.parameters = dict(model.named_parameters())
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.trainable = [name for row in self.rows for name in row.param_names]
        self.clipped = [self.parameters[name] for name in self.trainable]
        modules = ((module, list(module.parameters())) for module in model.modules())
        self.frozen_modules = [module for module, own in modules if own and not any(p.requires_grad for p in own)]
        self.moments = config.optimizer.moments
        self.optimizer = self._optimizer()
        self.host = HostCopies(device)
        self.skips = config.failures.not_finite == "skip"
        self.scaling = LossScale(device) if config.precision == "fp16" else None
        self.lost = torch.zeros((), dtype=torch.bool, device=device)  # a loss of this step is not finite on this rank
        self.left_out: torch.Tensor | bool = False  # the last update, for a loss or gradient that is not finite
        self.grad_norm: float | torch.Tensor | None = None  # of the last update, before clipping; None: not computed
        self.reduction = self._reduction()
        self.read: Callable[[Any], Any] = lambda output: output.logits  # a task may read more
        self.tables, self.touched = self._tables(), list[torch.Tensor]()
        self.train(True)

    # ---------------------------------------------------------------------------------------------- computing

    def forward(self, **inputs: torch.Tensor) -> Any:
        """Logits (`read` says what of the model's output they are); the inputs are what the model takes, by name. Collective under
        stage 3."""
        return self.read(
            self._forward(**{name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()})
        )

    def _forward(self, **inputs: torch.Tensor) -> Any:
        return self.model(**inputs)

    def train(self, mode: bool) -> None:
        """Switch dropout on or off. The frozen bottom of the model always runs without: its output for a row is one value."""
        self.model.train(mode)
        for module in self.frozen_modules:
            module.eval()

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the loss's gradients; `last` marks the step's last micro-batch, where ranks reduce. Collective."""
        if self.reduction and last:
            self.reduction.begin()
        self._scaled(self._marked(loss) / self.world).backward()  # ranks' sum is then their average

    def _marked(self, loss: torch.Tensor) -> torch.Tensor:
        """Where batches may be left out, a loss that is not finite makes gradients NaN, which the sum over ranks tells all of them: the
        factor is NaN then, and 1 for all other losses."""
        if not self.skips:
            return loss
        self.lost = self.lost | ~torch.isfinite(loss.detach())
        return loss * (loss.detach() * 0 + 1)

    def _scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self.scaling.scale if self.scaling else loss

    def update(self, factor: float) -> None:
        """Set every group's rate to its planned peak times `factor`, clip, take the optimizer's step, clear gradients. Collective."""
        self.set_factor(factor)
        self._update()

    def set_factor(self, factor: float) -> None:
        for group, row in zip(self.param_groups(), self.rows, strict=True):
            group["lr"] = row.lr * factor

    @property
    def skipped(self) -> bool:
        """Whether the last update was left out because a loss or gradient was not finite on some rank; all agree. Only with
        `failures.not_finite: skip`. What fp16 leaves out to find its loss scale does not count."""
        return self.skips and bool(self.left_out)

    def _update(self) -> None:
        if self.reduction:
            self.reduction.finish()
        self.touched = self.tables.touched()
        self._judge()
        self.optimizer.step()
        self._clear()

    def _clear(self) -> None:
        """Gradients of zero, or none."""
        if self.reduction:
            self.reduction.clear()
            return
        for parameter in self.clipped:
            if id(parameter) not in self.tables.own:
                parameter.grad = None
        self.tables.clear()

    def _judge(self) -> None:
        """What the optimizer's step is to do: divide gradients, that is clip and unscale them, or leave the update out. torch's fused
        optimizers do both in their one pass over the gradients, from numbers that stay on the device."""
        clip, scaling = self.config.clip_norm, self.scaling
        if clip is None and scaling is None and not self.skips:
            return
        scaled = self._total_norm()
        norm = scaled / scaling.scale if scaling else scaled
        divisor = None if clip is None else ((norm + 1e-6) / clip).clamp(min=1.0)  # as torch's own clipping
        if self.device.type == "cpu" and divisor is not None and divisor.item() == 1.0:
            divisor = None  # spares a pass over the gradients; on a GPU asking would cost more
        bad = ~torch.isfinite(scaled)
        if scaling:
            divisor = scaling.scale if divisor is None else divisor * scaling.scale
            norm = self._told_in_half(bad, norm)
        else:
            self.left_out = bad
        self.optimizer.grad_scale = divisor  # type: ignore[attr-defined]
        self.optimizer.found_inf = bad.float() if scaling or self.skips else None  # type: ignore[attr-defined]
        self.grad_norm = norm

    def _told_in_half(self, bad: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """In fp16 a gradient that overflowed is no failure as long as halving the scale can help: what is told then is the norm before.
        A loss that is not finite on any rank is one."""
        assert self.scaling is not None
        lost, self.lost = self.lost.float(), torch.zeros_like(self.lost)
        if self.skips and self.world > 1:
            torch.distributed.all_reduce(lost, op=torch.distributed.ReduceOp.MAX)
        self.left_out = bad & (self.scaling.lowest | (lost > 0))
        before = norm.new_zeros(()) if self.grad_norm is None else torch.as_tensor(self.grad_norm, device=norm.device)
        self.scaling.update(bad & ~(lost > 0))
        return torch.where(bad & ~self.left_out, before, norm)

    def _total_norm(self) -> torch.Tensor:
        """Of all gradients, summed over ranks."""
        if self.reduction:
            return total_norm(self.reduction.flats)
        dense = [p.grad for p in self.clipped if p.grad is not None and id(p) not in self.tables.own]
        return total_norm(dense + self.touched)

    def _tables(self) -> Tables:
        """Embeddings that note what a step touched; none where gradients of several ranks lie in buffers."""
        noted = self.world == 1 and not self.config.compile  # compiled code notes nothing
        return Tables(self.model, self.clipped if noted else [])

    def _optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.parameters, self.rows, self.config)

    def _reduction(self) -> Reduction | None:
        """How gradients of several ranks become one; None where nothing or someone else does it."""
        return Reduction(self.clipped) if self.world > 1 else None

    # ---------------------------------------------------------------------------------------------- planned and live

    def param_groups(self) -> list[dict[str, Any]]:
        """The running optimizer's own groups, one for each trainable row of the plan."""
        return self._client().param_groups

    def live_table(self) -> list[LiveGroup]:
        groups = zip(self.param_groups(), self._members(), strict=True)
        return [
            LiveGroup(float(g["lr"]), float(g["weight_decay"]), tuple(n for n, _ in m), sum(k for _, k in m))
            for g, m in groups
        ]

    def check(self, factor: float) -> None:
        """Compare the planned table, times `factor`, with the live optimizer. Raises PlanMismatchError naming group and values."""
        trainable = {name for name, parameter in self.parameters.items() if parameter.requires_grad}
        frozen = {name for row in self.plan for name in row.param_names} - trainable  # a trunk's are not held at all
        compare(self.plan, self.live_table(), factor=factor, frozen=frozen)

    def _members(self) -> list[list[tuple[str, int]]]:
        """(parameter name, elements) of each live group."""
        return [self._named(group["params"]) for group in self.param_groups()]

    def _named(self, parameters: Iterable[nn.Parameter]) -> list[tuple[str, int]]:
        """Elements of the whole parameter, also where ZeRO 3 left only a part of it here."""
        return [(self.names.get(id(p), "(unknown parameter)"), getattr(p, "ds_numel", p.numel())) for p in parameters]

    # ---------------------------------------------------------------------------------------------- state

    def make_room(self) -> None:
        """Host memory for `snapshot`, so that the first one takes no longer than the others. May run in another thread until then."""
        for piece in self._own():
            like_N = piece.of(piece.flat)
            for name in (piece.name, *(f"{piece.name}.{key}" for key in self.moments)):
                self.host.make_room(name, like_N)

    def snapshot(self) -> Snapshot:
        """This rank's part of the state, copied to host memory: valid until the next call. Not collective."""
        sizes = {name: size for members in self._members() for name, size in members}
        shapes = {name: tuple(_shape(self.parameters[name])) for name in sizes}
        shapes |= {f"{name}.{key}": shape for name, shape in shapes.items() for key in self.moments}
        weights, moments = [], []
        for piece in self._own():
            weights.append(self.host.fragment(piece.name, piece.start, piece.of(piece.flat)))
            state = self._state(piece.flat)
            for key in self.moments:
                moments.append(self.host.fragment(f"{piece.name}.{key}", piece.start, piece.of(state[key])))
        for name, buffer in named_state(self.model).items():
            if name not in self.parameters:
                shapes[name] = tuple(buffer.shape)
                weights += [self.host.fragment(name, 0, buffer.detach().reshape(-1))] if rank() == 0 else []
        self.host.wait()
        return Snapshot(weights, moments, shapes, self._steps(), self.scaling.dump() if self.scaling else {})

    def restore(self, read: Read, steps: dict[str, int], extra: dict[str, float]) -> None:
        """Take over moments, each rank only its ranges. A parameter that `steps` lacks was frozen until now: its moments are zero
        and its count of updates, which Adam's bias correction goes by, begins anew. Call before the first update."""
        with torch.no_grad():
            for flat, members in self._flats():
                counts = {steps.get(name, 0) for name in members}
                if len(counts) > 1:
                    raise RuntimeError(f"{members[0]} and others of its group have several counts of updates: {counts}")
                self._state(flat)["step"].fill_(float(counts.pop()))
            for piece in self._held():
                for key in self.moments if piece.name in steps else ():
                    values = read(f"{piece.name}.{key}", piece.start, piece.start + piece.numel)
                    piece.of(self._state(piece.flat)[key]).copy_(values)
        if self.scaling:
            self.scaling.load(extra)

    def _held(self) -> list[Piece]:
        """What this rank holds of the trainable parameters."""
        return [Piece(n, 0, self.parameters[n].numel(), self.parameters[n], 0) for n in self.trainable]

    def _own(self) -> list[Piece]:
        """What of it is this rank's to write: over all ranks, each element once."""
        parts = share({p.name: p.numel for p in self._held()}, rank=rank(), world=self.world)
        return [Piece(name, start, numel, self.parameters[name], start) for name, start, numel in parts]

    def _flats(self) -> list[tuple[torch.Tensor, list[str]]]:
        """The tensors that the optimizer has state of, and the names of the parameters in each."""
        return [(self.parameters[name], [name]) for name in self.trainable]

    def _state(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """AdamW's state of one tensor; before its first update, zeros."""
        state = self._client().state
        if flat not in state:
            step = torch.zeros((), dtype=torch.float32, device=flat.device)  # where the fused kernel wants it
            state[flat] = {"step": step, **{key: torch.zeros_like(flat.detach()) for key in self.moments}}
        found: dict[str, torch.Tensor] = state[flat]
        return found

    def _steps(self) -> dict[str, int]:
        flats = self._flats()
        counts = torch.stack([self._state(flat)["step"] for flat, _ in flats]).tolist()  # one copy from the device
        return {name: int(count) for (_, members), count in zip(flats, counts, strict=True) for name in members}

    def _client(self) -> torch.optim.Optimizer:
        """The torch optimizer that makes the updates."""
        return self.optimizer

    def close(self) -> None:
        """Free hooks, buffers and the model, so that another engine can be built in this process."""
        if self.reduction:
            self.reduction.close()
        let_go(self.tables.tables)
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()
        if isinstance(self.optimizer, optimizers.Lamb):
            self.optimizer.cut({})
        self.host.buffers.clear()
        self.reduction, self.clipped, self.frozen_modules = None, [], []
        self.model = nn.Module()
        self.parameters.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def build_optimizer(
    parameters: dict[str, nn.Parameter], rows: list[GroupPlan], config: TrainConfig
) -> torch.optim.Optimizer:
    """The spec's, with one group a trainable row."""
    chosen = config.optimizer
    return optimizers.build(
        chosen.name,
        parameters,
        rows,
        lr=chosen.lr,
        betas=(chosen.beta1, chosen.beta2),
        eps=chosen.eps,
        momentum=chosen.momentum,
        nesterov=chosen.nesterov,
    )


def load_weights(model: nn.Module, weights: NamedTensors, *, shown: str) -> None:
    """Copy named tensors into a plain model. Raises UserError where names or shapes differ from the model's."""
    own = named_state(model)
    wrong = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
    if wrong:
        raise UserError(f"{shown}: its weights are of another model; the first tensor that differs is {wrong[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)  # ZeRO 3 leaves only a part of it here
