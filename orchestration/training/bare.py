"""Forward, backward, update with bare torch, and what every engine has in common. Takes a plain model, the planned table of
groups and the `train` part; gives the interface that the loop sees. Used as it is for one worker; `engine.DeepSpeedEngine`
overrides what ZeRO does otherwise. State goes in and out as tensors named as in the model, whatever holds them.

Calls marked *collective* must be made by all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.optim import GroupPlan
from orchestration.errors import PlanMismatchError, UserError
from orchestration.training.config import TrainConfig
from orchestration.training.fragments import HostCopies, Piece, Snapshot, share

MOMENTS = ("exp_avg", "exp_avg_sq")
NamedTensors = dict[str, torch.Tensor]
Read = Callable[[str, int, int], torch.Tensor]  # (tensor's name, start, stop) -> those elements of it, flattened


@dataclass(frozen=True)
class LiveGroup:
    """What one parameter group of the running optimizer really holds."""

    lr: float
    weight_decay: float
    param_names: tuple[str, ...]
    numel: int


class Engine:
    """One worker, bare torch; `stage` is None. fp32 weights; bf16 is autocast."""

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
        self.optimizer = adamw(self.parameters, self.rows, config)
        self.grad_norm: float | torch.Tensor | None = None  # of the last update, before clipping; None: not computed
        self.host = HostCopies(device)
        self.train(True)

    # ---------------------------------------------------------------------------------------------- computing

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """`logits_BC` of what the feed's `Micro.inputs` holds. Collective under stage 3."""
        return self._forward(**{name: tensor.to(self.device) for name, tensor in inputs.items()}).logits

    def _forward(self, **inputs: torch.Tensor) -> Any:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(**inputs)

    def train(self, mode: bool) -> None:
        """Switch dropout on or off. The frozen bottom of the model always runs without: its output for a row is one value."""
        self.model.train(mode)
        for module in self.frozen_modules:
            module.eval()

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the loss's gradients; `last` marks the step's last micro-batch, where ranks reduce. Collective."""
        loss.backward()

    def update(self, factor: float) -> None:
        """Set every group's rate to its planned peak times `factor`, clip, take the optimizer's step, clear gradients. Collective."""
        self.set_factor(factor)
        self._update()

    def set_factor(self, factor: float) -> None:
        for group, row in zip(self.param_groups(), self.rows, strict=True):
            group["lr"] = row.lr * factor

    def _update(self) -> None:
        if self.config.clip_norm is not None:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(self.clipped, self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    # ---------------------------------------------------------------------------------------------- planned and live

    def param_groups(self) -> list[dict[str, Any]]:
        """The running optimizer's own groups, one for each trainable row of the plan."""
        return self.optimizer.param_groups

    def live_table(self) -> list[LiveGroup]:
        groups = zip(self.param_groups(), self._members(), strict=True)
        return [
            LiveGroup(float(g["lr"]), float(g["weight_decay"]), tuple(n for n, _ in m), sum(k for _, k in m))
            for g, m in groups
        ]

    def check(self, factor: float) -> None:
        """Compare the planned table, times `factor`, with the live optimizer. Raises PlanMismatchError naming group and values."""
        frozen = {name for name, parameter in self.parameters.items() if not parameter.requires_grad}
        compare(self.plan, self.live_table(), factor=factor, frozen=frozen)

    def _members(self) -> list[list[tuple[str, int]]]:
        """(parameter name, elements) of each live group."""
        return [self._named(group["params"]) for group in self.param_groups()]

    def _named(self, parameters: Iterable[nn.Parameter]) -> list[tuple[str, int]]:
        """Elements of the whole parameter, also where ZeRO 3 left only a part of it here."""
        return [(self.names.get(id(p), "(unknown parameter)"), getattr(p, "ds_numel", p.numel())) for p in parameters]

    # ---------------------------------------------------------------------------------------------- state

    def snapshot(self) -> Snapshot:
        """This rank's part of the state, copied to host memory: valid until the next call. Not collective."""
        sizes = {name: size for members in self._members() for name, size in members}
        shapes = {name: tuple(self._shape(self.parameters[name])) for name in sizes}
        shapes |= {f"{name}.{key}": shape for name, shape in shapes.items() for key in MOMENTS}
        weights, moments = [], []
        for piece in self._own():
            weights.append(self.host.fragment(piece.name, piece.start, piece.of(piece.flat)))
            state = self._state(piece.flat)
            moments += [self.host.fragment(f"{piece.name}.{key}", piece.start, piece.of(state[key])) for key in MOMENTS]
        for name, buffer in named_state(self.model).items():
            if name not in self.parameters:
                shapes[name] = tuple(buffer.shape)
                weights += [self.host.fragment(name, 0, buffer.detach().view(-1))] if rank() == 0 else []
        self.host.wait()
        return Snapshot(weights, moments, shapes, self._steps(), self._extra())

    def restore(self, read: Read, steps: dict[str, int], extra: dict[str, float]) -> None:
        """Take over moments, each rank only its ranges. A parameter that `steps` lacks was frozen until now: its moments are zero
        and its count of updates, which AdamW's bias correction goes by, begins anew. Call before the first update."""
        with torch.no_grad():
            for flat, members in self._flats():
                counts = {steps.get(name, 0) for name in members}
                if len(counts) > 1:
                    raise RuntimeError(
                        f"{members[0]} and others of its group have different counts of updates: {counts}"
                    )
                self._state(flat)["step"].fill_(float(counts.pop()))
            for piece in self._held():
                for key in MOMENTS if piece.name in steps else ():
                    values = read(f"{piece.name}.{key}", piece.start, piece.start + piece.numel)
                    piece.of(self._state(piece.flat)[key]).copy_(values)

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
            data = flat.detach()
            state[flat] = {"step": step, **{key: torch.zeros_like(data) for key in MOMENTS}}
        found: dict[str, torch.Tensor] = state[flat]
        return found

    def _client(self) -> torch.optim.Optimizer:
        """The torch optimizer that makes the updates."""
        return self.optimizer

    def _steps(self) -> dict[str, int]:
        flats = self._flats()
        counts = torch.stack([self._state(flat)["step"] for flat, _ in flats]).tolist()  # one copy from the device
        return {name: int(count) for (_, members), count in zip(flats, counts, strict=True) for name in members}

    def _extra(self) -> dict[str, float]:
        return {}

    def _shape(self, parameter: nn.Parameter) -> torch.Size:
        return getattr(parameter, "ds_shape", parameter.shape)  # ZeRO 3 leaves only a part of it here

    def weights(self) -> NamedTensors | None:
        """All parameters and persistent buffers on the CPU, on rank 0; None elsewhere. Collective."""
        return {name: tensor.detach().cpu() for name, tensor in named_state(self.model).items()}

    def optimizer_state(self) -> NamedTensors | None:
        """`{parameter}.exp_avg` and `{parameter}.exp_avg_sq` in the parameter's own shape, on rank 0; None elsewhere. Collective."""
        state = self.optimizer.state
        return {f"{n}.{key}": state[self.parameters[n]][key].detach().cpu() for n in self.trainable for key in MOMENTS}

    def load_optimizer_state(self, state: NamedTensors, *, steps: int) -> None:
        """The opposite, on every rank; `steps` is the number of updates behind the moments. Call before the first update."""
        for name in self.trainable:
            moments = {key: state[f"{name}.{key}"].to(self.device).clone() for key in MOMENTS}
            self.optimizer.state[self.parameters[name]] = {"step": torch.tensor(float(steps)), **moments}

    def close(self) -> None:
        """Free hooks and buffers."""


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def compare(plan: list[GroupPlan], live: list[LiveGroup], *, factor: float, frozen: set[str]) -> None:
    """Raises PlanMismatchError listing each group and value in which the live optimizer differs from the planned table."""
    rows = [row for row in plan if row.trainable]
    wrong = [] if len(rows) == len(live) else [f"planned {len(rows)} trainable groups, the optimizer has {len(live)}"]
    for row, group in zip(rows, live, strict=False):
        label = f"group {row.name} (weight decay {row.weight_decay:g})"
        for what, wanted, found in (
            ("learning rate", row.lr * factor, group.lr),
            ("weight decay", row.weight_decay, group.weight_decay),
            ("elements", row.numel, group.numel),
        ):
            if abs(wanted - found) > 1e-9 * max(abs(wanted), abs(found)):
                wrong.append(f"{label}: planned {what} {wanted:.9g}, live {found:.9g}")
        if set(row.param_names) != set(group.param_names):
            wrong.append(
                f"{label}: other parameters than planned, e.g. {min(set(row.param_names) ^ set(group.param_names))}"
            )
    for row in plan:
        if moved := [name for name in row.param_names if (name in frozen) == row.trainable]:
            state = "trainable" if row.trainable else "frozen"
            wrong.append(
                f"group {row.name}: planned {state}, but {moved[0]} is {'frozen' if row.trainable else 'trainable'}"
            )
    if wrong:
        raise PlanMismatchError(f"the live optimizer differs from the planned table: {'; '.join(wrong)}")


