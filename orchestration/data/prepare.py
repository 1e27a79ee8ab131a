"""The stage `prepare`: a corpus becomes a token store. Takes the `data` part of the spec, the staged weights (for their
tokenizer) and the seed; gives the name of a sealed store under its content address and a report of rows in, out and why.
Called by the driver inside a Ray session. Reads top to bottom: scan, first pass, decide, second pass, seal.

The address is a hash of the spec's part, the input files' bytes, the tokenizer and STAGE_VERSION: where a sealed store of that
address exists nothing is read again; where an interrupted run left shards, those are kept."""

from __future__ import annotations

import base64
import functools
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.data import aligned, knowledge, passes
from orchestration.data.augment import stage_ops
from orchestration.data.config import DataConfig
from orchestration.data.decide import decide, given
from orchestration.data.keys import Keys
from orchestration.data.passes import Work
from orchestration.data.report import build_report, ordered
from orchestration.data.scan import InputFile, Unit, scan
from orchestration.data.sources import kinds
from orchestration.data.store import SPLITS
from orchestration.data.tokenize import FILES
from orchestration.errors import DamagedError, DataError
from orchestration.storage import Storage, describe, digest

FRAMES_VERSION = 2  # of rows of several frames alone; 1 had the first picture of a GIF in all of them
STAGE_VERSION = 2  # rises when the same input gives other bytes; tests/golden/store.json knows which

Progress = Callable[[str, int, int], None]  # phase (read, write), units done, units in all


@dataclass(frozen=True)
class Prepared:
    """`rel`: the sealed store. `reused`: it was there before. `report`: rows in, out and why; its `seconds` are this call's."""

    rel: str
    address: str
    reused: bool
    report: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What `prepare` will do, known once the files have been looked at."""

    work: Work
    address: str
    files: list[InputFile]
    units: list[Unit]


def prepare(
    config: DataConfig,
    *,
    weights_rel: str,
    seed: int,
    storage: Storage,
    progress: Progress | None = None,
    workers: int | None = None,
    blocks: int | None = None,
    plan: Plan | None = None,
) -> Prepared:
    """Make the token store, or find it. `workers` bounds the tasks at once, `blocks` sets Ray's blocks; neither changes a byte.
    `plan`: what `make_plan` gave for these arguments, where the caller has looked at the files already.

    Raises DataError naming file and row where input cannot be used, UserError where the spec's numbers do not fit the corpus.
    """
    started = time.perf_counter()
    plan = plan or make_plan(config, weights_rel=weights_rel, seed=seed, storage=storage)
    found = _sealed(plan.address, config, storage)
    if found is not None:
        return Prepared(found.rel, plan.address, True, {**found.report, "seconds": time.perf_counter() - started})
    run = functools.partial(run_pass, work=plan.work, workers=workers, blocks=blocks, progress=progress)
    if config.stream is not None:
        from orchestration.data.stream import write_in_order

        done, keys = write_in_order(plan, run, storage)
    else:
        done, keys = _two_passes(plan, run)
    report = build_report(config, plan.files, keys, done)
    _seal(plan, done, report, storage)
    return Prepared(plan.work.store_rel, plan.address, False, {**report, "seconds": time.perf_counter() - started})


def _two_passes(
    plan: Plan, run: Callable[..., Iterator[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What each unit wrote, and what left before: the driver sees all keys, decides, and the units are written."""
    config, units = plan.work.config, plan.units
    with tempfile.TemporaryDirectory(prefix="eagleray-keys-") as folder:
        keys = Keys(Path(folder), len(units))
        for row in run("read", passes.read_keys, [{"unit": unit.dump()} for unit in units]):
            keys.add(row)
        keys.close()
        refuse_bad(keys.left, config.max_bad_rows)
        decision = decide(keys, config, plan.work.seed, given(config, units, keys.bounds))
        items = [
            {
                "unit": unit.dump(),
                "mark": keys.marks[unit.number],
                **decision.unit(slice(int(keys.bounds[unit.number]), int(keys.bounds[unit.number + 1]))),
            }
            for unit in units
        ]
    done = {row["unit"]: json.loads(row["done"]) for row in run("write", passes.write_unit, items)}
    left = {"left": keys.left, "conflicts": decision.conflicts, "codes": np.bincount(decision.code_N, minlength=256)}
    return [done[unit.number] for unit in units], left


