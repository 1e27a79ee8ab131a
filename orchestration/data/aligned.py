"""What rows teach, in step with their tokens. Takes a tokenizer, the texts of a unit and what `targets` read beside them; gives entries,
the store's columns and counts for the report. Called by `entries` in workers. A spec without targets goes straight to
`Tokenizer.entries`, and of a tokenizer that makes no tokens (`untokenized`) nothing else is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from orchestration.data.config import DataConfig, TokenizeConfig
from orchestration.data.frame import span_tokens
from orchestration.data.shards import HEAD, Numbers
from orchestration.data.tokenize import Entries, Framed

NO_TAG = -100  # torch's losses pass it over
Beside = dict[str, list[Any]]  # name -> a value a text or row


def columns(config: DataConfig) -> list[str]:
    """The store's columns beside those that every store has."""
    given = {key.partition(".")[0] for source in config.sources for key in source.targets}
    answers = given & {"target", "tags", "span"}
    named = {"value": "value" in given, "pair_at": "pair" in given, "target_ids": bool(answers)}
    told = ["withheld"] if config.knowledge is not None else []
    return [*(name for name, there in named.items() if there), *told, *(HEAD + head for head in config.heads)]


def encode(
    tokenizer: Any, texts: list[str], beside: Beside, config: DataConfig, keys: Sequence[int] | None
) -> tuple[Entries, dict[str, Numbers], dict[str, int]]:
    """Entries of the texts; the columns `pair_at` and `target_ids`, an entry each; and how many entries lost a target. Raises as
    `Tokenizer.entries` does."""
    wanted = columns(config)
    found: dict[str, Numbers] = {}
    counts: Counter[str] = Counter()
    rows: list[Framed] = []
    if beside.keys() & {"pair", "tags", "span"}:
        others = [beside["pair"]] if "pair" in beside else []
        rows = tokenizer.words(beside["words"], *others) if "tags" in beside else tokenizer.framed(texts, *others)
        entries = _entries(rows)
    else:
        entries = tokenizer.entries(texts, config.tokenize, keys)
    if "pair_at" in wanted:
        ends = np.diff(entries.offsets_E1)
        found["pair_at"] = np.array([row.parts[1].start for row in rows]) if "pair" in beside else ends
    if "tags" in beside:
        found["target_ids"] = laid(map(_tags, rows, beside["tags"]))
    elif "span" in beside:
        contexts = beside.get("pair", texts)
        found["target_ids"] = laid(_spans(rows, tokenizer.offsets(contexts), beside["span"], counts))
    elif "target" in beside:
        length = config.tokenize.target_length or config.tokenize.max_length
        made = tokenizer.entries(beside["target"], TokenizeConfig(max_length=length))
        found["target_ids"] = made.values_T, made.offsets_E1
        counts["targets cut to data.tokenize.target_length"] = made.truncated
    return entries, found, counts


def numbers(beside: Beside, row_E: np.ndarray, config: DataConfig) -> dict[str, Numbers]:
    """The columns of one number a row: `value` and heads (-1 of heads that the source does not give). `row_E`: of each entry."""
    found: dict[str, Numbers] = {}
    for name in columns(config):
        if name == "value" or name.startswith(HEAD):
            found[name] = np.array(beside[name])[row_E] if name in beside else np.full(len(row_E), -1)
    return found


def counted(beside: Beside, chosen: Iterable[int], config: DataConfig) -> dict[str, int]:
    """Rows of each class of each head, words of each tag, rows without an answer."""
    counts: Counter[str] = Counter()
    for row in chosen:
        for name, values in beside.items():
            if name == "tags":
                counts.update(f"tag={config.tags[tag]}" for tag in values[row])
            elif name == "span":
                counts["without an answer"] += values[row] is None
            elif name.startswith(HEAD) and values[row] >= 0:
                head = name.removeprefix(HEAD)
                counts[f"{head}={config.heads[head][values[row]]}"] += 1
    return counts


def _entries(rows: list[Framed]) -> Entries:
    values_T, offsets_E1 = laid(row.ids for row in rows)
    every = np.arange(len(rows))
    return Entries(values_T, offsets_E1, every, np.zeros(len(rows), np.int16), sum(row.cut for row in rows))


def laid(rows: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Lists end to end, and where each begins."""
    found = list(rows)
    return np.concatenate([np.empty(0, np.int32), *found]), np.cumsum([0, *map(len, found)])


def _tags(row: Framed, tags: list[int]) -> np.ndarray:
    assert row.starts_W is not None
    target_T = np.full(len(row.ids), NO_TAG, np.int32)
    there_W = row.starts_W >= 0
    target_T[row.starts_W[there_W]] = np.array(tags, np.int32)[there_W]
    return target_T


def _spans(
    rows: list[Framed], offsets: list[np.ndarray], spans: list[tuple[int, int] | None], counts: Counter[str]
) -> Iterable[np.ndarray]:
    for row, offsets_T2, span in zip(rows, offsets, spans, strict=True):
        tokens = span_tokens(row.parts[-1], offsets_T2, span) if span else None
        counts["answers cut away"] += span is not None and tokens is None
        yield np.array(tokens or (0, 0), np.int32)
