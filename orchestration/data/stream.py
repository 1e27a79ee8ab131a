"""`prepare` for a spec with `data.stream`: rows are decided and shards are written in the order of the input, so that training may
begin behind them. Takes the plan and Ray Data's first pass; writes units in order and gives what `prepare` seals. Called by
`prepare` on the driver; `orchestration.data.store` reads a store that is still growing.

What differs from two passes over everything: of equal texts the first in the order of units stays (the smallest row id within a
unit), since nothing is known of units to come. A store that was streamed and one that was prepared before training are the
same bytes: both are made here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.data import passes, split
from orchestration.data.decide import ANY, DUPLICATE, Decision, given
from orchestration.data.dedup import Seen, find_duplicates
from orchestration.data.keys import DTYPE, merge_left
from orchestration.data.store import SPLITS
from orchestration.storage import Storage

if TYPE_CHECKING:
    from orchestration.data.prepare import Plan

PLAN = "stream.json"  # beside the shards: what a reader must know before the store is sealed
FAILED = "failed.json"  # why no more shards will come
AHEAD = 2  # units a core that are being written while the oldest is waited for


def write_in_order(
    plan: Plan, run: Callable[..., Iterator[dict[str, Any]]], storage: Storage
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What each unit wrote, and what left. Raises DataError as soon as too many rows cannot be used; readers are told too."""
    from orchestration.data.prepare import store_meta

    rel = plan.work.store_rel
    storage.remove(f"{rel}/{FAILED}")
    storage.write_json(f"{rel}/{PLAN}", {**store_meta(plan, storage), "units": len(plan.units)})
    try:
        return _write(plan, run)
    except Exception as error:
        storage.write_json(f"{rel}/{FAILED}", {"error": str(error)})
        raise


def _write(plan: Plan, run: Callable[..., Iterator[dict[str, Any]]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import ray

    from orchestration.data.prepare import refuse_bad

    config = plan.work.config
    write = ray.remote(passes.write_unit)
    work = ray.put(plan.work)
    decider = Sequential(plan)
    left: dict[str, dict[str, Any]] = {}
    pending: list[Any] = []
    done: list[dict[str, Any]] = []
    room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    items = [{"unit": unit.dump()} for unit in plan.units]
    for unit, row in zip(plan.units, run("read", passes.read_keys, items, in_order=True), strict=True):
        left = merge_left([json.loads(row["left"])], left)
        refuse_bad(left, config.max_bad_rows)
        keys = np.frombuffer(row["keys"], DTYPE)
        decision = decider.decide(keys, given(config, [unit], np.array([0, len(keys)])))
        item = {"unit": unit.dump(), "mark": row["mark"], **decision.unit(slice(None))}
        pending.append(write.remote(item, work))
        if len(pending) >= room:
            done.append(_result(pending.pop(0)))
    done += [_result(reference) for reference in pending]
    return done, {"left": left, "conflicts": decider.conflicts, "codes": decider.counts}


def _result(reference: Any) -> dict[str, Any]:
    import ray

    from orchestration.errors import DataError

    found = ray.get(reference)
    if found["error"]:
        raise DataError(found["error"])
    done: dict[str, Any] = json.loads(found["done"])
    for name in SPLITS:
        done.get(name, {}).pop("order", None)  # a streamed store has none: 11 bytes a row less on the driver
    return done


class Sequential:
    """Decides unit after unit. 20 bytes of each distinct text lie in files (`dedup.Seen`), nothing that grows in memory."""

    def __init__(self, plan: Plan) -> None:
        self.config, self.seed = plan.work.config, plan.work.seed
        self.seen = Seen()
        self.conflicts = 0
        self.counts = np.zeros(256, np.int64)

    def decide(self, keys: np.ndarray, given_N: np.ndarray | None = None) -> Decision:
        code_N = split.by_threshold(keys["group"], self.config.split, self.seed)
        if given_N is not None:
            code_N = np.where(given_N == ANY, code_N, given_N)
        if self.config.clean.drop_duplicates:
            code_N[~self._new(keys)] = DUPLICATE
        self.counts += np.bincount(code_N, minlength=256)
        augment = self.config.augment
        copies = augment.copies if augment and augment.when == "prepare" else 0
        copies_N = np.where(code_N == split.TRAIN, copies, 0).astype(np.uint16)
        return Decision(code_N, np.full(len(keys), -1, np.int8), copies_N, self.conflicts)

    def _new(self, keys: np.ndarray) -> np.ndarray:
        """True for rows whose text has not come before."""
        text_N2, label_N = keys["text"], keys["label"]
        before_N, _ = self.seen.labels(text_N2)
        keep_N = find_duplicates(text_N2, keys["row_id"], label_N).keep_N & ~before_N
        self.seen.add(text_N2[keep_N], label_N[keep_N])
        _, kept_label_N = self.seen.labels(text_N2)
        self.conflicts += int(np.count_nonzero(kept_label_N != label_N))
        return keep_N
