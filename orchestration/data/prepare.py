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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestration.data import passes, split
from orchestration.data.augment import stage_ops
from orchestration.data.config import DataConfig
from orchestration.data.dedup import find_duplicates, hashes
from orchestration.data.passes import Work
from orchestration.data.report import build_report, merge_left, ordered
from orchestration.data.scan import InputFile, scan
from orchestration.data.store import SPLITS
from orchestration.data.tokenize import FILES
from orchestration.errors import DamagedError, DataError
from orchestration.storage import Storage, describe, digest

STAGE_VERSION = 1  # rises when the same input gives other bytes; tests/golden/store.json knows which

Progress = Callable[[str, int, int], None]  # phase (read, write), units done, units in all


@dataclass(frozen=True)
class Prepared:
    """`rel`: the sealed store. `reused`: it was there before. `report`: rows in, out and why; its `seconds` are this call's."""

    rel: str
    address: str
    reused: bool
    report: dict[str, Any]


@dataclass(frozen=True)
class Keys:
    """The first pass's results, all units end to end. `bounds`: where each unit's rows begin, and the end."""

    row_id_N2: np.ndarray
    text_N2: np.ndarray
    group_N2: np.ndarray
    label_N: np.ndarray
    bounds: np.ndarray
    marks: list[str]
    left: dict[str, Any]


def prepare(
    config: DataConfig,
    *,
    weights_rel: str,
    seed: int,
    storage: Storage,
    progress: Progress | None = None,
    workers: int | None = None,
    blocks: int | None = None,
) -> Prepared:
    """Make the token store, or find it. `workers` bounds the tasks at once, `blocks` sets Ray's blocks; neither changes a byte.

    Raises DataError naming file and row where input cannot be used, UserError where the spec's numbers do not fit the corpus.
    """
    started = time.perf_counter()
    tables = stage_ops(config.augment, storage)
    files, units = scan(config.sources, config.shard_rows, storage)
    address = store_address(config, files, tables, weights_rel=weights_rel, seed=seed, storage=storage)
    found = _sealed(address, config, storage)
    if found is not None:
        return Prepared(found.rel, address, True, {**found.report, "seconds": time.perf_counter() - started})
    rel = f"stores/{address}"
    work = Work(config, storage.url, rel, weights_rel, tables, seed)
    run = functools.partial(_run, work=work, workers=workers, blocks=blocks, progress=progress)
    keys = _gather(run("read", passes.read_keys, [{"unit": unit.dump()} for unit in units]), len(units))
    _refuse_bad(keys.left, config.max_bad_rows)
    code_N, conflicts = decide(keys, config, seed)
    items = [{"unit": unit.dump(), **_decision(keys, code_N, unit.number)} for unit in units]
    done = {row["unit"]: json.loads(row["done"]) for row in run("write", passes.write_unit, items)}
    parts = {name: [done[unit.number][name] for unit in units if name in done[unit.number]] for name in SPLITS}
    report = build_report(
        config, files, keys.left, parts, duplicates=int((code_N == split.LEFT).sum()), conflicts=conflicts
    )
    orders = _write_orders(keys, code_N, parts, rel, seed, storage)
    _seal(work, files, parts, orders, report, address, storage)
    for unit in units:
        storage.remove(f"{rel}/{passes.note_name(unit.number)}")  # only restarts need the notes
    return Prepared(rel, address, False, {**report, "seconds": time.perf_counter() - started})


def find(config: DataConfig, *, weights_rel: str, seed: int, storage: Storage) -> Prepared | None:
    """The finished store of this spec and these inputs, if there is one. Hashes the input files; needs no Ray.

    Raises as `prepare` does for inputs that cannot be read.
    """
    tables = stage_ops(config.augment, storage)
    files, _ = scan(config.sources, config.shard_rows, storage)
    address = store_address(config, files, tables, weights_rel=weights_rel, seed=seed, storage=storage)
    return _sealed(address, config, storage)


