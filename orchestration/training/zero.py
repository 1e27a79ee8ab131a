"""ZeRO: the only file that imports DeepSpeed (3 to 5 s, so only where it is used). `bare.Engine` over DeepSpeed ZeRO 0-3: forward,
backward and update are DeepSpeed's, and so is the cut of the state, of which each rank reads and writes its own part.

On CPU nothing is compiled: DeepSpeed's compatible ops are cleared before its engine is built, so no compiler is needed.
Calls marked *collective* must be made by all ranks."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from typing import Any

import torch
from torch import nn

from models.optim import GroupPlan
from models.optimizers import Lamb, Segment
from orchestration.training.bare import Engine, rank
from orchestration.training.config import TrainConfig
from orchestration.training.fragments import Piece
from orchestration.training.reduction import Reduction
from orchestration.training.tables import Tables

BUCKET_NUMEL = 50_000_000  # elements reduced at once; DeepSpeed's default of 5e8 reserves 2 GB a worker


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
        self.stage: int = stage
        super().__init__(model, plan, config, device, world=world)
        self.row_of = {name: i for i, row in enumerate(self.rows) for name in row.param_names}
        deepspeed = load()
        os.environ.setdefault("LOCAL_RANK", str(device.index or 0))  # DeepSpeed asks for its launcher's variable
        if device.type == "cpu":
            deepspeed.ops.__compatible_ops__.clear()  # else the first start compiles for 60 s and needs g++ and ninja
        self.engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=self.optimizer,
            config=deepspeed_config(config, stage=stage, world=world, device=device),
            dist_init_required=False,
        )
        if stage and isinstance(self.optimizer, Lamb):
            segments: dict[torch.Tensor, list[Segment]] = {flat: [] for flat, _ in self._flats()}
            for piece in self._held():
                segments[piece.flat].append(Segment(piece.name, piece.offset, piece.numel))
            self.optimizer.cut(segments, self._add_up)

    # ---------------------------------------------------------------------------------------------- computing

    def _forward(self, **inputs: torch.Tensor) -> Any:
        return self.engine(**inputs)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        loss = self._marked(loss)
        if self.stage == 0:
            loss = self._scaled(loss)
        elif self.scaling:
            self.engine.optimizer.override_loss_scale(
                self.scaling.scale.item()
            )  # ZeRO asks for numbers each step anyway
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss, scale_wrt_gas=False)

    def _update(self) -> None:
        if self.stage == 0:  # DeepSpeed would clip alike, but not tell the norm
            self._judge()
            self.engine.step()
            return
        self.engine.step()  # clips, and leaves the update out where the norm is not finite
        bad = torch.tensor(bool(self.engine.optimizer.overflow), device=self.device)
        norm = self.engine.get_global_grad_norm()
        if self.scaling:
            norm = self._told_in_half(bad, torch.as_tensor(norm, device=self.device))
        else:
            self.left_out = bad
        self.grad_norm = norm

    def _reduction(self) -> Reduction | None:
        return None  # DeepSpeed's

    def _tables(self) -> Tables:
        return Tables(self.model, [])  # gradients are DeepSpeed's

    def _add_up(self, sums: torch.Tensor) -> None:
        """Over ranks, in place. Offloaded optimizer state lies where the ranks' own channel may not reach."""
        there = sums.to(self.device)
        torch.distributed.all_reduce(there)
        sums.copy_(there)

    # ---------------------------------------------------------------------------------------------- what lies where

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
        flat = zero.single_partition_of_fp32_groups[self.row_of[name]]
        return [Piece(name, whole.start, whole.numel, flat, mine.start)]

    def _flats(self) -> list[tuple[torch.Tensor, list[str]]]:
        if self.stage == 0:
            return super()._flats()
        zero = self.engine.optimizer
        if self.stage == 3:
            flats, groups = zero.fp32_partitioned_groups_flat, zero.fp16_groups
        else:
            flats, groups = zero.single_partition_of_fp32_groups, zero.bit16_groups
        return [(f, [n for n, _ in self._named(group)]) for f, group in zip(flats, groups, strict=True)]

    def close(self) -> None:
        self.engine.destroy()
        self.engine = None
        if self.stage == 3:
            _forget_models()
        super().close()
        gc.collect()  # 0.3 s: DeepSpeed's wrappers and hooks hold each other, and the flat weights, in circles


def deepspeed_config(config: TrainConfig, *, stage: int, world: int, device: torch.device) -> dict[str, Any]:
    """Batch sizes here are DeepSpeed's book-keeping only: the loop scales the loss and marks the last micro-batch."""
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": BUCKET_NUMEL,
        "allgather_bucket_size": BUCKET_NUMEL,
        "overlap_comm": False,
    }
    there = {"device": "cpu", "pin_memory": device.type == "cuda"}
    if config.zero.offload != "none":
        zero["offload_optimizer"] = there
    if config.zero.offload == "all":
        zero["offload_param"] = there
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world,
        "gradient_clipping": (config.clip_norm or 0.0) if stage else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # its own compiles for 30 s; torch's fused ones run on CPU tensors too
        "steps_per_print": 10**9,
        "torch_autocast": {"enabled": config.precision == "bf16", "dtype": "bfloat16"},
        "zero_optimization": zero,
    }


def load() -> Any:
    """The deepspeed module, told to be quiet."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else a warning that no accelerator was found
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="torch.distributed"
    )  # of its collectives' old names, each call
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    if _untold not in deepspeed.utils.logger.filters:
        deepspeed.utils.logger.addFilter(_untold)
    return deepspeed


def _forget_models() -> None:
    """DeepSpeed 0.19 keeps every model of stage 3 that it wrapped: in a global list, and in the cache of a method."""
    from deepspeed.runtime.zero import parameter_offload, partitioned_param_coordinator

    parameter_offload.FWD_MODULE_STACK.clear()
    coordinator = partitioned_param_coordinator.PartitionedParameterCoordinator
    for cell in coordinator._PartitionedParameterCoordinator__params_to_release.__closure__ or ():  # type: ignore[attr-defined]
        getattr(cell.cell_contents, "cache_clear", lambda: None)()


def _untold(record: logging.LogRecord) -> bool:
    """Without DeepSpeed's own line about each update left out: the loop tells it with the rows."""
    return "OVERFLOW" not in record.getMessage()
