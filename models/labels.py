"""Names of the outputs of task heads: `head:class`, the heads side by side."""

from __future__ import annotations


def joined(heads: dict[str, list[str]]) -> list[str]:
    """Names of the outputs of task heads: `head:class`."""
    return [f"{head}:{name}" for head, names in heads.items() for name in names]


def parted(labels: list[str]) -> dict[str, list[str]]:
    """The way back: head -> its classes. A name without a head is of head ''."""
    heads: dict[str, list[str]] = {}
    for label in labels:
        head, sign, name = label.partition(":")
        heads.setdefault(head if sign else "", []).append(name if sign else label)
    return heads
