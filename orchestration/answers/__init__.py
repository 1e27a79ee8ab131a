"""What an endpoint says, by task. `kinds` is the table of routes with their options, light enough for any process; the other
modules answer from an open package. Nothing here knows Ray or HTTP: evaluation, tests and replicas get the same answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.answers.base import Answers
    from orchestration.package import Package

# task -> module here, and class in it
CLASSES = {
    "classification": ("rows", "Classes"),
    "heads": ("rows", "Heads"),
    "regression": ("rows", "Values"),
    "tagging": ("words", "Tags"),
    "spans": ("spans", "Extracts"),
    "masked_lm": ("masks", "Fills"),
    "sentence_order": ("order", "Orders"),
    "next_sentence": ("order", "Follows"),
    "causal_lm": ("generate", "Continuations"),
    "contrastive": ("vectors", "Vectors"),
    "seq2seq": ("writes", "Outputs"),
    "denoising": ("writes", "Outputs"),
    "captioning": ("captions", "Captions"),
    "matching": ("matches", "Matches"),
}


def of(package: Package, *, micro_batch: int = 32, limit_s: float = 3600.0) -> Answers:
    """`micro_batch`: rows in one forward pass; `limit_s`: longest pass of a task that makes many steps."""
    import importlib

    module, name = CLASSES[package.task.config.task]
    made: Answers = getattr(importlib.import_module(f"orchestration.answers.{module}"), name)(
        package, micro_batch=micro_batch, limit_s=limit_s
    )
    return made
