"""Requests to a model that reads more than text: one row by its parts, or a list of rows. Takes the parsed JSON body; gives rows whose
pictures and sounds are bytes, not yet decoded (replicas do that, with the code of training), or `Refused`. Called by `body`. Knows nothing
of formats."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.answers.kinds import kind_of

DATA_URL = re.compile(r"data:[a-zA-Z0-9.+/;=_-]*,", re.ASCII)
FORMS = {
    "text": "a string",
    "image": "a file in base64, or a data URL",
    "audio": "a file in base64, or a data URL",
    "series": "a list of steps, each a number or a list of numbers",
}


class Wrong(ValueError):
    """`field`: where; the text says what was found and what is allowed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def rows(body: Mapping[str, Any], reads: Sequence[str], max_rows: int) -> tuple[list[dict[str, Any]], bool]:
    """Rows, and whether they came as a list. Raises Wrong."""
    shown = ", ".join(f"'{name}'" for name in reads)
    if "rows" not in body:
        if not any(name in body for name in reads):
            raise Wrong(
                reads[0],
                f"send {shown}, or 'rows': a list of objects with {shown}; this endpoint reads {' and '.join(reads)}",
            )
        return [_row({name: body[name] for name in reads if name in body}, reads, "")], False
    if both := [name for name in reads if name in body]:
        raise Wrong("rows", f"send either 'rows' or {both[0]!r}")
    listed = body["rows"]
    if not isinstance(listed, list) or not listed:
        raise Wrong("rows", f"rows is {kind_of(listed)}; send a list of 1 to {max_rows} objects with {shown}")
    if len(listed) > max_rows:
        raise Wrong("rows", f"rows has {len(listed)} items, max_texts={max_rows}; send several requests")
    return [_row(row, reads, f"rows[{at}]") for at, row in enumerate(listed)], True


def _row(row: Any, reads: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise Wrong(where, f"{where} is {kind_of(row)}; send an object with {', '.join(reads)}")
    for name in row:
        if name not in reads:
            raise Wrong(
                f"{where}.{str(name)[:64]}", f"{where} has {str(name)[:64]!r}; this endpoint reads {', '.join(reads)}"
            )
    found = {}
    for name, value in row.items():
        if value is not None:
            field = f"{where}.{name}" if where else name
            found[name] = _CHECKS[name](value, field)
    if not found:
        first = f"{where}.{reads[0]}" if where else reads[0]
        raise Wrong(first, f"{where or 'the body'} has nothing to read; send {' or '.join(reads)}")
    return found


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        what = "empty or white space only" if isinstance(value, str) else kind_of(value)
        raise Wrong(field, f"{field} is {what}; send a text, or leave it out")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Wrong(field, f"{field} holds half of a surrogate pair, which is not text; send valid Unicode")
    return value


def _file(value: Any, field: str) -> bytes:
    """What base64 holds. White space in it is let pass, as line breaks of `base64` are."""
    name = field.rpartition(".")[2]
    if not isinstance(value, str) or not value.strip():
        what = "empty" if isinstance(value, str) else kind_of(value)
        raise Wrong(field, f"{field} is {what}; send {FORMS[name]}")
    head = DATA_URL.match(value)
    if head and not head.group().endswith(";base64,"):
        raise Wrong(field, f"{field} is a data URL without base64; send data:{name}/...;base64,...")
    if re.match(r"[a-z]+://", value):
        raise Wrong(field, f"{field} is an address, and nothing is fetched; send {FORMS[name]}")
    try:
        return base64.b64decode("".join(value[head.end() if head else 0 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Wrong(field, f"{field} is not base64 ({error}); send {FORMS[name]}") from None


def _series(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Wrong(field, f"{field} is {kind_of(value)}; send {FORMS['series']}")
    return value


_CHECKS = {"text": _text, "image": _file, "audio": _file, "series": _series}


def schema(reads: Sequence[str]) -> dict[str, Any]:
    """JSON schema of a body's parts."""
    shapes: dict[str, dict[str, Any]] = {
        "text": {"type": "string", "minLength": 1},
        "series": {
            "type": "array",
            "items": {"oneOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]},
        },
    }
    file = {"type": "string", "contentEncoding": "base64", "minLength": 1}
    parts = {name: {**shapes.get(name, file), "description": FORMS[name]} for name in reads}
    row = {"type": "object", "properties": parts, "additionalProperties": False, "minProperties": 1}
    return {**parts, "rows": {"type": "array", "items": row, "minItems": 1}}
