"""Whether storing the frozen bottom's outputs pays. Takes numbers of a run; gives a choice with its reason as a sentence. Pure and light:
the plan verb shows it, `trunk.prepare` acts by it.

Computing a row's output once and reading it in every epoch saves forward passes through the bottom; it costs one such pass over what
is not stored yet, the writing, and a read an epoch. A layer is 24 x width^2 floating-point operations a token forward (Kaplan
et al. 2020, "Scaling Laws for Neural Language Models", section 2.1); attention's share on top is left out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.families import TRUNKS, depth_names
from orchestration.storage import Storage, cache_root
from orchestration.training.config import TrainConfig

# Per second, fp32; measured on one AVX-512 thread with MiniLM: 51 to 76 GFLOP/s. GPU: a third of what an A100 can do.
FLOPS = {"cpu": 6e10, "cuda": 5e13}
EMBED_S = 8e-9  # a token and dimension: look up, add, normalise (2.4 us at width 384)
READ_BYTES_S = 1e9  # into a batch, also where a disk has to be asked; 8.8 GB/s from the page cache (0.2 ms for 32 rows)
WRITE_BYTES_S = 1.5e8  # write, hash, flush
ITEM_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
FREE_SHARE = 0.5  # of the disk's free bytes that a run may take for this
MARGIN = 1.1
LEAST_S = 5.0  # saved: below, files are not worth having
MIXED = "data.mix draws some rows often and others not at all; train.trunk.use=on stores them all"


@dataclass(frozen=True)
class Choice:
    """`bytes`: all that a run reads, stored. `saved_s`: processor seconds saved, may be negative."""

    use: bool
    reason: str
    bytes: int
    saved_s: float


def choose(
    *,
    rows: int,
    mean_tokens: float,
    depth: int,
    groups: int,
    passes: float,
    width: int,
    dtype: str,
    free_bytes: int,
    existing: float = 0.0,
    reads_tokens: bool = False,
    device: str = "cpu",
    threads: int = 1,
) -> Choice:
    """`rows`: training and validation rows that the run reads, `passes` times each on average from now on. `depth` of `groups` depth
    groups are frozen. `existing`: share of them that is stored already. `reads_tokens`: so does the task's head (`Task`); under any
    other a row's first token is enough. `threads`: of a worker."""
    tokens = rows * mean_tokens
    stored = rows if depth == groups - 1 and not reads_tokens else tokens
    size = int(stored * token_bytes(width, dtype))
    missing = 1.0 - existing
    if missing and size * missing > FREE_SHARE * free_bytes:
        return Choice(False, f"it needs {gib(size * missing)}, the disk has {gib(free_bytes)} free", size, 0.0)
    speed = FLOPS.get(device, FLOPS["cpu"]) * (threads if device == "cpu" else 1)
    forward_s = tokens * ((depth - 1) * 24 * width**2 / speed + EMBED_S * width / (threads if device == "cpu" else 30))
    fill_s = missing * (forward_s + size / WRITE_BYTES_S)
    without_s, with_s = passes * forward_s, fill_s + passes * size / READ_BYTES_S
    saved_s = without_s - with_s
    pays = saved_s > 0 if not missing else saved_s > LEAST_S and without_s > MARGIN * with_s
    return Choice(pays, _reason(pays, passes, without_s, with_s, size, existing), size, saved_s)


def impossible(
    *,
    depth: int,
    family: str = "bert",
    unfreezes: bool = False,
    streamed: bool = False,
    changes: bool = False,
    draws: bool = False,
    taught: bool = False,
    shares: bool = False,
) -> str | None:
    """Why outputs cannot be stored whatever they cost; None where they can."""
    if unfreezes:
        return "train.layers.unfreeze changes what is frozen while training goes on"
    if taught:
        return "train.distill: teachers read a row's tokens"
    if shares:
        return "model.share_layers: layers above the cut use weights of those below"
    if depth == 0:
        return "train.layers.freeze is 0, or model.adapter is a prompt: nothing is frozen below what trains"
    if streamed:
        return "data.stream: training begins before all rows are there"
    if draws:
        return "the model's task hides other tokens of a row each time"
    if family not in TRUNKS:
        return f"it can be done for models of {', '.join(TRUNKS)}, not yet for {family}"
    if changes:
        return "data.augment.when is epoch: a row is another one each time"
    return None


