"""What training workers import, by name, so that one process can import it for all of them (`cluster.template`). Seconds are processor
time on an idle core, each after the lines above. Light: the driver asks before it starts Ray."""

from __future__ import annotations

from models.families import FAMILIES
from orchestration.training.config import TrainConfig

# 1.0 s, then 2.6 s for the first family and 0.01 to 0.04 s for each further one. A class imported by its own name comes no cheaper than through
# `Auto...`: every model file takes torch.distributed.tensor, torch._dynamo and scipy.optimize with it.
MODEL = ("torch", *(f"transformers.models.{family}.modeling_{family}" for family in FAMILIES))
ZERO = ("deepspeed",)  # 1.3 s
RAY = ("pandas", "pyarrow.dataset", "ray.train.torch")  # 0.3 s, 0.02 s and 0.9 s; the first two are ray.train's


def modules(train: TrainConfig) -> tuple[str, ...]:
    """For workers under Ray Train: names of modules, in the order to import them in."""
    return (*MODEL, *(ZERO if train.zero.stage != "auto" else ()), *RAY)
