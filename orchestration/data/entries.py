"""A unit's rows of one split -> one shard. Takes rows, which of them, and how many copies each gets; makes the copies, tokenises,
cuts or packs, writes the Arrow file and counts. Called by the second pass in workers. An entry is one training example: a row
as it is, an augmented copy of it, a window of either, or several rows packed."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.data import aligned, knowledge, rng, split
from orchestration.data.config import AUDIO_OPS, IMAGE_OPS, TEXT_OPS, DataConfig
from orchestration.data.pack import pack
from orchestration.data.shards import HEAD, Columns, Numbers, write_shard
from orchestration.data.sources import Rows
from orchestration.data.tokenize import Tokenizer, TooManyWindows
from orchestration.data.untokenized import NoTokens, tokenizer_of
from orchestration.errors import DataError
from orchestration.storage import Storage, describe

if TYPE_CHECKING:
    from orchestration.data.augment import Augmenter
    from orchestration.data.passes import Work

RETRIES = 4
AGAIN = 1 << 20  # between two draws of one copy: above any copy's number


@dataclass(frozen=True)
class Entries:
    """`chosen`: indices of the rows of this split. `copies_N`, `folds_N`: of all rows of the unit. `shown`: a row's file and number."""

    rows: Rows
    chosen: np.ndarray
    copies_N: np.ndarray
    folds_N: np.ndarray
    source: int
    shown: Callable[[int], str]


@dataclass
class _Examples:
    """Rows and their copies, before they are tokenised."""

    row: list[int]
    copy: list[int]
    texts: list[str]
    media: dict[str, list[np.ndarray | None]]


def write_entries(path: Path, entries: Entries, work: Work) -> dict[str, Any]:
    """Write one shard; gives its description and counts. Raises DataError for a row that is too long for its windows."""
    rows, config = entries.rows, work.config
    made = _examples(entries, work)
    tokenizer = _tokenizer(work.storage_url, work.weights_rel, config.tokenize.max_length)
    keys = None
    if config.tokenize.fim is not None:
        keys = [
            rng.key(work.seed, rows.row_ids[row], copy, "fim") for row, copy in zip(made.row, made.copy, strict=True)
        ]
    try:
        beside = {name: [values[row] for row in made.row] for name, values in rows.targets.items()}
        texts, beside, withheld = _informed(made, beside, rows, work)
        tokens, targets, lost = aligned.encode(tokenizer, texts, beside, config, keys)
    except TooManyWindows as error:
        raise DataError(f"{entries.shown(made.row[error.text])} {error}") from None
    ids = [rows.row_ids[row] for row in made.row]  # of each example
    values_T, offsets_E1, at_E, part_E, segments = tokens.values_T, tokens.offsets_E1, tokens.row_E, tokens.part_E, None
    if config.tokenize.pack:
        packed = pack(tokens, config.tokenize.max_length)
        first = packed.bounds_B1[:-1]
        values_T, offsets_E1, at_E, part_E = (
            packed.values_T,
            packed.offsets_B1,
            packed.rows_E[first],
            packed.parts_E[first],
        )
        segments = (packed.segments_E, packed.bounds_B1, [ids[at] for at in packed.rows_E])
    row_E = np.asarray(made.row, np.int64)[at_E]
    columns = Columns(
        row_ids=[ids[at] for at in at_E],
        copies=np.asarray(made.copy)[at_E],
        parts=part_E,
        sources=np.full(len(at_E), entries.source),
        folds=entries.folds_N[row_E],
        labels=np.asarray(rows.labels)[row_E],
        texts=None if config.tokenize.pack else [made.texts[at] for at in at_E],
        values_T=values_T,
        offsets_E1=offsets_E1,
        media={kind: [values[at] for at in at_E] for kind, values in made.media.items()},
        segments=segments,
        targets=aligned.numbers(rows.targets, row_E, config) | targets | withheld,
    )
    write_shard(path, columns)
    hash_N2 = np.frombuffer(b"".join(rows.text_hashes[row] for row in row_E), ">u8").reshape(-1, 2)
    lengths_E = np.diff(offsets_E1)
    wanted = int(entries.copies_N[entries.chosen].sum())
    return {
        "describe": describe(path),
        "rows": len(entries.chosen),
        "entries": len(lengths_E),
        "copies": len(made.copy) - len(entries.chosen),
        "unchanged": wanted + len(entries.chosen) - len(made.copy),
        "order": base64.b64encode(split.salted(hash_N2, work.seed, "order").tobytes()).decode(),  # uint64 an entry
        "truncated": tokens.truncated,
        "lengths": sorted(Counter(lengths_E.tolist()).items()),
        "classes": np.bincount(
            np.asarray(rows.labels)[entries.chosen].clip(0), minlength=max(1, len(config.labels))
        ).tolist(),
        "cut": sum(rows.cut[row] for row in entries.chosen),
        "without": {kind: sum(rows.media[kind][row] is None for row in entries.chosen) for kind in rows.media},
        **({"targets": aligned.counted(rows.targets, entries.chosen, config) | lost} if rows.targets else {}),
    }


