"""The report of `prepare`: rows in, out and why. Takes what both passes counted; gives plain JSON values that go into the
store's manifest, the terminal and the run's lineage. Pure functions; nothing here depends on workers or time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from orchestration.data.config import DataConfig
from orchestration.data.scan import InputFile
from orchestration.data.sources import EXAMPLES

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def merge_left(units: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Reason -> {bad, rows, examples} over all units, in their order; the first few examples are kept."""
    merged: dict[str, dict[str, Any]] = {}
    for unit in units:
        for reason, left in unit.items():
            found = merged.setdefault(reason, {"bad": left["bad"], "rows": 0, "examples": []})
            found["rows"] += left["rows"]
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
    """rows_in = the sum of rows_out + the sum of left; `augmented` copies come on top."""
    reasons = [{"reason": reason, **found} for reason, found in left.items()]
    if duplicates:
        shown = [f"{conflicts} of them with another label than the row that stays"] if conflicts else []
        reasons.append({"reason": "duplicate of a row that stays", "bad": False, "rows": duplicates, "examples": shown})
    return {
        "rows_in": sum(file.records for file in files),
        "rows_out": {name: sum(part["rows"] for part in found) for name, found in parts.items()},
        "left": sorted(reasons, key=lambda item: (-item["rows"], item["reason"])),
        "duplicates": duplicates,
        "label_conflicts": conflicts,
        "augmented": sum(part["entries"] - part["rows"] for found in parts.values() for part in found),
        "unchanged_copies": sum(part["unchanged"] for found in parts.values() for part in found),
        "classes": {name: _classes(config.labels, found) for name, found in parts.items()},
        "tokens": {name: _lengths(found) for name, found in parts.items()},
        "truncated": {name: sum(part["truncated"] for part in found) for name, found in parts.items()},
        "sources": [_source(config, files, number) for number in range(len(config.sources))],
    }


def _classes(labels: list[str], parts: list[dict[str, Any]]) -> dict[str, int]:
    return {label: sum(part["classes"][i] for part in parts) for i, label in enumerate(labels)}


def _lengths(parts: list[dict[str, Any]]) -> dict[str, int]:
    """Quantiles of tokens a row and their sum, copies counted."""
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
