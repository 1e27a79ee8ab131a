"""Forward, backward, update: the only file that knows DeepSpeed. Takes a plain model, the planned table of groups and the
`train` part; gives an Engine: DeepSpeed ZeRO 0-3, or bare torch for one worker where the spec leaves the stage to us (no
DeepSpeed import: it costs 3 to 5 s of start-up and wins nothing there). The loop calls it; it knows no data, no schedule and
no files. State goes in and out as tensors named as in the model, whatever the stage and world size that hold them.

On CPU nothing is compiled: DeepSpeed's compatible ops are cleared before its engine is built, so no compiler is needed.
Calls marked *collective* must be made by all ranks."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.optim import GroupPlan, apply_freeze
from orchestration.errors import PlanMismatchError, UserError
from orchestration.training.config import TrainConfig
from orchestration.training.memory import lowest_stage

MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET_NUMEL = 50_000_000  # elements reduced at once; DeepSpeed's default of 5e8 reserves 2 GB a worker
NamedTensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LiveGroup:
    """What one parameter group of the running optimizer really holds."""

    lr: float
    weight_decay: float
    param_names: tuple[str, ...]
    numel: int


def build(model: nn.Module, plan: list[GroupPlan], config: TrainConfig, *, world: int, device: torch.device) -> Engine:
    """Freeze as planned and wrap the model. Collective. The model already lies in fp32 with its starting weights."""
    apply_freeze(model, plan)
    model.to(device)
    chosen = config.zero.stage
    if chosen == "auto" and world == 1:
        return PlainEngine(model, plan, config, device)
    stage = _auto_stage(plan, world, device) if chosen == "auto" else chosen
    return DeepSpeedEngine(model, plan, config, device, stage=stage, world=world)


def preload(config: TrainConfig, world: int) -> None:
    """Import what `build` and the model will need, so that its seconds can be told apart."""
    from transformers import AutoModelForSequenceClassification  # noqa: F401

    if config.zero.stage != "auto" or world > 1:
        _deepspeed()


def load_weights(model: nn.Module, weights: NamedTensors, *, shown: str) -> None:
    """Copy named tensors into a plain model. Raises UserError where names or shapes differ from the model's."""
    own = named_state(model)
    wrong = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
    if wrong:
        raise UserError(f"{shown}: its weights are of another model; the first tensor that differs is {wrong[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


class Engine:
    """What the loop sees. `stage` is None for bare torch."""

    stage: int | None = None

    def __init__(self, model: nn.Module, plan: list[GroupPlan], config: TrainConfig, device: torch.device) -> None:
        self.model, self.plan, self.config, self.device = model, plan, config, device
        self.rows = [row for row in plan if row.trainable]
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.parameters = dict(model.named_parameters())
        self.trainable = [name for row in self.rows for name in row.param_names]
        self.frozen_modules = [
            m for m in model.modules() if (own := list(m.parameters())) and not any(p.requires_grad for p in own)
        ]
        self.train(True)
        self.grad_norm: float | torch.Tensor | None = (
            None  # of the last update, before clipping; None where not computed
        )

    # what the two engines do differently
    def _forward(self, **inputs: torch.Tensor) -> Any:
        raise NotImplementedError

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the loss's gradients; `last` marks the step's last micro-batch, where ranks reduce. Collective."""
        raise NotImplementedError

    def _update(self) -> None:
        raise NotImplementedError

    def param_groups(self) -> list[dict[str, Any]]:
        """The running optimizer's own groups, one for each trainable row of the plan."""
        raise NotImplementedError

    def _members(self) -> list[list[tuple[str, int]]]:
        raise NotImplementedError

    # the same for both
    def forward(self, input_ids_BL: torch.Tensor, attention_mask_BL: torch.Tensor) -> torch.Tensor:
        """`logits_BC`. Collective under stage 3."""
        inputs = {"input_ids": input_ids_BL.to(self.device), "attention_mask": attention_mask_BL.to(self.device)}
        return self._forward(**inputs).logits

    def train(self, mode: bool) -> None:
        """Switch dropout on or off. The frozen bottom of the model always runs without: its output for a row is one value."""
        self.model.train(mode)
        for module in self.frozen_modules:
            module.eval()

    def update(self, factor: float) -> None:
        """Set every group's rate to its planned peak times `factor`, clip, take the optimizer's step, clear gradients. Collective."""
        self.set_factor(factor)
        self._update()

    def set_factor(self, factor: float) -> None:
        for group, row in zip(self.param_groups(), self.rows, strict=True):
            group["lr"] = row.lr * factor

    def live_table(self) -> list[LiveGroup]:
        groups = zip(self.param_groups(), self._members(), strict=True)
        return [
            LiveGroup(float(g["lr"]), float(g["weight_decay"]), tuple(n for n, _ in m), sum(k for _, k in m))
            for g, m in groups
        ]

    def check(self, factor: float) -> None:
        """Compare the planned table, times `factor`, with the live optimizer. Raises PlanMismatchError naming group and values."""
        compare(
            self.plan,
            self.live_table(),
            factor=factor,
            frozen={n for n, p in self.parameters.items() if not p.requires_grad},
        )

    def weights(self) -> NamedTensors | None:
        """All parameters and persistent buffers on the CPU, on rank 0; None elsewhere. Collective."""
        return {name: tensor.detach().cpu() for name, tensor in named_state(self.model).items()}

    def optimizer_state(self) -> NamedTensors | None:
        """`{parameter}.exp_avg` and `{parameter}.exp_avg_sq` in the parameter's own shape, on rank 0; None elsewhere. Collective."""
        raise NotImplementedError

    def load_optimizer_state(self, state: NamedTensors, *, steps: int) -> None:
        """The opposite, on every rank; `steps` is the number of updates behind the moments. Call before the first update."""
        raise NotImplementedError

    def close(self) -> None:
        """Free hooks and buffers."""


class PlainEngine(Engine):
    """One worker, bare torch."""

    def __init__(self, model: nn.Module, plan: list[GroupPlan], config: TrainConfig, device: torch.device) -> None:
        super().__init__(model, plan, config, device)
        self.optimizer = adamw(self.parameters, self.rows, config)
        self.clipped = [self.parameters[name] for name in self.trainable]

    def _forward(self, **inputs: torch.Tensor) -> Any:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(**inputs)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        loss.backward()

    def _update(self) -> None:
        if self.config.clip_norm is not None:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(self.clipped, self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def _members(self) -> list[list[tuple[str, int]]]:
        return [self._named(group["params"]) for group in self.param_groups()]

    def _named(self, parameters: Iterable[nn.Parameter]) -> list[tuple[str, int]]:
        return [(self.names.get(id(p), "(unknown parameter)"), getattr(p, "ds_numel", p.numel())) for p in parameters]

    def optimizer_state(self) -> NamedTensors | None:
        state = self.optimizer.state
        return {f"{n}.{key}": state[self.parameters[n]][key].detach().cpu() for n in self.trainable for key in MOMENTS}

    def load_optimizer_state(self, state: NamedTensors, *, steps: int) -> None:
        for name in self.trainable:
            moments = {key: state[f"{name}.{key}"].to(self.device).clone() for key in MOMENTS}
            self.optimizer.state[self.parameters[name]] = {"step": torch.tensor(float(steps)), **moments}


class DeepSpeedEngine(PlainEngine):
    """DeepSpeed over an already initialised process group. fp32 weights at every stage; bf16 is DeepSpeed's autocast."""

    def __init__(
        self,
        model: nn.Module,
        plan: list[GroupPlan],
        config: TrainConfig,
        device: torch.device,
        *,
        stage: int,
        world: int,
    ) -> None:
        super().__init__(model, plan, config, device)
        self.stage = stage
        deepspeed = _deepspeed()
        os.environ.setdefault("LOCAL_RANK", str(device.index or 0))  # DeepSpeed asks for its launcher's variable
        if device.type == "cpu":
            deepspeed.ops.__compatible_ops__.clear()  # else the first start compiles for 60 s and needs g++ and ninja
        self.engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=self.optimizer,
            config=_deepspeed_config(config, stage=stage, world=world),
            dist_init_required=False,
        )
        self.gathered = deepspeed.zero.GatheredParameters

    def _forward(self, **inputs: torch.Tensor) -> Any:
        return self.engine(**inputs)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss, scale_wrt_gas=False)

    def _update(self) -> None:
        if self.stage == 0 and self.config.clip_norm is not None:  # DeepSpeed would clip alike, but not tell the norm
            self.grad_norm = torch.nn.utils.clip_grad_norm_(self.clipped, self.config.clip_norm)
        self.engine.step()
        if self.stage:
            self.grad_norm = self.engine.get_global_grad_norm()

    def param_groups(self) -> list[dict[str, Any]]:
        return self._client().param_groups

    def _client(self) -> torch.optim.Optimizer:
        """The torch optimizer inside; under ZeRO its parameters are flat parts of the groups."""
        return self.engine.optimizer.optimizer if self.stage else self.engine.optimizer

    def _members(self) -> list[list[tuple[str, int]]]:
        zero = self.engine.optimizer
        if self.stage == 0:
            return super()._members()
        if self.stage in (1, 2):
            return [self._named(group) for group in zero.bit16_groups]
        members: list[list[tuple[str, int]]] = [[] for _ in self.param_groups()]
        for sub_group, parameters in enumerate(zero.fp16_groups):
            members[zero.sub_group_to_group_id[sub_group]] += self._named(parameters)
        return members

    def weights(self) -> NamedTensors | None:
        if self.stage != 3:  # every rank holds all weights
            return super().weights() if _rank() == 0 else None
        found = {}
        for row in self.plan:  # row by row: never the whole model on one rank's device
            parameters = [self.parameters[name] for name in row.param_names]
            with self.gathered(parameters), torch.no_grad():
                if _rank() == 0:
                    found.update(
                        {n: p.detach().cpu().clone() for n, p in zip(row.param_names, parameters, strict=True)}
                    )
        buffers = {n: t.detach().cpu() for n, t in named_state(self.model).items() if n not in self.parameters}
        return {**found, **buffers} if _rank() == 0 else None

    def optimizer_state(self) -> NamedTensors | None:
        if self.stage == 0:
            return super().optimizer_state() if _rank() == 0 else None
        found = {}
        for name in self.trainable:
            for key in MOMENTS:
                full = self._gather_moment(self.parameters[name], key)
                if _rank() == 0:
                    found[f"{name}.{key}"] = full.cpu()
        return found if _rank() == 0 else None

    def _gather_moment(self, parameter: nn.Parameter, key: str) -> torch.Tensor:
        if self.stage == 3:
            return self.engine.optimizer.get_full_hp_param(parameter, key).reshape(parameter.ds_shape)
        full = torch.zeros(parameter.numel(), device=self.device)
        if (mapping := parameter._hp_mapping) is not None:  # None: no part of this parameter lies on this rank
            mine, whole = mapping.hp_fragment_address, mapping.lp_fragment_address
            flat = self._client().state[self._flat(parameter)][key]
            full.narrow(0, whole.start, whole.numel).copy_(flat.narrow(0, mine.start, mine.numel))
        torch.distributed.all_reduce(full)
        return full.reshape(parameter.shape)

    def _flat(self, parameter: nn.Parameter) -> torch.Tensor:
        return self.engine.optimizer.single_partition_of_fp32_groups[self._row_of[self.names[id(parameter)]]]

    @property
    def _row_of(self) -> dict[str, int]:
        return {name: i for i, row in enumerate(self.rows) for name in row.param_names}

    def load_optimizer_state(self, state: NamedTensors, *, steps: int) -> None:
        zero = self.engine.optimizer
        if self.stage == 0:
            super().load_optimizer_state(state, steps=steps)
            return
        flats = zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        for flat in flats:
            moments = {key: torch.zeros_like(flat) for key in MOMENTS}
            self._client().state[flat] = {"step": torch.tensor(float(steps)), **moments}
        for name in self.trainable:
            for key in MOMENTS:
                self._scatter_moment(self.parameters[name], key, state[f"{name}.{key}"].to(self.device).flatten())

    def _scatter_moment(self, parameter: nn.Parameter, key: str, full: torch.Tensor) -> None:
        if self.stage == 3:
            part, _ = self.engine.optimizer._get_fp32_opt_state_partition(parameter, True, key)
            start = part.numel() * _rank()
            values = full[start : start + part.numel()]  # the last rank's part may reach past the end: padding stays 0
            part[: values.numel()].copy_(values)
        elif (mapping := parameter._hp_mapping) is not None:
            mine, whole = mapping.hp_fragment_address, mapping.lp_fragment_address
            flat = self._client().state[self._flat(parameter)][key]
            flat.narrow(0, mine.start, mine.numel).copy_(full.narrow(0, whole.start, whole.numel))

    def close(self) -> None:
        self.engine.destroy()


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


def _auto_stage(plan: list[GroupPlan], world: int, device: torch.device) -> int:
    """The same on every rank: it follows the worker with the least memory."""
    if device.type == "cuda":
        memory_bytes = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        memory_bytes = psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", world))
    least = torch.tensor([memory_bytes], dtype=torch.int64, device=device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    trainable = sum(row.numel for row in plan if row.trainable)
    return lowest_stage(numel=sum(row.numel for row in plan), trainable=trainable, world=world, memory_bytes=int(least))


def _deepspeed_config(config: TrainConfig, *, stage: int, world: int) -> dict[str, Any]:
    """Batch sizes here are DeepSpeed's book-keeping only: the loop scales the loss and marks the last micro-batch."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world,
        "gradient_clipping": (config.clip_norm or 0.0) if stage else 0.0,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "torch_autocast": {"enabled": config.precision == "bf16", "dtype": "bfloat16"},
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": BUCKET_NUMEL,
            "allgather_bucket_size": BUCKET_NUMEL,
            "overlap_comm": False,
        },
    }


def _deepspeed() -> Any:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else a warning that no accelerator was found
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="torch.distributed"
    )  # of its collectives' old names, each call
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    return deepspeed


def _rank() -> int:
    return torch.distributed.get_rank()
