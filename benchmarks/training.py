"""The training engine against its peers on the same rows and cores, each peer as its manual shows it and at its best: what the loop costs
over a plain PyTorch loop, rows a second on one core and on two workers, a frozen trunk, the wait for a checkpoint, a killed worker, the
time to the first step, and the share of the machine's matmul rate that becomes the model's own work.

Two cores, no GPU, MiniLM, real texts of real lengths. `--only step,speed,trunk,workers,flops` runs parts, `--rows` and `--repeats`
make it larger or smaller. With the defaults it takes about twenty minutes; DeepSpeed's ops are compiled in the first run, two more."""

from __future__ import annotations

from benchmarks import _training_cluster, _training_flops, _training_overhead, _training_speed, _training_trunk
from benchmarks._claim import Claim
from benchmarks._peers import available_cores
from benchmarks._training_inputs import Rows
from benchmarks._training_inputs import rows as rows_of
from orchestration.errors import UserError

PARTS = ("step", "speed", "trunk", "workers", "flops")


def run(only: str = "", rows: int = 1024, repeats: int = 2, stretches: int = 12) -> list[Claim]:
    """`rows` of the fits on two workers; one core takes half of them. `stretches`: of five steps, of the comparison with a plain loop.
    Raises UserError for an unknown part."""
    parts = tuple(only.split(",")) if only else PARTS
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--only {unknown[0]}: no part is called so; there are: {', '.join(PARTS)}")
    cores = available_cores(2)
    claims: list[Claim] = []
    with rows_of(rows) as whole:
        half = Rows(whole.inputs, whole.count // 2, whole.folder, whole.train, whole.held_out)
        for part in parts:
            if part == "step":
                claims += _training_overhead.claims(whole, stretches=stretches)
            elif part == "speed":
                claims += _training_speed.claims(half, cores=cores, repeats=repeats + 1)
            elif part == "trunk":
                claims += _training_trunk.claims(half, cores=cores, repeats=repeats)
            elif part == "workers":
                claims += _training_cluster.claims(whole, cores=cores, repeats=repeats)
            else:
                claims += _training_flops.claims(half, cores=cores, repeats=repeats)
    return claims