def _informed(
    made: _Examples, beside: aligned.Beside, rows: Rows, work: Work
) -> tuple[list[str], aligned.Beside, dict[str, Numbers]]:
    """Texts, and what stands beside them, with the facts that each is told, and the column of those withheld from it. The store's column of
    texts stays without."""
    if work.facts is None or work.config.knowledge is None:
        return made.texts, beside, {}
    known = knowledge.staged(work.storage_url, work.facts, work.config.knowledge)
    told = known.tell(made.texts, beside, _answers([rows.labels[row] for row in made.row], beside, work.config))
    return told.texts, told.beside, {"withheld": aligned.laid(told.withheld)}


def _answers(labels: list[int], beside: aligned.Beside, config: DataConfig) -> list[str]:
    """What each row teaches, in words: its class, those of its heads, the text to write."""
    classes = {"": (config.labels, labels)}
    classes |= {name: (config.heads[name.removeprefix(HEAD)], beside[name]) for name in beside if name.startswith(HEAD)}
    named = [[names[values[at]] for names, values in classes.values() if values[at] >= 0] for at in range(len(labels))]
    written = beside.get("target", [""] * len(labels))
    return [" ".join([*names, text]) for names, text in zip(named, written, strict=True)]


def _examples(entries: Entries, work: Work) -> _Examples:
    """Each row, and behind it those of its copies that differ from it and from each other (or, where rows are only repeated, all)."""
    rows, config = entries.rows, work.config
    row = np.repeat(entries.chosen, entries.copies_N[entries.chosen].astype(np.int64) + 1)
    starts = np.cumsum(entries.copies_N[entries.chosen].astype(np.int64) + 1) - 1 - entries.copies_N[entries.chosen]
    copy = np.arange(len(row)) - np.repeat(starts, entries.copies_N[entries.chosen].astype(np.int64) + 1)
    whole = _Examples(row.tolist(), copy.tolist(), [rows.texts[i] for i in row], {})
    whole.media = {kind: [values[i] for i in row] for kind, values in rows.media.items()}
    if config.augment is None or config.augment.when == "epoch" or not (copy > 0).any():
        return whole
    return _augmented(whole, rows, config, _augmenter(work))


def _augmented(whole: _Examples, rows: Rows, config: DataConfig, augmenter: Augmenter) -> _Examples:
    """Copies are drawn once, and where the spec names an amount again while they are like their row or like another copy of it."""
    assert config.augment is not None
    ops = {op.op for op in config.augment.ops}
    kept = [copy == 0 for copy in whole.copy]
    seen: set[tuple[int, str]] = set()
    exact = config.augment.until is not None or config.balance is not None
    waiting = [i for i, stays in enumerate(kept) if not stays]
    for attempt in range(1 + RETRIES * exact):
        ids, labels = [rows.row_ids[whole.row[i]] for i in waiting], [rows.labels[whole.row[i]] for i in waiting]
        draws = [whole.copy[i] + attempt * AGAIN for i in waiting]
        texts: list[str | None] = [None] * len(waiting)
        if ops & set(TEXT_OPS):
            texts = augmenter.texts([whole.texts[i] for i in waiting], ids, labels, draws)
        for i, text, row_id, label, draw in zip(waiting, texts, ids, labels, draws, strict=True):
            new = text is not None and text != whole.texts[i] and (whole.row[i], text) not in seen
            changed = ops & set(IMAGE_OPS + AUDIO_OPS) and _media(whole, i, augmenter, row_id, label, draw)
            kept[i] = new or bool(changed)
            if text is not None and kept[i]:
                seen.add((whole.row[i], text))
                whole.texts[i] = text
        waiting = [i for i in waiting if not kept[i]]
    keep = [i for i, stays in enumerate(kept) if stays]
    media = {kind: [values[i] for i in keep] for kind, values in whole.media.items()}
    return _Examples([whole.row[i] for i in keep], [whole.copy[i] for i in keep], [whole.texts[i] for i in keep], media)


def _media(whole: _Examples, i: int, augmenter: Augmenter, row_id: bytes, label: int, draw: int) -> bool:
    """Change the media of example `i` in place; True where that changed anything."""
    changed = False
    for kind, values in whole.media.items():
        array = values[i]
        if array is not None:
            values[i] = augmenter.media(kind, array, row_id=row_id, label=label, text=whole.texts[i], draw=draw)
            changed = changed or not np.array_equal(values[i], array)  # type: ignore[arg-type]
    return changed


_augmenters: dict[str, Augmenter] = {}  # one a store: its word caches live as long as the process


def _augmenter(work: Work) -> Augmenter:
    from orchestration.data.augment import Augmenter

    if work.store_rel not in _augmenters:
        _augmenters.clear()
        assert work.config.augment is not None
        _augmenters[work.store_rel] = Augmenter(
            work.config.augment,
            labels=work.config.labels,
            tables=work.tables,
            storage_url=work.storage_url,
            seed=work.seed,
        )
    return _augmenters[work.store_rel]


@lru_cache(maxsize=2)
def _tokenizer(storage_url: str, weights_rel: str, max_length: int) -> Tokenizer | NoTokens:
    return tokenizer_of(Storage(storage_url).fetch(weights_rel), max_length)
