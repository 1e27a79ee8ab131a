"""What a run will need and do, computed before anything is held. Takes the spec's parts, the model folder and row lengths
(of the prepared store, or of a sample); gives a Preflight that the plan verb prints. Builds the model without weights.

Activation bytes follow Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", eq. 2:
rows x tokens x width x (34 + 5 x heads x tokens / width) a layer at 16 bits, twice that in fp32. Frozen bottom layers store none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import CAPTIONED, GROUPED, LANGUAGE, WRITERS, ContrastConfig, ModelConfig
from models.families import size_of
from orchestration.training.config import TrainConfig
from orchestration.training.memory import HEADROOM, STAGES, lowest_stage, worker_bytes


@dataclass(frozen=True)
class Lengths:
    """Rows and tokens a row, exact (`sampled` None) or estimated from so many sampled rows."""

    train_rows: int
    mean_tokens: float
    p99_tokens: int
    truncated_share: float
    sampled: int | None


@dataclass(frozen=True)
class Preflight:
    """`groups`: the planned table. `memory`: one row a ZeRO stage, bytes a worker, `activation_bytes` None and left out of the total where they are not known. `problems`: empty where the run can start."""

    groups: list[dict[str, Any]]
    parameters: int
    trainable: int
    memory: list[dict[str, Any]]
    stage: int | None
    steps: int
    steps_per_epoch: int
    tokens: int
    peak_rates: tuple[float, float]
    problems: list[str]


def preflight(
    *,
    model: ModelConfig,
    train: TrainConfig,
    labels: list[str],
    folder: Path,
    lengths: Lengths,
    world: int,
    cpus: float,
    cpus_needed: float,
    gpus: float,
    gpus_needed: float,
    memory_bytes: int,
) -> Preflight:
    """`cpus`, `gpus`, `memory_bytes`: of the cluster; `*_needed`: of all workers together."""
    from models import adapters
    from models.building import skeleton
    from models.optim import TowerPlan, plan_groups
    from models.text import read_config

    built = skeleton(model, folder, labels)
    rows = plan_groups(
        built,
        lr=train.optimizer.lr,
        weight_decay=train.optimizer.weight_decay,
        decay=train.layers.decay,
        freeze=train.layers.freeze,
        towers={name: TowerPlan(**tower.model_dump()) for name, tower in train.layers.towers.items()},
        only=adapters.trained(built),
    )
    parameters, trainable = sum(row.numel for row in rows), sum(row.numel for row in rows if row.trainable)
    used = min(train.rows or lengths.train_rows, lengths.train_rows)
    per_epoch = math.ceil(used / train.batch)
    micro = train.micro_batch or math.ceil(train.batch / world)
    if model.task in GROUPED:
        micro = (model.contrast or ContrastConfig()).group
    elif train.micro_tokens:
        micro = max(1, train.micro_tokens // max(1, lengths.p99_tokens))
    activations = activation_bytes(
        read_config(folder),
        rows=micro,
        tokens=lengths.p99_tokens,
        frozen=train.layers.freeze,
        precision=train.precision,
        logits=model.task in (*LANGUAGE, *WRITERS, *CAPTIONED),
    )
    per_worker = memory_bytes // world
    sizes: Any = {"numel": parameters, "trainable": trainable, "moments": len(train.optimizer.moments), "world": world}
    asked = train.zero.stage
    stage = (
        None
        if world == 1 and asked == "auto"
        else lowest_stage(**sizes, memory_bytes=per_worker) or None
        if asked == "auto"
        else asked
    )
    memory: list[dict[str, Any]] = []
    for number in STAGES:
        held = worker_bytes(**sizes, stage=number)
        total = held + (activations or 0)
        fits = held <= HEADROOM * per_worker and total <= per_worker
        memory.append(
            {
                "stage": number,
                "state_bytes": held,
                "activation_bytes": activations,
                "total_bytes": total,
                "fits": fits,
                "chosen": number == (stage or 0),
            }
        )
    problems = []
    if used == 0:
        problems.append("no training rows are left after splitting; lower data.split.test and data.split.validation")
    if cpus_needed > cpus:
        problems.append(
            f"the workers need {cpus_needed:g} CPUs, the cluster has {cpus:g}; lower cluster.workers or cluster.cpus_per_worker"
        )
    if gpus_needed > gpus:
        problems.append(
            f"the workers need {gpus_needed:g} GPUs, the cluster has {gpus:g}; lower cluster.gpus_per_worker"
        )
    if not memory[stage or 0]["fits"]:
        problems.append(
            f"ZeRO stage {stage or 0} needs {memory[stage or 0]['total_bytes'] / 2**30:.1f} GiB a worker of {per_worker / 2**30:.1f}; raise train.zero.stage, add workers, or lower train.micro_batch"
        )
    live = [row.lr for row in rows if row.trainable]
    return Preflight(
        groups=[
            {
                "group": row.name,
                "parameters": row.numel,
                "lr": row.lr,
                "weight_decay": row.weight_decay,
                "trainable": row.trainable,
            }
            for row in rows
        ],
        parameters=parameters,
        trainable=trainable,
        memory=memory,
        stage=stage,
        steps=per_epoch * train.epochs,
        steps_per_epoch=per_epoch,
        tokens=int(used * lengths.mean_tokens * train.epochs),
        peak_rates=(min(live), max(live)),
        problems=problems,
    )


def activation_bytes(
    config: dict[str, Any], *, rows: int, tokens: int, frozen: int, precision: str, logits: bool = False
) -> int | None:
    """Bytes kept for the backward pass of one micro-batch of `rows` x `tokens`. `logits`: over the vocabulary at each token, and their
    gradient, fp32. None for a family whose config.json is not known: models of pictures, sound and series, and several towers."""
    size = size_of(config)
    if size is None:
        return None
    live = max(0, size.layers - max(0, frozen - 1))  # depth group 0 is the embeddings
    at_16_bits = rows * tokens * size.width * (34 + 5 * size.heads * tokens / size.width) * live
    vocabulary = 8 * rows * tokens * int(config["vocab_size"]) if logits else 0
    return int(at_16_bits * (1 if precision == "bf16" else 2)) + vocabulary