def make_plan(config: DataConfig, *, weights_rel: str, seed: int, storage: Storage) -> Plan:
    """Look at the files, put what augmentation reads into storage. Needs no Ray. Raises as `prepare` does."""
    tables = stage_ops(config.augment, storage)
    facts = knowledge.stage(config.knowledge, storage) if config.knowledge else None
    files, units = scan(config, storage)
    address = store_address(config, files, tables, facts, weights_rel=weights_rel, seed=seed, storage=storage)
    return Plan(Work(config, storage.url, f"stores/{address}", weights_rel, tables, seed, facts), address, files, units)


def find(config: DataConfig, *, weights_rel: str, seed: int, storage: Storage) -> Prepared | None:
    """The finished store of this spec and these inputs, if there is one. Hashes the input files; needs no Ray.

    Raises as `prepare` does for inputs that cannot be read.
    """
    return _sealed(make_plan(config, weights_rel=weights_rel, seed=seed, storage=storage).address, config, storage)


def _sealed(address: str, config: DataConfig, storage: Storage) -> Prepared | None:
    manifest = storage.manifest(f"stores/{address}")
    if manifest is None:
        return None
    report = ordered(manifest.meta["report"], config)
    refuse_bad(report["left"], config.max_bad_rows)  # the limit may have been lowered since
    return Prepared(f"stores/{address}", address, True, {**report, "seconds": 0.0})


def store_address(
    config: DataConfig,
    files: list[InputFile],
    tables: list[str],
    facts: str | None,
    *,
    weights_rel: str,
    seed: int,
    storage: Storage,
) -> str:
    """Content address. Where the files lie and how many bad rows are forgiven changes no byte, so neither counts."""
    return digest(
        {
            "stage": ["prepare", STAGE_VERSION],
            "spec": content_spec(config),
            "seed": seed,
            "inputs": [[file.source, file.rel, file.format, file.sha256] for file in files],
            "tables": tables,
            **({"knowledge": facts} if facts else {}),
            **({"frames": FRAMES_VERSION} if config.image.frames > 1 else {}),
            "tokenizer": tokenizer_fingerprint(weights_rel, storage),
        }
    )


def content_spec(config: DataConfig) -> dict[str, Any]:
    """The spec's part without what changes no byte of a store."""
    paths: Any = {"sources": {"__all__": {"path"}}, **({"knowledge": {"path"}} if config.knowledge else {})}
    spec = config.model_dump(mode="json", exclude={"max_bad_rows": True, **paths})
    for op in (spec["augment"] or {"ops": []})["ops"]:
        op.pop("thesaurus", None)  # its table is in `tables`, by content
        op.pop("tagger", None)
    return spec


def tokenizer_fingerprint(weights_rel: str, storage: Storage) -> str:
    """Hash of the tokenizer's files alone: other weights with the same tokenizer share a store."""
    manifest = storage.manifest(weights_rel)
    if manifest is None:
        raise DamagedError(f"{storage.path(weights_rel)}: no finished model folder there; stage the weights first")
    return digest({name: manifest.files[name]["sha256"] for name in FILES if name in manifest.files})


# ------------------------------------------------------------------------------------------------ running the passes


def run_pass(
    phase: str,
    function: Callable[..., Any],
    items: list[dict[str, Any]],
    *,
    work: Any,
    workers: int | None,
    blocks: int | None,
    progress: Progress | None,
    in_order: bool = False,
) -> Iterator[dict[str, Any]]:
    """Ray Data over the units, one task a block; results as they come, or in the order of units. `function` takes an item and `work`; a class
    is made with `work`, in `workers` actors that stay, and takes items. Raises DataError with a worker's own words."""
    import ray.data

    if not ray.is_initialized():  # Ray Data would start a Ray of its own, without our packages on its workers
        raise RuntimeError("prepare reads rows with Ray Data: call it inside cluster.local.session")
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "Progress bars disabled"
    logging.getLogger("ray.data._internal.execution.streaming_executor").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False  # the caller shows its own progress
    context.execution_options.preserve_order = in_order
    count = min(blocks or len(items), len(items))
    pool = ray.data.TaskPoolStrategy(size=min(workers, count)) if workers else None
    dataset = ray.data.from_items(items, override_num_blocks=count)
    if isinstance(function, type):
        actors = ray.data.ActorPoolStrategy(size=min(workers or 1, count))
        dataset = dataset.map(function, fn_constructor_kwargs={"work": work}, compute=actors)
    else:
        dataset = dataset.map(function, fn_kwargs={"work": work}, compute=pool)
    for done, row in enumerate(dataset.iter_rows(), start=1):
        if row["error"]:
            raise DataError(row["error"])
        if progress:
            progress(phase, done, len(items))
        yield row


