"""The values of a record's columns: texts, numbers, classes. Takes a value as a format gives it; gives what a row is made of, or raises
Unusable in words that are the same for all rows of a kind. Called by `sources` and `targets` for each row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from orchestration.data.config import LabelConfig, parse_rule

NO_RULE = -1
MISSING = object()  # a column that a record does not have


class Unusable(Exception):
    """A value that no row can be made of. `reason` is the same for all rows of its kind; `value` goes into the example."""

    def __init__(self, reason: str, value: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = "no value" if value is MISSING or value is None else ascii(value)[:60]


class Refused(Exception):
    """A row that can be read but is not wanted: no fault of the file."""

    def __init__(self, reason: str, shown: str) -> None:
        super().__init__(reason)
        self.reason, self.shown = reason, shown


def wrong(column: str, reason: str, value: Any) -> Unusable:
    missing = "is missing" if value is MISSING else "is empty" if value is None else reason
    return Unusable(f"column {column!r} {missing}", value)


def text_of(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise wrong(column, "is not text", value)
    if not value.isascii():
        try:
            value.encode("utf-8")  # JSON escapes and bytes that are not UTF-8 leave lone surrogates
        except UnicodeEncodeError:
            raise wrong(column, "is not valid UTF-8", value) from None
    return value


def labeller(config: LabelConfig | None, labels: list[str]) -> Callable[[Any], int]:
    """A function from a record's value to a class index, NO_RULE, or raises Unusable."""
    if config is None:
        return lambda value: NO_RULE
    column = config.column
    if config.rules is None:
        index = {label: i for i, label in enumerate(labels)}

        def by_name(value: Any) -> int:
            found = index.get(value if isinstance(value, str) else _plain(value), NO_RULE)
            if found == NO_RULE:
                raise wrong(column, f"is none of the labels {', '.join(labels)}", value)
            return found

        return by_name
    rules = [(_COMPARE[sign], bound, labels.index(label)) for label, (sign, bound) in _parsed(config.rules).items()]

    def by_rule(value: Any) -> int:
        number = number_of(value)
        if number is None:
            raise wrong(column, "is not a number", value)
        return next((label for compare, bound, label in rules if compare(number, bound)), NO_RULE)

    return by_rule


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    "==": lambda value, bound: value == bound,
    ">=": lambda value, bound: value >= bound,
    ">": lambda value, bound: value > bound,
}


def _parsed(rules: dict[str, str]) -> dict[str, tuple[str, float]]:
    return {label: parse_rule(text, label) for label, text in rules.items()}


def _plain(value: Any) -> str:
    """A number or truth value as a spec would write it: 1, true."""
    if value is MISSING or value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def number_of(value: Any) -> float | None:
    """A finite number, also from a CSV field; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
