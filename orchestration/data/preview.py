"""What cleaning and augmentation do to a few rows. Takes the `data` part of the spec; gives each row as it was read, as it is cleaned
and as each op changes it, alone and together, and a picture of images, sounds and series. Called by `eagleray data preview`; reads
the first unit of each source in this process, with the code that prepares it. Starts no Ray and makes no store."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestration.data.augment import Augmenter, stage_ops
from orchestration.data.config import AUDIO_OPS, IMAGE_OPS, TEXT_OPS, CleanConfig, DataConfig
from orchestration.data.scan import Unit, scan
from orchestration.data.sources import Rows, read_rows
from orchestration.data.targets import shown as in_words
from orchestration.storage import Storage

ALL = "all together"


@dataclass
class Shown:
    """One row. `texts`: stage (read, cleaned, an op, ALL) -> its text, None where the op leaves it as it is. `media`: kind ->
    stage -> array. `targets`: what the row teaches beside its class, in words."""

    source: str
    row: str  # file and number
    label: str | None
    texts: dict[str, str | None]
    media: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)


def preview(config: DataConfig, *, storage: Storage, seed: int, rows: int) -> list[Shown]:
    """`rows` rows of each source, evenly from its first unit. Raises UserError and DataError as `prepare` does."""
    tables = stage_ops(config.augment, storage)
    _, units = scan(config, storage)
    stages = _stages(config, tables, storage, seed)
    found: list[Shown] = []
    for number in range(len(config.sources)):
        unit = next((unit for unit in units if unit.source == number), None)
        found += _of_unit(unit, config, stages, rows) if unit else []
    return found


def _stages(
    config: DataConfig, tables: list[str], storage: Storage, seed: int
) -> list[tuple[str, set[str], Augmenter]]:
    """(name, ops, augmenter) of each op alone, and of all."""
    if config.augment is None:
        return []
    common: dict[str, Any] = {"labels": config.labels, "storage_url": storage.url, "seed": seed}
    stages: list[tuple[str, set[str], Augmenter]] = []
    for op, table in zip(config.augment.ops, tables, strict=True):
        alone = config.augment.model_copy(update={"ops": [op]})
        stages.append((op.op, {op.op}, Augmenter(alone, tables=[table], **common)))
    if len(stages) > 1:
        every: set[str] = {op.op for op in config.augment.ops}
        stages.append((ALL, every, Augmenter(config.augment, tables=tables, **common)))
    return stages


def _of_unit(unit: Unit, config: DataConfig, stages: list[tuple[str, set[str], Augmenter]], count: int) -> list[Shown]:
    source = config.sources[unit.source]
    rows = read_rows(unit, source, config, keep_media=True)
    bare = CleanConfig(normalize="none", max_chars=10**8, drop_duplicates=False)
    raw = read_rows(unit, source, config.model_copy(update={"clean": bare}))
    as_read = dict(zip(raw.records, raw.texts, strict=True))
    chosen = np.unique(np.linspace(0, len(rows.texts) - 1, min(count, len(rows.texts))).astype(int)).tolist()
    found = []
    for row in chosen:
        label = config.labels[rows.labels[row]] if rows.labels[row] >= 0 else None
        text, read = rows.texts[row], as_read.get(rows.records[row])
        texts: dict[str, str | None] = {"read": read} if read not in (None, text) else {}
        shown = Shown(source.name, unit.shown(rows.records[row] - unit.first), label, {**texts, "cleaned": text})
        shown.targets = in_words({name: values[row] for name, values in rows.targets.items()}, config, text)
        shown.media = {
            kind: {"read": value} for kind, values in rows.media.items() if (value := values[row]) is not None
        }
        for name, ops, augmenter in stages:
            _change(shown, rows, row, name, ops, augmenter)
        found.append(shown)
    return found


def _change(shown: Shown, rows: Rows, row: int, name: str, ops: set[str], augmenter: Augmenter) -> None:
    """Add what one stage makes of the row's first copy."""
    row_id, label, text = rows.row_ids[row], rows.labels[row], rows.texts[row]
    if ops & set(TEXT_OPS):
        shown.texts[name] = augmenter.texts([text], [row_id], [label], [1])[0]
    if ops & set(IMAGE_OPS + AUDIO_OPS):
        for kind, found in shown.media.items():
            found[name] = augmenter.media(kind, found["read"], row_id=row_id, label=label, text=text, draw=1)


def picture(rows: list[Shown], *, rate: int) -> bytes | None:
    """PNG: a line a row, a column a stage; images, spectrograms of sounds (`rate`: samples a second), curves of series. None where
    no row has any."""
    drawn = [(shown, kind, found) for shown in rows for kind, found in shown.media.items()]
    if not drawn:
        return None
    import matplotlib

    matplotlib.use("Agg")  # no display on a server
    from matplotlib import pyplot

    columns = max(len(found) for _, _, found in drawn)
    size = (2.2 * columns, 2.3 * len(drawn))
    figure, axes = pyplot.subplots(len(drawn), columns, figsize=size, squeeze=False, layout="constrained")
    for line, (shown, kind, found) in zip(axes, drawn, strict=True):
        for cell in line:
            cell.axis("off")
        for cell, (stage, array) in zip(line, found.items(), strict=False):
            _draw(cell, kind, array, rate)
            cell.set_title(f"{stage}\n{(shown.texts['cleaned'] or '')[:24]}" if stage == "read" else stage, fontsize=7)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    pyplot.close(figure)
    return held.getvalue()


def _draw(axes: Any, kind: str, array: np.ndarray, rate: int) -> None:
    if kind == "image":
        axes.imshow(np.concatenate(list(array), axis=1))  # frames of a video side by side
    elif kind == "audio":
        axes.specgram(array.astype(np.float32) + 1e-3, NFFT=min(256, len(array)), noverlap=0, Fs=rate)
    else:
        axes.plot(array)
