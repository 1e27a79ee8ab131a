"""ZeRO: the only file that knows DeepSpeed. Takes what `bare.Engine` takes; gives an engine of the same interface over DeepSpeed
ZeRO 0-3, or a bare one for a single worker where the spec leaves the stage to us (no DeepSpeed import: it costs 3 to 5 s of
start-up and wins nothing there). The loop calls `build`; nothing here knows data, schedule or files.

On CPU nothing is compiled: DeepSpeed's compatible ops are cleared before its engine is built, so no compiler is needed.
Calls marked *collective* must be made by all ranks."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import torch
from torch import nn

from models.optim import GroupPlan, apply_freeze
from orchestration.training.bare import (
    MOMENTS,
    Engine,
    LiveGroup,
    NamedTensors,
    compare,
    load_weights,
    named_state,
    rank,
)
from orchestration.training.config import TrainConfig
from orchestration.training.fragments import Piece
from orchestration.training.memory import lowest_stage

__all__ = ["DeepSpeedEngine", "Engine", "LiveGroup", "build", "compare", "load_weights", "preload"]

BUCKET_NUMEL = 50_000_000  # elements reduced at once; DeepSpeed's default of 5e8 reserves 2 GB a worker


def build(model: nn.Module, plan: list[GroupPlan], config: TrainConfig, *, world: int, device: torch.device) -> Engine:
    """Freeze as planned and wrap the model. Collective. The model already lies in fp32 with its starting weights."""
    apply_freeze(model, plan)
    model.to(device)
    chosen = config.zero.stage
    if chosen == "auto" and world == 1:
        return Engine(model, plan, config, device)
    stage = _auto_stage(plan, world, device) if chosen == "auto" else chosen
    return DeepSpeedEngine(model, plan, config, device, stage=stage, world=world)


def preload(config: TrainConfig, world: int) -> None:
    """Import what `build` and the model will need, so that its seconds can be told apart."""
    from transformers import AutoModelForSequenceClassification  # noqa: F401

    if config.zero.stage != "auto" or world > 1:
        _deepspeed()


class DeepSpeedEngine(Engine):
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
        super().__init__(model, plan, config, device, world=world)
        self.stage = stage
        self.row_of = {name: i for i, row in enumerate(self.rows) for name in row.param_names}
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

    def _held(self) -> list[Piece]:
        return super()._held() if self.stage == 0 else [piece for n in self.trainable for piece in self._part(n)]

    def _own(self) -> list[Piece]:
        return super()._own() if self.stage == 0 else self._held()

    def _part(self, name: str) -> list[Piece]:
        """This rank's part of one parameter: none or one, as ZeRO has cut it."""
        parameter, zero = self.parameters[name], self.engine.optimizer
        if self.stage == 3:
            index, offset, numel = zero.grad_position[zero.get_param_id(parameter)]
            start = numel * rank()  # the last rank's part may reach past the end: what is there is padding
            held = min(numel, parameter.ds_numel - start)
            return [Piece(name, start, held, zero.fp32_partitioned_groups_flat[index], offset)] if held > 0 else []
        if (mapping := parameter._hp_mapping) is None:
            return []
        mine, whole = mapping.hp_fragment_address, mapping.lp_fragment_address
        return [Piece(name, whole.start, whole.numel, self._flat(parameter), mine.start)]

    def _flats(self) -> list[tuple[torch.Tensor, list[str]]]:
        if self.stage == 0:
            return super()._flats()
        zero = self.engine.optimizer
        if self.stage == 3:
            flats, groups = zero.fp32_partitioned_groups_flat, zero.fp16_groups
        else:
            flats, groups = zero.single_partition_of_fp32_groups, zero.bit16_groups
        return [(f, [n for n, _ in self._named(group)]) for f, group in zip(flats, groups, strict=True)]

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
            return super().weights() if rank() == 0 else None
        found = {}
        for row in self.plan:  # row by row: never the whole model on one rank's device
            parameters = [self.parameters[name] for name in row.param_names]
            with self.gathered(parameters), torch.no_grad():
                if rank() == 0:
                    found.update(
                        {n: p.detach().cpu().clone() for n, p in zip(row.param_names, parameters, strict=True)}
                    )
        buffers = {n: t.detach().cpu() for n, t in named_state(self.model).items() if n not in self.parameters}
        return {**found, **buffers} if rank() == 0 else None

    def optimizer_state(self) -> NamedTensors | None:
        if self.stage == 0:
            return super().optimizer_state() if rank() == 0 else None
        found = {}
        for name in self.trainable:
            for key in MOMENTS:
                full = self._gather_moment(self.parameters[name], key)
                if rank() == 0:
                    found[f"{name}.{key}"] = full.cpu()
        return found if rank() == 0 else None

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
        return self.engine.optimizer.single_partition_of_fp32_groups[self.row_of[self.names[id(parameter)]]]

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
            start = part.numel() * rank()
            values = full[start : start + part.numel()]  # the last rank's part may reach past the end: padding stays 0
            part[: values.numel()].copy_(values)
        elif (mapping := parameter._hp_mapping) is not None:
            mine, whole = mapping.hp_fragment_address, mapping.lp_fragment_address
            flat = self._client().state[self._flat(parameter)][key]
            flat.narrow(0, mine.start, mine.numel).copy_(full.narrow(0, whole.start, whole.numel))

    def close(self) -> None:
        self.engine.destroy()


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
