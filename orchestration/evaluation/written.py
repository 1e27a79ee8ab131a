"""Tasks whose answers are texts: which module scores them. A module has `found` (what a package answers to rows of a split), `wanted` (what
people said), `scores` (one against the other), `by_row` (those that are means of rows, a number a row) and `baselines`. Called by `assess`."""

from __future__ import annotations

import importlib
from typing import Any

MODULES = {"spans": "written_spans", "seq2seq": "written_texts", "captioning": "written_captions"}


def of(task: str) -> Any:
    """None for a task that answers otherwise."""
    return importlib.import_module(f"orchestration.evaluation.{MODULES[task]}") if task in MODULES else None
