"""The two passes over the input that run in Ray workers. Takes a unit of work; the first gives compact keys (identity,
hashes, label, near-duplicate features) from which the driver decides what stays, which split and how many copies; the second
writes the unit's shards. Called by `prepare` through Ray Data. Each is a pure function of the unit, the spec and the driver's
decision, so a shard's bytes depend neither on who writes it nor when.

A user's error travels as text in the result: Ray would wrap an exception in a traceback."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestration.data import keys
from orchestration.data.config import DataConfig
from orchestration.data.decide import LEFT
from orchestration.data.entries import Entries, write_entries
from orchestration.data.scan import Unit
from orchestration.data.sources import EXAMPLES, Rows, kinds, read_rows
from orchestration.data.store import SPLITS
from orchestration.errors import DataError, UserError
from orchestration.storage import Storage


@dataclass(frozen=True)
class Work:
    """What every unit of one store needs; picklable."""

    config: DataConfig
    storage_url: str
    store_rel: str
    weights_rel: str
    tables: list[str]  # storage name an augmentation op
    seed: int
    facts: str | None = None  # storage name of the knowledge that rows are told


def _telling(function: Callable[[dict[str, Any], Work], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(function)
    def wrapped(item: dict[str, Any], work: Work) -> dict[str, Any]:
        try:
            return {"error": "", **function(item, work)}
        except UserError as error:
            return {"error": str(error)}

    return wrapped


def mark(rows: Rows) -> str:
    """Differs where the two passes did not see the same rows."""
    return hashlib.blake2b(b"".join(rows.row_ids + rows.text_hashes), digest_size=16).hexdigest()


@_telling
def read_keys(item: dict[str, Any], work: Work) -> dict[str, Any]:
    """First pass. `item`: {unit}. Gives the keys of `orchestration.data.keys` and what left."""
    unit = Unit.load(item["unit"])
    source = work.config.sources[unit.source]
    rows = read_rows(unit, source, work.config)
    return {
        "unit": unit.number,
        "mark": mark(rows),
        "keys": keys.pack(rows.row_ids, rows.text_hashes, rows.group_hashes, rows.labels),
        "features": b"" if kinds(source) else _features(rows, work),
        "left": json.dumps({reason: asdict(left) for reason, left in rows.left.items()}),
    }


def _features(rows: Rows, work: Work) -> bytes:
    """Near-duplicate features as an .npz file's bytes; empty where the spec does not ask for them."""
    if work.config.clean.near_duplicates is None:
        return b""
    from orchestration.data import sketch

    texts = rows.texts
    if "pair" in rows.targets:
        texts = [f"{text}\n{other}" for text, other in zip(texts, rows.targets["pair"], strict=True)]
    found = sketch.features(texts, work.config.clean.near_duplicates)
    content = io.BytesIO()
    np.savez(content, **found.__dict__)
    return content.getvalue()


@_telling
def write_unit(item: dict[str, Any], work: Work) -> dict[str, Any]:
    """Second pass. `item`: {unit, mark, codes (uint8 a row: split or a reason of `decide.LEFT`), copies (uint16 a row), folds
    (int8 a row)}. Gives what was written, as JSON: split name -> file, its description and counts; and `left` -> examples of
    rows that were decided against. Where an interrupted run wrote the unit whole, nothing is done again."""
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
        for name in SPLITS:
            if name in done:
                data = storage.read(f"{store_rel}/{done[name]['file']}")
                if hashlib.sha256(data).hexdigest() != done[name]["describe"]["sha256"]:
                    return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return done


def _write(unit: Unit, item: dict[str, Any], work: Work, storage: Storage) -> dict[str, Any]:
    source = work.config.sources[unit.source]
    rows = read_rows(unit, source, work.config, keep_media=True)
    if mark(rows) != item["mark"]:
        raise DataError(
            f"{unit.name}: the file changed while it was being prepared; run it again when nothing writes to it"
        )
    codes = np.frombuffer(item["codes"], np.uint8)
    copies, folds = np.frombuffer(item["copies"], np.uint16), np.frombuffer(item["folds"], np.int8)
    shown = functools.partial(_shown, unit, rows)
    done: dict[str, Any] = {"left": _examples(rows, codes, shown)}
    aside = storage.staging()
    try:
        for code, split in enumerate(SPLITS):
            chosen = np.flatnonzero(codes == code)
            if len(chosen):
                file = f"{split}-{unit.number:06d}.arrow"
                found = write_entries(aside / file, Entries(rows, chosen, copies, folds, unit.source, shown), work)
                done[split] = {"file": file, **found}
                storage.put(f"{work.store_rel}/{file}", aside / file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return done


def _shown(unit: Unit, rows: Rows, row: int) -> str:
    return unit.shown(rows.records[row] - unit.first)


def _examples(rows: Rows, codes: np.ndarray, shown: Callable[[int], str]) -> dict[str, list[str]]:
    """Reason -> the first few rows that the driver decided against."""
    return {
        reason: [f"{shown(row)}: {rows.texts[row][:60]!r}" for row in np.flatnonzero(codes == code)[:EXAMPLES]]
        for code, reason in LEFT.items()
        if (codes == code).any()
    }