def _sealed(address: str, config: DataConfig, storage: Storage) -> Prepared | None:
    manifest = storage.manifest(f"stores/{address}")
    if manifest is None:
        return None
    report = ordered(manifest.meta["report"], config.labels)
    _refuse_bad(report["left"], config.max_bad_rows)  # the limit may have been lowered since
    return Prepared(f"stores/{address}", address, True, {**report, "seconds": 0.0})


def store_address(
    config: DataConfig, files: list[InputFile], tables: list[str], *, weights_rel: str, seed: int, storage: Storage
) -> str:
    """Content address. Where the files lie and how many bad rows are forgiven changes no byte, so neither counts."""
    spec = config.model_dump(mode="json", exclude={"max_bad_rows": True, "sources": {"__all__": {"path"}}})
    for op in (spec["augment"] or {"ops": []})["ops"]:
        del op["thesaurus"]  # its table is in `tables`, by content
    return digest(
        {
            "stage": ["prepare", STAGE_VERSION],
            "spec": spec,
            "seed": seed,
            "inputs": [[file.source, file.rel, file.format, file.sha256] for file in files],
            "tables": tables,
            "tokenizer": tokenizer_fingerprint(weights_rel, storage),
        }
    )


def tokenizer_fingerprint(weights_rel: str, storage: Storage) -> str:
    """Hash of the tokenizer's files alone: other weights with the same tokenizer share a store."""
    manifest = storage.manifest(weights_rel)
    if manifest is None:
        raise DamagedError(f"{storage.path(weights_rel)}: no finished model folder there; stage the weights first")
    return digest({name: manifest.files[name]["sha256"] for name in FILES if name in manifest.files})


# ------------------------------------------------------------------------------------------------ running the passes


def _run(
    phase: str,
    function: Callable[..., dict[str, Any]],
    items: list[dict[str, Any]],
    *,
    work: Work,
    workers: int | None,
    blocks: int | None,
    progress: Progress | None,
) -> Iterator[dict[str, Any]]:
    """Ray Data over the units, one task a block; results as they come. Raises DataError with a worker's own words."""
    import ray.data

    if not ray.is_initialized():  # Ray Data would start a Ray of its own, without our packages on its workers
        raise RuntimeError("prepare reads rows with Ray Data: call it inside cluster.local.session")
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "Progress bars disabled"
    logging.getLogger("ray.data._internal.execution.streaming_executor").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False  # the caller shows its own progress
    dataset = ray.data.from_items(items, override_num_blocks=min(blocks or len(items), len(items)))
    dataset = dataset.map(function, fn_kwargs={"work": work}, concurrency=workers)
    for done, row in enumerate(dataset.iter_rows(), start=1):
        if row["error"]:
            raise DataError(row["error"])
        if progress:
            progress(phase, done, len(items))
        yield row


