"""Row lengths before anything is prepared: the first unit of each source, read, cleaned and tokenised in this process. Called by
the plan verb; starts no Ray and writes nothing. An estimate, and says from how many rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestration.data.catalog import PREFIX, local
from orchestration.data.config import DataConfig, SplitConfig
from orchestration.data.knowledge import known
from orchestration.data.scan import scan
from orchestration.data.sources import read_rows
from orchestration.data.untokenized import tokenizer_of
from orchestration.preflight import Lengths
from orchestration.storage import Storage


def row_lengths(config: DataConfig, *, tokenizer: Path, storage: Storage) -> Lengths:
    """Lengths of the training split, extrapolated from each source's first unit. Duplicates across units are not seen."""
    longest = config.tokenize.max_length
    encoder = tokenizer_of(tokenizer, longest + 1)  # one more than allowed, so that truncation shows
    lengths: list[int] = []
    rows = named = 0.0  # to be dealt out, and of sources that are for training
    for source in config.sources:
        here = source.model_copy(update={"path": str(local(source.path))}) if source.path.startswith(PREFIX) else source
        files, units = scan(config.model_copy(update={"sources": [here]}), storage)
        found = read_rows(units[0], here, config)
        distinct = len(set(found.text_hashes)) if config.clean.drop_duplicates else len(found.texts)
        count = distinct / units[0].count * sum(file.records for file in files)
        rows, named = (
            (rows + count, named) if source.split is None else (rows, named + count * (source.split == "train"))
        )
        others = {"pair": found.targets["pair"]} if "pair" in found.targets else {}
        texts = found.texts
        if config.knowledge is not None:
            texts, others, _ = known(config.knowledge, storage).tell(texts, others)
        lengths += [len(row.ids) for row in encoder.framed(texts, *others.values())]
    sampled = np.array(lengths or [0])
    kept = np.minimum(sampled, longest)
    stored = config.augment is not None and config.augment.when == "prepare"
    copies = 1 + (config.augment.copies if stored and config.augment else 0)
    return Lengths(
        train_rows=max(0, round(named + _left_for_training(rows, config.split))) * copies,
        mean_tokens=float(kept.mean()),
        p99_tokens=int(np.quantile(kept, 0.99)),
        truncated_share=float((sampled > longest).mean()),
        sampled=len(lengths),
    )


def _left_for_training(rows: float, split: SplitConfig) -> float:
    for amount in (split.test, split.validation) if rows else ():
        rows -= amount * rows if isinstance(amount, float) else amount
    return rows
