"""Which engine a worker trains with. Takes a plain model, the planned table and the `train` part; gives `bare.Engine` where the stage
is left to us and every worker can hold the whole state, on one worker or many, and DeepSpeed's ZeRO otherwise. The loop calls
`build`; nothing here knows data, schedule or files.

Calls marked *collective* must be made by all ranks."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from models import dropout
from models.optim import GroupPlan, apply_freeze
from orchestration.errors import UserError
from orchestration.storage import cache_root
from orchestration.training import together, warm
from orchestration.training.bare import Engine, load_weights
from orchestration.training.config import TrainConfig
from orchestration.training.live import LiveGroup, compare
from orchestration.training.memory import lowest_stage

__all__ = ["Engine", "LiveGroup", "build", "compare", "load_weights", "preload"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def build(model: nn.Module, plan: list[GroupPlan], config: TrainConfig, *, world: int, device: torch.device) -> Engine:
    """Freeze as planned and wrap the model. Collective. The model already lies in fp32 with its starting weights. Raises UserError
    for what this worker's device or machine cannot do."""
    refuse(config, device)
    apply_freeze(model, plan)
    model.to(device)
    stage: int | None = None if config.zero.stage == "auto" else config.zero.stage
    if config.zero.stage == "auto" and world > 1:
        stage = _auto_stage(plan, config, world, device) or None  # 0: nothing to share out
    _prepare(model, config, device, stage=stage)
    if stage is None:
        if (
            world > 1 and device.type == "cpu" and config.optimizer.name != "lamb"
        ):  # whose norms are of whole parameters
            room = together.memory(plan, world)
            if room is not None:
                return together.SharedEngine(model, plan, config, device, world=world, memory=room)
        return Engine(model, plan, config, device, world=world)
    from orchestration.training.zero import DeepSpeedEngine

    return DeepSpeedEngine(model, plan, config, device, stage=stage, world=world)


def preload(config: TrainConfig, world: int) -> None:
    """Import what `build` and the model will need, so that its seconds can be told apart."""
    for name in warm.MODEL:
        importlib.import_module(name)
    if config.zero.stage != "auto":
        from orchestration.training import zero

        zero.load()


def refuse(config: TrainConfig, device: torch.device) -> None:
    """Raises UserError for what a device or machine cannot do."""
    if config.precision == "fp16" and device.type == "cpu":
        raise UserError(
            "train.precision=fp16 needs a GPU, and this worker has none; set it to fp32, or cluster.gpus_per_worker to 1"
        )
    if config.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise UserError(
            "train.compile needs a C++ compiler, and this machine has neither g++ nor clang++; set it to false"
        )
    if config.compile and config.zero.stage == 3:
        raise UserError("train.compile and train.zero.stage=3 do not go together: its hooks run between all layers")


def _prepare(model: nn.Module, config: TrainConfig, device: torch.device, *, stage: int | None) -> None:
    """What the model does otherwise from now on, whatever engine runs it."""
    dropout.quicken(model)
    if config.activation_checkpointing:
        _checkpoint_activations(model)
    half = HALF.get(config.precision)
    if half is not None and (stage is None or half is torch.float16):  # bf16 under DeepSpeed is its own autocast, which
        model.forward = torch.autocast(device.type, dtype=half)(model.forward)  # also sends bf16 between ranks
    if config.compile:
        _keep_compiled()
        model.compile(dynamic=True)  # lengths differ from batch to batch


def _checkpoint_activations(model: nn.Module) -> None:
    """Each trained layer keeps its input alone (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). Layers in
    evaluation mode, that is frozen ones, keep nothing anyway."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None or not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(f"train.activation_checkpointing: {type(model).__name__} cannot do it; set it to false")
    model.config.use_cache = False  # else a warning: keys and values are kept for generation alone
    enable(activation_checkpointing_kwargs={"use_reentrant": False})
    # transformers makes the embeddings' output ask for gradients, which only reentrant checkpoints need: the backward pass
    # would go down through every frozen layer.
    model.disable_input_require_grads()  # type: ignore[operator]


def _keep_compiled() -> None:
    """Compiled code goes where this machine keeps what it may need again, unless the user says where. torch sets its own default, a folder
    of the temporary one, as soon as it is asked for it."""
    key = "TORCHINDUCTOR_CACHE_DIR"
    now = Path(os.environ.get(key, ""))
    if key not in os.environ or (now.name.startswith("torchinductor_") and now.parent == Path(tempfile.gettempdir())):
        os.environ[key] = str(cache_root() / "inductor")


def _auto_stage(plan: list[GroupPlan], config: TrainConfig, world: int, device: torch.device) -> int:
    """The same on every rank: it follows the worker with the least memory."""
    if device.type == "cuda":
        memory_bytes = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        memory_bytes = psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", world))
    least = torch.tensor([memory_bytes], dtype=torch.int64, device=device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    return lowest_stage(
        numel=sum(row.numel for row in plan),
        trainable=sum(row.numel for row in plan if row.trainable),
        moments=len(config.optimizer.moments),
        world=world,
        memory_bytes=int(least),
        copies=device.type == "cpu",
    )
