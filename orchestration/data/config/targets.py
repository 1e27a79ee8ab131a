"""What a row teaches beside its class: `value`, `pair`, `target`, `tags`, `span` and `labels` of a source, and what they exclude."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from orchestration.data.config.augment import TEXT_OPS

if TYPE_CHECKING:
    from orchestration.data.config import DataConfig
    from orchestration.data.config.sources import LabelConfig, SourceConfig

ANSWERS = ("target", "tags", "span")  # each is the store's column target_ids, so a spec has one of them
WHOLE = ("pair", *ANSWERS)  # belong to the one text of their row, as it is


class SpanConfig(BaseModel, extra="forbid", frozen=True):
    """A part of the context: of the `pair` text where the source has one, else of the text."""

    text: str = Field(description="Column that holds the answer, word for word; an empty one is no answer.")
    start: str = Field(description="Column that holds where the answer begins: characters of the context before it.")


def check_source(source: SourceConfig) -> None:
    """Raises ValueError."""
    if len(given := [key for key in ANSWERS if getattr(source, key) is not None]) > 1:
        raise ValueError(f"{' and '.join(given)}: a row has one of {', '.join(ANSWERS)}; leave the others out")
    for key in ("pair", "tags", "span"):
        if source.text is None and getattr(source, key) is not None:
            raise ValueError(f"{key} belongs to a text, and text is null; name the text's column, or leave {key} out")


def check(config: DataConfig) -> None:
    """Raises ValueError."""
    for key in ("value", *ANSWERS):
        have = [source.name for source in config.sources if getattr(source, key) is not None]
        for source in config.sources if have else []:
            if source.name not in have:
                raise ValueError(
                    f"source {have[0]!r} has {key}, source {source.name!r} has none; give it to each or none"
                )
    if config.tokenize.target_length is not None and config.sources[0].target is None:
        raise ValueError("tokenize.target_length cuts the target of a row; give each source a target, or leave it out")
    if bool(config.tags) != (config.sources[0].tags is not None):
        raise ValueError("tags names the values of the sources' column `tags` in order; give both, or neither")
    if config.tags:
        _distinct("tags", config.tags)
    _check_heads(config)
    for source in config.sources:
        for key, reason in _excluded(source, config):
            raise ValueError(f"source {source.name!r} has {key}, and {reason}")


def _distinct(key: str, classes: list[str]) -> None:
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"{key} {classes}: name two classes or more, each once")


def _check_heads(config: DataConfig) -> None:
    for head, classes in config.heads.items():
        _distinct(f"heads.{head}", classes)
        if not any(head in (source.labels or {}) for source in config.sources):
            raise ValueError(
                f"heads.{head}: no source gives it; add labels: {{{head}: {{column: ...}}}} to one, or leave it out"
            )
    for source, head, label in _labels(config):
        if head not in config.heads:
            near = difflib.get_close_matches(head, config.heads, n=1)
            raise ValueError(
                f"source {source.name!r} has labels for head {head!r}, which is not in heads"
                + (f"; nearest: {near[0]}" if near else "; name its classes there")
            )
        for name in label.rules or {}:
            if name not in config.heads[head]:
                raise ValueError(
                    f"source {source.name!r}: labels.{head} has a rule for {name!r}, which is not in heads.{head}"
                )


def _labels(config: DataConfig) -> Iterator[tuple[SourceConfig, str, LabelConfig]]:
    for source in config.sources:
        for head, label in (source.labels or {}).items():
            yield source, head, label


def _excluded(source: SourceConfig, config: DataConfig) -> Iterator[tuple[str, str]]:
    """(key of the source, why another part of the spec does not go with it and what to do)."""
    tokenize, clean = config.tokenize, config.clean
    text_ops = [op.op for op in config.augment.ops if op.op in TEXT_OPS] if config.augment else []
    for key in ("value", "labels", *WHOLE):
        if getattr(source, key) is not None and tokenize.pack:
            yield key, "tokenize.pack joins rows into one entry, which cannot have one each; set pack: false"
    for key in WHOLE:
        if getattr(source, key) is None:
            continue
        if tokenize.long == "windows":
            yield key, "tokenize.long: windows cuts a row into entries that it would be wrong for; set long: truncate"
        if tokenize.fim is not None:
            yield key, "tokenize.fim rearranges the text that it belongs to; leave fim out"
        if text_ops:
            yield key, f"augment.ops: {text_ops[0]} changes the text that it belongs to; leave ops of texts out"
    for part in ("markup", "boilerplate"):
        if source.tags is not None and getattr(clean, part):
            yield "tags", f"clean.{part} looks at a text, not at its words one by one; set {part}: false"
