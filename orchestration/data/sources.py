"""Input records -> rows. Takes a unit of work and the `data` part of the spec; gives clean rows with their identity and counts
what left and why. Called by both passes of `prepare` in Ray workers: the same unit gives the same rows. A record that cannot
be used never stops the reading: it is counted, shown by file and row, and judged by the driver."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from orchestration.data import formats
from orchestration.data.clean import clean_text, match_text, refusal
from orchestration.data.config import DataConfig, SourceConfig
from orchestration.data.fields import MISSING, NO_RULE, Refused, Unusable, labeller, text_of, wrong
from orchestration.data.scan import Unit
from orchestration.data.targets import Targets

EXAMPLES = 3
NONE: dict[str, Any] = {}  # of a source without targets: one for all rows


@dataclass
class Left:
    """Rows that left for one reason. `bad`: unreadable ones, which count against data.max_bad_rows."""

    bad: bool = False
    rows: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, shown: str) -> None:
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(shown)


@dataclass
class Rows:
    """The clean rows of one unit, in record order. `records`: their numbers in the file. `media`: kind (image, audio, series) ->
    an array a row as the store keeps it, None where the row has none; empty unless asked for. `targets`: what rows teach
    beside their class, as `targets` reads it; empty where the source names none."""

    records: list[int] = field(default_factory=list)
    row_ids: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    text_hashes: list[bytes] = field(default_factory=list)
    group_hashes: list[bytes] = field(default_factory=list)
    media: dict[str, list[np.ndarray | None]] = field(default_factory=dict)
    targets: dict[str, list[Any]] = field(default_factory=dict)
    cut: list[bool] = field(default_factory=list)  # whose sound was longer than data.audio.max_seconds
    left: dict[str, Left] = field(default_factory=dict)

    def drop(self, reason: str, shown: str, *, bad: bool = False) -> None:
        self.left.setdefault(reason, Left(bad)).add(shown)


def read_rows(unit: Unit, source: SourceConfig, config: DataConfig, *, keep_media: bool = False) -> Rows:
    """Read, label and clean the records of a unit.

    row_id (contract 2) is the 128-bit blake2b of source name, relative path and record index. Raises DataError where a whole
    part of a file cannot be decoded.
    """
    make, row_id = _Maker(source, config), _identity(unit, source)
    rows = Rows(media={kind: [] for kind in kinds(source)} if keep_media else {})
    rows.targets = {name: [] for name in make.targets.names} if make.targets else {}
    media, targets = list(rows.media.items()), list(rows.targets.items())
    for index, record in enumerate(formats.module(unit.format).records(unit, source=source, config=config)):
        if isinstance(record, str):
            rows.drop(record, unit.shown(index), bad=record != formats.BLANK)
            continue
        try:
            row = make(record)
        except Unusable as error:
            rows.drop(error.reason, f"{unit.shown(index)}: {error.value}", bad=True)
            continue
        except Refused as error:
            rows.drop(error.reason, f"{unit.shown(index)}: {error.shown}")
            continue
        rows.records.append(unit.first + index)
        rows.row_ids.append(row_id(index))
        rows.texts.append(row.text)
        rows.labels.append(row.label)
        rows.text_hashes.append(row.hash)
        rows.group_hashes.append(row.group or row.hash)
        rows.cut.append(row.cut)
        for kind, kept in media:
            kept.append(row.media[kind])
        for name, values in targets:
            values.append(row.targets[name])
    return rows


def _identity(unit: Unit, source: SourceConfig) -> Callable[[int], bytes]:
    """The row id of a unit's record: the digest of (source name, relative path, record index in that file). The part that all rows of
    a file share is hashed once."""
    if unit.files:  # one record a file
        return lambda index: _digest(f"{source.name}\0{unit.files[index][1]}\x000".encode())
    head, first = hashlib.blake2b(f"{source.name}\0{unit.rel}\0".encode(), digest_size=16), unit.first

    def row_id(index: int) -> bytes:
        content = head.copy()
        content.update(b"%d" % (first + index))
        return content.digest()

    return row_id


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def kinds(source: SourceConfig) -> tuple[str, ...]:
    """What a row of the source holds besides text."""
    return (*source.media, *(("series",) if source.series else ()))


class _Row(NamedTuple):  # a frozen dataclass takes a microsecond more to make, a tenth of the whole row
    text: str
    label: int
    hash: bytes  # of the normalised text (both of a pair) and all media: equal rows have equal ones
    group: bytes | None
    media: dict[str, np.ndarray | None]
    cut: bool
    targets: dict[str, Any]


class _Maker:
    """One record -> one row. Raises Unusable or Refused."""

    def __init__(self, source: SourceConfig, config: DataConfig) -> None:
        self.source, self.config = source, config
        self.label = labeller(source.label, config.labels)
        self.column = source.label.column if source.label else None
        self.kinds = kinds(source)
        self.targets = Targets(source, config) if source.targets else None
        self.text = (
            source.text if self.targets is None else None
        )  # where text and targets belong together they are read so

    def __call__(self, record: dict[str, Any]) -> _Row:
        source, clean = self.source, self.config.clean
        text = text_of(record.get(self.text, MISSING), self.text) if self.text is not None else ""
        label = self.label(record.get(self.column, MISSING)) if self.column is not None else NO_RULE
        group = _group_hash(record.get(source.group, MISSING), source.group) if source.group is not None else None
        if label == NO_RULE and self.column is not None:
            raise Refused("no label rule matches", str(record.get(self.column)))
        if clean.code is not None and source.format == "code":
            _check_code(record, clean.code)
        self.cut = False
        media = {kind: self._medium(kind, record) for kind in self.kinds}
        targets = NONE
        if self.targets is None:
            text = clean_text(text, clean)
        else:
            text, targets = self.targets(record)
        if (text or all(value is None for value in media.values())) and (
            reason := refusal(text, clean)
        ):  # a picture needs no caption
            raise Refused(reason, repr(text[:60]))
        content = match_text(text).encode()
        if targets and "pair" in targets:
            content = b"\0".join([content, match_text(targets["pair"]).encode()])
        if media:
            content = b"".join([content, *(value.tobytes() for value in media.values() if value is not None)])
        return _Row(text, label, _digest(content), group, media, self.cut, targets)

    def _medium(self, kind: str, record: dict[str, Any]) -> np.ndarray | None:
        from orchestration.data import media

        if kind == "series":
            return record["series"]
        value = record.get(self.source.media[kind])
        if value is None:
            return None
        try:
            if kind == "audio":
                samples, self.cut = media.decode_audio(value, self.config.audio)
                return samples
            if self.source.format == "video":
                return media.decode_video(value, self.config.image)
            return media.decode_image(value, self.config.image)
        except media.MediaError as error:
            raise Unusable(error.reason, error.detail) from None


def _check_code(record: dict[str, Any], config: Any) -> None:
    from orchestration.data import code

    if reason := code.refusal(record.get("language"), record.get("licence"), config):
        raise Refused(reason, str(record.get("licence") or "no licence found"))


def _group_hash(group: Any, column: str) -> bytes:
    if group is MISSING or group is None:
        raise wrong(column, "", group)
    return hashlib.blake2b(f"group\0{group}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