def refuse_bad(left: dict[str, Any], max_bad_rows: int) -> None:
    """Raises DataError where more rows are unreadable than the spec forgives."""
    bad = {reason: found for reason, found in left.items() if found["bad"]}
    total = sum(found["count"] for found in bad.values())
    if total > max_bad_rows:
        shown = "; ".join(
            f"{reason}: {found['count']} (such as {'; '.join(found['examples'])})" for reason, found in bad.items()
        )
        raise DataError(
            f"{total} rows cannot be used, data.max_bad_rows allows {max_bad_rows}: {shown}; mend the files or raise data.max_bad_rows"
        )


# ------------------------------------------------------------------------------------------------ sealing


def _seal(plan: Plan, done: list[dict[str, Any]], report: dict[str, Any], storage: Storage) -> None:
    """Orders, then the manifest; then the notes, which only restarts need, go."""
    parts = {name: [unit[name] for unit in done if name in unit] for name in SPLITS}
    orders = {} if plan.work.config.stream else _write_orders(parts, plan.work.store_rel, storage)
    shards = {part["file"]: part["describe"] for found in parts.values() for part in found}
    meta = {**store_meta(plan, storage), "report": report}
    meta["splits"] = {
        name: {
            "rows": sum(part["rows"] for part in found),
            "entries": sum(part["entries"] for part in found),
            "shards": [part["file"] for part in found],
        }
        for name, found in parts.items()
    }
    storage.seal(plan.work.store_rel, dict(sorted({**shards, **orders}.items())), meta)
    for unit in plan.units:
        storage.remove(f"{plan.work.store_rel}/{passes.note_name(unit.number)}")


def _write_orders(parts: dict[str, list[dict[str, Any]]], rel: str, storage: Storage) -> dict[str, dict[str, Any]]:
    """`<split>.order.npy`: the shown order of a split's entries (int64): by salted text hash, copies and windows behind their row."""
    aside = storage.staging()
    files = {}
    for name in SPLITS:
        hash_E = np.frombuffer(b"".join(base64.b64decode(part["order"]) for part in parts[name]), np.uint64)
        np.save(aside / f"{name}.order.npy", np.argsort(hash_E, kind="stable").astype("<i8"), allow_pickle=False)
        files[f"{name}.order.npy"] = describe(aside / f"{name}.order.npy")
        storage.put(f"{rel}/{name}.order.npy", aside / f"{name}.order.npy")
    aside.rmdir()
    return files


def store_meta(plan: Plan, storage: Storage) -> dict[str, Any]:
    """What a store says of itself beside its report: everything that is known before a row is read."""
    work, config = plan.work, plan.work.config
    shapes = {
        "image": [config.image.frames, config.image.size, config.image.size, 3],
        "audio": [-1],
        "series": [config.series.window, -1],
    }
    there = {kind for source in config.sources for kind in kinds(source)}
    return {
        "address": plan.address,
        "stage_version": STAGE_VERSION,
        "seed": work.seed,
        "labels": config.labels,
        "preprocessing": {
            "clean": config.clean.model_dump(mode="json"),
            "tokenize": config.tokenize.model_dump(mode="json"),
            "tokenizer": tokenizer_fingerprint(work.weights_rel, storage),
            **({"knowledge": config.knowledge.settings} if config.knowledge else {}),
        },
        **({"knowledge": work.facts} if work.facts else {}),
        "shapes": {kind: shape for kind, shape in shapes.items() if kind in there},
        **({"targets": targets} if (targets := aligned.columns(config)) else {}),
        "inputs": [
            {
                "source": config.sources[file.source].name,
                "rel": file.rel,
                "bytes": file.bytes,
                "records": file.records,
                "sha256": file.sha256,
            }
            for file in plan.files
        ],
        "tables": work.tables,
        "spec": content_spec(config),
    }