def foresee(
    train: TrainConfig,
    config: dict[str, Any],
    *,
    rows: int,
    mean_tokens: float,
    free_bytes: int,
    streamed: bool,
    changes: bool,
    mixed: bool,
    draws: bool = False,
    reads_tokens: bool = False,
    adapter: str | None = None,
    device: str = "cpu",
) -> Choice:
    """What a run that finds nothing stored will do, from its spec and the model's config.json alone. `rows`: for training.
    `draws`, `reads_tokens`: of the model's task (`models.tasks.base.Task`); `adapter`: the kind of one, which leaves the
    embeddings as they are unless it is a prompt."""
    family = str(config.get("model_type"))
    groups = len(depth_names(config) or ()) or train.layers.freeze + 1
    least = 0 if adapter in (None, "prompt") else 1
    depth, use = min(max(least, train.layers.freeze), groups - 1), train.trunk.use
    why = "train.trunk.use is off" if use == "off" else None
    why = why or impossible(
        depth=depth,
        family=family,
        unfreezes=train.layers.unfreeze is not None,
        streamed=streamed,
        changes=changes,
        draws=draws,
        taught=train.distill is not None,
        shares=bool(config.get("share_layers")),
    )
    if why or (mixed and use == "auto"):
        return Choice(False, why or MIXED, 0, 0.0)
    found = choose(
        rows=rows,
        mean_tokens=mean_tokens,
        depth=depth,
        groups=groups,
        passes=passes(train, train_rows=rows, validation_rows=0, epochs=train.epochs),
        width=width(config),
        dtype=train.trunk.dtype,
        free_bytes=free_bytes,
        reads_tokens=reads_tokens,
        device=device,
    )
    if use == "on":
        return Choice(True, f"train.trunk.use is on: {gib(found.bytes)}", found.bytes, found.saved_s)
    return found


def width(config: dict[str, Any]) -> int:
    """Of hidden states: `hidden_size`, or `dim` as DistilBERT has it."""
    return int(config.get("hidden_size") or config["dim"])


def free_bytes(storage: Storage) -> int:
    """Of the disk where files will lie: the root's, or that of the cache of an object store."""
    folder = Path(storage.url) if storage.is_local else cache_root()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def passes(train: TrainConfig, *, train_rows: int, validation_rows: int, epochs: float) -> float:
    """How often a row is read on average in so many epochs, validations included."""
    steps = -(-train_rows // train.batch)
    every = train.validation.every_steps
    validations = epochs if every is None else max(1.0, epochs * steps // every)
    return (train_rows * epochs + validation_rows * validations) / max(1, train_rows + validation_rows)


def token_bytes(width: int, dtype: str) -> int:
    """int8 has a scale a token."""
    return width * ITEM_BYTES[dtype] + (4 if dtype == "int8" else 0)


def gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _reason(pays: bool, passes: float, without_s: float, with_s: float, size: int, existing: float) -> str:
    if not pays and not existing and passes <= 1.5:
        return "rows are read about once, so storing would compute as much as it saves; what is there already is used"
    there = "all of it is there" if existing == 1 else f"{existing:.0%} of it is there" if existing else "none is there"
    verb = "saves" if pays else "would not pay"
    return (
        f"it {verb}: about {with_s:,.0f} s in place of {without_s:,.0f} s of processor time for the frozen part"
        f" ({passes:.1f} passes; {gib(size)}, {there})"
    )
