"""The report of `prepare`: rows in, out and why. Takes what both passes counted; gives plain JSON values that go into the
store's manifest, the terminal and the run's lineage. Pure functions; nothing here depends on workers or time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from orchestration.data.config import DataConfig
from orchestration.data.scan import InputFile
from orchestration.data.sources import EXAMPLES
from orchestration.data.store import SPLITS

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def merge_left(units: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Reason -> {bad, count, examples} over all units, in their order; the first few examples are kept."""
    merged: dict[str, dict[str, Any]] = {}
    for unit in units:
        for reason, left in unit.items():
            found = merged.setdefault(reason, {"bad": left["bad"], "count": 0, "examples": []})
            found["count"] += left["rows"]
            found["examples"] = (found["examples"] + left["examples"])[:EXAMPLES]
    return merged


def build_report(
    config: DataConfig,
    files: list[InputFile],
    left: dict[str, dict[str, Any]],
    parts: dict[str, list[dict[str, Any]]],
    *,
    duplicates: int,
    conflicts: int,
) -> dict[str, Any]:
    """rows_in = the rows of all splits + the counts of `left`; augmented copies come on top."""
    if duplicates:
        shown = [f"{conflicts} of them with another label than the row that stays"] if conflicts else []
        left = {**left, "duplicate of a row that stays": {"bad": False, "count": duplicates, "examples": shown}}
    return {
        "rows_in": sum(file.records for file in files),
        "left": dict(sorted(left.items(), key=lambda item: (-item[1]["count"], item[0]))),
        "duplicates": duplicates,
        "label_conflicts": conflicts,
        "splits": {name: _split(config.labels, found) for name, found in parts.items()},
        "sources": [_source(config, files, number) for number in range(len(config.sources))],
    }


def ordered(report: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """A report read back from a manifest, whose keys are sorted by name, in the order `build_report` gave."""
    left = dict(sorted(report["left"].items(), key=lambda item: (-item[1]["count"], item[0])))
    splits = {
        name: {
            **report["splits"][name],
            "classes": {label: report["splits"][name]["classes"][label] for label in labels},
        }
        for name in SPLITS
    }
    return {**report, "left": left, "splits": splits}


def _split(labels: list[str], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """`tokens` and `truncated` count copies too; `unchanged_copies` were left out, since no word of them changed."""
    return {
        "rows": sum(part["rows"] for part in parts),
        "copies": sum(part["entries"] - part["rows"] for part in parts),
        "unchanged_copies": sum(part["unchanged"] for part in parts),
        "classes": {label: sum(part["classes"][i] for part in parts) for i, label in enumerate(labels)},
        "tokens": _lengths(parts),
        "truncated": sum(part["truncated"] for part in parts),
    }


def _lengths(parts: list[dict[str, Any]]) -> dict[str, int]:
    """Quantiles of tokens a row and their sum."""
    counts: Counter[int] = Counter()
    for part in parts:
        counts.update(dict(part["lengths"]))
    if not counts:
        return {"total": 0, **dict.fromkeys(QUANTILES, 0)}
    lengths = np.array(sorted(counts))
    reached = np.cumsum([counts[int(length)] for length in lengths]) / sum(counts.values())
    quantiles = {name: int(lengths[np.searchsorted(reached, share - 1e-12)]) for name, share in QUANTILES.items()}
    return {"total": sum(length * count for length, count in counts.items()), **quantiles}


def _source(config: DataConfig, files: list[InputFile], number: int) -> dict[str, Any]:
    mine = [file for file in files if file.source == number]
    return {
        "name": config.sources[number].name,
        "files": len(mine),
        "records": sum(file.records for file in mine),
        "bytes": sum(file.bytes for file in mine),
    }