def _gather(rows: Iterator[dict[str, Any]], units: int) -> Keys:
    """Results in the order of units, whatever order they came in."""
    found = {row["unit"]: row for row in rows}
    ordered = [found[number] for number in range(units)]
    label_N = np.frombuffer(b"".join(row["labels"] for row in ordered), np.int32)
    sizes = [len(row["labels"]) // 4 for row in ordered]
    return Keys(
        row_id_N2=hashes(b"".join(row["row_ids"] for row in ordered)),
        text_N2=hashes(b"".join(row["texts"] for row in ordered)),
        group_N2=hashes(b"".join(row["groups"] for row in ordered)),
        label_N=label_N,
        bounds=np.cumsum([0, *sizes]),
        marks=[row["mark"] for row in ordered],
        left=merge_left([json.loads(row["left"]) for row in ordered]),
    )


def _refuse_bad(left: dict[str, Any], max_bad_rows: int) -> None:
    bad = {reason: found for reason, found in left.items() if found["bad"]}
    total = sum(found["count"] for found in bad.values())
    if total > max_bad_rows:
        shown = "; ".join(
            f"{reason}: {found['count']} (such as {'; '.join(found['examples'])})" for reason, found in bad.items()
        )
        raise DataError(
            f"{total} rows cannot be used, data.max_bad_rows allows {max_bad_rows}: {shown}; mend the files or raise data.max_bad_rows"
        )


# ------------------------------------------------------------------------------------------------ deciding


def decide(keys: Keys, config: DataConfig, seed: int) -> tuple[np.ndarray, int]:
    """uint8 code a row (split, or LEFT for a duplicate), and how many duplicates had another label than the row kept."""
    duplicates = find_duplicates(keys.text_N2, keys.row_id_N2, keys.label_N)
    if not len(keys.label_N):
        raise DataError(
            "no row is left to train on; the report's reasons: " + (", ".join(keys.left) or "the files are empty")
        )
    keep_N = duplicates.keep_N if config.clean.drop_duplicates else np.ones_like(duplicates.keep_N)
    code_N = np.full(len(keep_N), split.LEFT, np.uint8)
    code_N[keep_N] = split.assign(keys.group_N2[keep_N], config.split, seed)
    return code_N, duplicates.conflicts


def _decision(keys: Keys, code_N: np.ndarray, number: int) -> dict[str, Any]:
    part = slice(int(keys.bounds[number]), int(keys.bounds[number + 1]))
    return {"codes": code_N[part].tobytes(), "mark": keys.marks[number]}


# ------------------------------------------------------------------------------------------------ sealing


def _write_orders(
    keys: Keys, code_N: np.ndarray, parts: dict[str, list[dict[str, Any]]], rel: str, seed: int, storage: Storage
) -> dict[str, dict[str, Any]]:
    """`<split>.order.npy`: the shown order of a split's entries (int64): rows by salted text hash, copies behind their row."""
    aside = storage.staging()
    files = {}
    for code, name in enumerate(SPLITS):
        hash_N = split.salted(keys.text_N2[code_N == code], seed, "order")
        per_row = b"".join(base64.b64decode(part["per_row"]) for part in parts[name])
        order = np.argsort(np.repeat(hash_N, np.frombuffer(per_row, np.uint8)), kind="stable").astype("<i8")
        np.save(aside / f"{name}.order.npy", order, allow_pickle=False)
        files[f"{name}.order.npy"] = describe(aside / f"{name}.order.npy")
        storage.put(f"{rel}/{name}.order.npy", aside / f"{name}.order.npy")
    aside.rmdir()
    return files


def _seal(
    work: Work,
    files: list[InputFile],
    parts: dict[str, list[dict[str, Any]]],
    orders: dict[str, dict[str, Any]],
    report: dict[str, Any],
    address: str,
    storage: Storage,
) -> None:
    config = work.config
    meta = {
        "address": address,
        "stage_version": STAGE_VERSION,
        "seed": work.seed,
        "labels": config.labels,
        "preprocessing": {
            "clean": config.clean.model_dump(mode="json"),
            "tokenize": config.tokenize.model_dump(mode="json"),
            "tokenizer": tokenizer_fingerprint(work.weights_rel, storage),
        },
        "splits": {
            name: {
                "rows": sum(part["rows"] for part in found),
                "entries": sum(part["entries"] for part in found),
                "shards": [part["file"] for part in found],
            }
            for name, found in parts.items()
        },
        "inputs": [
            {
                "source": config.sources[file.source].name,
                "rel": file.rel,
                "bytes": file.bytes,
                "records": file.records,
                "sha256": file.sha256,
            }
            for file in files
        ],
        "tables": work.tables,
        "spec": config.model_dump(mode="json"),
        "report": report,
    }
    shards = {part["file"]: part["describe"] for found in parts.values() for part in found}
    storage.seal(work.store_rel, dict(sorted({**shards, **orders}.items())), meta)
