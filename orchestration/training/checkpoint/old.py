"""Until the loop has moved: checkpoints of format 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedError
from orchestration.storage import Storage
from orchestration.training.checkpoint.format import name
from orchestration.training.state import TrainState

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
FORMAT = 1


def save(
    storage: Storage,
    run_rel: str,
    *,
    weights: dict[str, Any],
    moments: dict[str, Any],
    state: TrainState,
    meta: dict[str, Any],
) -> str:
    """Write and seal the checkpoint of `state.step`; gives its name. `meta`: plain JSON values."""
    from safetensors.torch import save_file

    rel = name(run_rel, state.step)
    aside = storage.staging()
    save_file({k: v.contiguous() for k, v in weights.items()}, aside / WEIGHTS, metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in moments.items()}, aside / OPTIMIZER, metadata={"format": "pt"})
    text = json.dumps({"format": FORMAT, **asdict(state), "meta": meta}, indent=1, sort_keys=True)
    (aside / STATE).write_text(text, encoding="utf-8")
    storage.commit(rel, aside, {"step": state.step})
    return rel


def newest(storage: Storage, run_rel: str, on_damaged: Callable[[str], None]) -> Any:
    """The newest whole checkpoint of a run; None where there is none. Each damaged one is passed to `on_damaged` as a
    sentence that names it, and the one before is tried."""
    for step_name in reversed(storage.list(f"{run_rel}/checkpoints")):
        rel = f"{run_rel}/checkpoints/{step_name}"
        if "." in step_name:
            continue
        try:
            if storage.manifest(rel) is None:
                continue  # an interrupted write: it does not exist
            storage.verify(rel)
            return _read(storage, rel)
        except (DamagedError, ValueError, KeyError, TypeError) as error:
            on_damaged(f"checkpoint {rel} is damaged and skipped for the one before: {error}")
    return None


def load_weights(storage: Storage, rel: str) -> dict[str, Any]:
    """Parameter name -> whole tensor on the CPU."""
    return _tensors(storage, rel, WEIGHTS)


def load_moments(storage: Storage, rel: str) -> dict[str, Any]:
    """`{parameter}.exp_avg` and `{parameter}.exp_avg_sq` -> whole tensor on the CPU."""
    return _tensors(storage, rel, OPTIMIZER)


def retain(storage: Storage, run_rel: str, *, keep: int, best_step: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and the best one."""
    names = [n for n in storage.list(f"{run_rel}/checkpoints") if n.startswith("step-")]
    spared = {*names[-keep:], *([] if best_step is None else [name("", best_step).rpartition("/")[2]])}
    for old in names:
        if old not in spared:
            storage.remove(f"{run_rel}/checkpoints/{old}")


def _read(storage: Storage, rel: str) -> Any:
    values = json.loads((Path(storage.fetch(rel)) / STATE).read_text(encoding="utf-8"))
    if values.pop("format") != FORMAT:
        raise ValueError(f"{STATE}: another format than {FORMAT}; it was written by another version")
    meta = values.pop("meta")
    values["pending"] = tuple(values["pending"])
    from orchestration.training.checkpoint.find import Found

    return Found(rel=rel, state=TrainState(**values), meta=meta)


def _tensors(storage: Storage, rel: str, file: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(Path(storage.fetch(rel)) / file)
