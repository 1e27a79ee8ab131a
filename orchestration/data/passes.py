"""The two passes over the input that run in Ray workers. Takes a unit of work; the first gives compact keys (identity,
hashes, label) from which the driver decides duplicates and splits, the second writes the unit's shards. Called by `prepare`
through Ray Data. Each is a pure function of the unit, the spec and the driver's decision, so a shard's bytes depend neither
on who writes it nor when.

A user's error travels as text in the result: Ray would wrap an exception in a traceback."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.data.augment import Op, augment, build_ops
from orchestration.data.config import DataConfig
from orchestration.data.scan import Unit
from orchestration.data.sources import Rows, read_rows
from orchestration.data.store import SPLITS, write_shard
from orchestration.data.tokenize import Tokenizer
from orchestration.errors import DataError, UserError
from orchestration.storage import Storage, describe


@dataclass(frozen=True)
class Work:
    """What every unit of one store needs; picklable."""

    config: DataConfig
    storage_url: str
    store_rel: str
    weights_rel: str
    tables: list[str]  # storage name an augmentation op
    seed: int


def _telling(function: Callable[[dict[str, Any], Work], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(function)
    def wrapped(item: dict[str, Any], work: Work) -> dict[str, Any]:
        try:
            return {"error": "", **function(item, work)}
        except UserError as error:
            return {"error": str(error)}

    return wrapped


def _rows(unit: Unit, work: Work) -> Rows:
    return read_rows(unit, work.config.sources[unit.source], work.config.labels, work.config.clean)


def mark(rows: Rows) -> str:
    """Differs where the two passes did not see the same rows."""
    return hashlib.blake2b(b"".join(rows.row_ids + rows.text_hashes), digest_size=16).hexdigest()


@_telling
def read_keys(item: dict[str, Any], work: Work) -> dict[str, Any]:
    """First pass. `item`: {unit}. Gives 16-byte digests and int32 labels end to end, and what left."""
    unit = Unit.load(item["unit"])
    rows = _rows(unit, work)
    return {
        "unit": unit.number,
        "mark": mark(rows),
        "row_ids": b"".join(rows.row_ids),
        "texts": b"".join(rows.text_hashes),
        "groups": b"".join(rows.group_hashes),
        "labels": np.asarray(rows.labels, np.int32).tobytes(),
        "left": json.dumps({reason: asdict(left) for reason, left in rows.left.items()}),
    }


@_telling
def write_unit(item: dict[str, Any], work: Work) -> dict[str, Any]:
    """Second pass. `item`: {unit, codes (uint8 a row: split or LEFT), mark}. Gives what was written, as JSON: split name ->
    file, its description and counts. Where an interrupted run wrote the unit whole, nothing is done again."""
    unit, storage = Unit.load(item["unit"]), Storage(work.storage_url)
    note = f"{work.store_rel}/{note_name(unit.number)}"
    done = _written(storage, work.store_rel, note)
    if done is None:
        done = _write(unit, item, work, storage)
        storage.write_json(note, done)  # last: a crash above leaves no note, and the unit is written again
    return {"unit": unit.number, "done": json.dumps(done)}


def note_name(number: int) -> str:
    return f"unit-{number:06d}.json"


def _written(storage: Storage, store_rel: str, note: str) -> dict[str, Any] | None:
    """The note of a unit whose shards are all there, byte for byte."""
    try:
        done = json.loads(storage.read(note))
        for part in done.values():
            data = storage.read(f"{store_rel}/{part['file']}")
            if hashlib.sha256(data).hexdigest() != part["describe"]["sha256"]:
                return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return done


def _write(unit: Unit, item: dict[str, Any], work: Work, storage: Storage) -> dict[str, Any]:
    rows = _rows(unit, work)
    if mark(rows) != item["mark"]:
        raise DataError(
            f"{unit.name}: the file changed while it was being prepared; run it again when nothing writes to it"
        )
    codes = np.frombuffer(item["codes"], np.uint8)
    aside = storage.staging()
    done = {}
    try:
        for code, split in enumerate(SPLITS):
            chosen = np.flatnonzero(codes == code).tolist()
            if chosen:
                file = f"{split}-{unit.number:06d}.arrow"
                done[split] = {"file": file, **_shard(aside / file, rows, chosen, split, work)}
                storage.put(f"{work.store_rel}/{file}", aside / file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return done


def _shard(path: Path, rows: Rows, chosen: list[int], split: str, work: Work) -> dict[str, Any]:
    """Write one shard; gives its description and counts."""
    copies = work.config.augment.copies if work.config.augment and split == "train" else 0
    ops = _ops(work) if copies else []
    at: list[int] = []  # row of each entry
    copy: list[int] = []
    texts: list[str] = []
    for row in chosen:
        versions = _versions(rows.texts[row], ops, copies, rows.row_ids[row], work.seed)
        at += [row] * len(versions)
        copy += [number for number, _ in versions]
        texts += [text for _, text in versions]
    tokenizer = _tokenizer(work.storage_url, work.weights_rel, work.config.tokenize.max_length)
    before = tokenizer.truncated
    ids = tokenizer.encode(texts)
    labels = [rows.labels[row] for row in at]
    write_shard(path, row_ids=[rows.row_ids[row] for row in at], copies=copy, input_ids=ids, labels=labels, texts=texts)
    per_row = np.bincount(np.searchsorted(chosen, at), minlength=len(chosen)).astype(np.uint8)
    return {
        "describe": describe(path),
        "rows": len(chosen),
        "entries": len(at),
        "per_row": base64.b64encode(per_row.tobytes()).decode(),  # entries a row: itself and its copies
        "unchanged": len(chosen) * (copies + 1) - len(at),
        "truncated": tokenizer.truncated - before,
        "lengths": sorted(Counter(map(len, ids)).items()),
        "classes": np.bincount([rows.labels[row] for row in chosen], minlength=len(work.config.labels)).tolist(),
    }


def _versions(text: str, ops: list[Op], copies: int, row_id: bytes, seed: int) -> list[tuple[int, str]]:
    """(copy, text): the row as it is and its copies; one that changed nothing, or equals another, is left out."""
    found = [(0, text)]
    for number in range(1, copies + 1):
        changed = augment(text, ops, seed=seed, row_id=row_id, copy=number)
        if all(changed != other for _, other in found):
            found.append((number, changed))
    return found


def _ops(work: Work) -> list[Op]:
    return build_ops(work.config.augment, work.tables, work.storage_url)


@functools.lru_cache(maxsize=2)
def _tokenizer(storage_url: str, weights_rel: str, max_length: int) -> Tokenizer:
    return Tokenizer(Storage(storage_url).fetch(weights_rel), max_length)