def adamw(parameters: dict[str, nn.Parameter], rows: list[GroupPlan], config: TrainConfig) -> torch.optim.AdamW:
    """Loshchilov and Hutter 2019; one group a trainable row. Fused: one pass over each tensor, on CPU too."""
    groups = [
        {"params": [parameters[n] for n in row.param_names], "lr": row.lr, "weight_decay": row.weight_decay}
        for row in rows
    ]
    chosen = config.optimizer
    return torch.optim.AdamW(groups, lr=chosen.lr, betas=(chosen.beta1, chosen.beta2), eps=chosen.eps, fused=True)


def named_state(model: nn.Module) -> NamedTensors:
    """Parameters (a tied one once, by its first name) and persistent buffers: what a checkpoint holds."""
    named: NamedTensors = dict(model.named_parameters())
    seen = {id(tensor) for tensor in named.values()}
    tied = {id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and id(tensor) not in tied:
            named[name] = tensor
    return named


def load_weights(model: nn.Module, weights: NamedTensors, *, shown: str) -> None:
    """Copy named tensors into a plain model. Raises UserError where names or shapes differ from the model's."""
    own = named_state(model)
    wrong = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
    if wrong:
        raise UserError(f"{shown}: its weights are of another model; the first tensor that differs is {wrong[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])
