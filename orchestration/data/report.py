"""The report of `prepare`: rows in, out and why. Takes what both passes counted; gives plain JSON values that go into the
store's manifest, the terminal and the run's lineage. Pure functions; nothing here depends on workers or time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from orchestration.data.config import DataConfig
from orchestration.data.decide import DUPLICATE, LEFT
from orchestration.data.scan import InputFile
from orchestration.data.sources import EXAMPLES
from orchestration.data.store import SPLITS

BINS = 64
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def build_report(
    config: DataConfig, files: list[InputFile], read: dict[str, Any], done: list[dict[str, Any]]
) -> dict[str, Any]:
    """rows_in = the rows of all splits + the counts of `left`; augmented copies come on top. `read`: {left, conflicts, codes} of the
    first pass and the decision; `done`: what each unit wrote."""
    left = dict(read["left"])
    for code, reason in LEFT.items():
        if count := int(read["codes"][code]):
            examples = [example for unit in done for example in unit["left"].get(reason, [])][:EXAMPLES]
            left[reason] = {"bad": False, "count": count, "examples": examples}
    parts = {name: [unit[name] for unit in done if name in unit] for name in SPLITS}
    report = {
        "rows_in": sum(file.records for file in files),
        "left": left,
        "duplicates": int(read["codes"][DUPLICATE]),
        "label_conflicts": read["conflicts"],
        "splits": {name: _split(config, found) for name, found in parts.items()},
        "sources": [_source(config, files, number) for number in range(len(config.sources))],
    }
    return ordered(report, config)


def ordered(report: dict[str, Any], config: DataConfig) -> dict[str, Any]:
    """A report (maybe read back from a manifest, whose keys are sorted by name) in the order that people read."""
    left = dict(sorted(report["left"].items(), key=lambda item: (-item[1]["count"], item[0])))
    splits = {name: dict(report["splits"][name]) for name in SPLITS}
    for found in splits.values():
        found["classes"] = {label: found["classes"][label] for label in config.labels}
    return {**report, "left": left, "splits": splits}


def _split(config: DataConfig, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """`entries`: training examples, `tokens` and `truncated` are theirs. `unchanged_copies` were left out: no draw changed them and
    passed the filters. `cut`: sounds that were too long. `without`: rows without image, audio or series."""
    kinds = sorted({kind for part in parts for kind in part["without"]})
    lengths: Counter[int] = Counter()
    for part in parts:
        lengths.update(dict(part["lengths"]))
    tokens = _lengths(lengths)
    return {
        "rows": sum(part["rows"] for part in parts),
        "copies": sum(part["copies"] for part in parts),
        "unchanged_copies": sum(part["unchanged"] for part in parts),
        "entries": sum(part["entries"] for part in parts),
        "classes": {label: sum(part["classes"][i] for part in parts) for i, label in enumerate(config.labels)},
        "tokens": tokens,
        "histogram": _histogram(lengths),
        "truncated": sum(part["truncated"] for part in parts),
        "cut": sum(part["cut"] for part in parts),
        "without": {kind: sum(part["without"].get(kind, 0) for part in parts) for kind in kinds},
        **({"targets": _summed(parts)} if any("targets" in part for part in parts) else {}),
        **({"packed_share": _filled(tokens, parts, config)} if config.tokenize.pack else {}),
    }


def _summed(parts: list[dict[str, Any]]) -> dict[str, int]:
    """What rows teach beside their class: how many of each kind, and how many were lost."""
    found: Counter[str] = Counter()
    for part in parts:
        found.update(part.get("targets", {}))
    return dict(sorted(found.items()))


def _filled(tokens: dict[str, int], parts: list[dict[str, Any]], config: DataConfig) -> float:
    """Tokens over the room of the packed entries."""
    room = sum(part["entries"] for part in parts) * config.tokenize.max_length
    return round(tokens["total"] / room, 6) if room else 0.0


def _lengths(counts: Counter[int]) -> dict[str, int]:
    """Quantiles of tokens an entry and their sum."""
    if not counts:
        return {"total": 0, **dict.fromkeys(QUANTILES, 0)}
    lengths = np.array(sorted(counts))
    reached = np.cumsum([counts[int(length)] for length in lengths]) / sum(counts.values())
    quantiles = {name: int(lengths[np.searchsorted(reached, share - 1e-12)]) for name, share in QUANTILES.items()}
    return {"total": sum(length * count for length, count in counts.items()), **quantiles}


def _histogram(counts: Counter[int]) -> list[list[int]]:
    """[tokens from, entries] of at most BINS equal ranges of lengths: what the picture shows."""
    if not counts:
        return []
    step = -(-(max(counts) + 1) // BINS)
    binned: Counter[int] = Counter()
    for length, count in counts.items():
        binned[length // step * step] += count
    return [[start, binned[start]] for start in range(0, max(counts) + 1, step)]


def _source(config: DataConfig, files: list[InputFile], number: int) -> dict[str, Any]:
    mine = [file for file in files if file.source == number]
    return {
        "name": config.sources[number].name,
        "files": len(mine),
        "records": sum(file.records for file in mine),
        "bytes": sum(file.bytes for file in mine),
    }
