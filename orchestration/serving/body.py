"""The body of a request, read and checked. Takes bytes as they arrive; gives texts and options, or `Refused` with the field, what was
found and what is allowed. Called by `http.py`; what differs by task stands in the task's `Kind`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from orchestration.answers.kinds import Kind, Unanswerable, kind_of
from orchestration.serving import media
from orchestration.serving.media import FORMS

TEXT = ("text",)


@dataclass(frozen=True)
class Limits:
    """What one request may cost. `token_sha256`: hex digest of the bearer token, None where none is asked for."""

    max_body_bytes: int
    max_texts: int
    timeout_s: float
    token_sha256: str | None = None


class Refused(Exception):
    """A request that is answered with an error. `field`: what in the body is wrong, e.g. `texts[3]`."""

    def __init__(
        self, status: int, code: str, message: str, *, field: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.field, self.headers = status, code, field, headers or {}


@dataclass(frozen=True)
class Ask:
    """A valid request body. `texts`: strings, pairs of them, or rows of several parts. `options`: all that the task has. `field`: what the
    texts were sent as. `listed`: they came as a list."""

    texts: list[Any]
    options: dict[str, Any]
    field: str
    listed: bool

    def refusal(self, error: Unanswerable) -> Refused:
        """What the task itself cannot answer, told like every wrong field."""
        field = error.where
        if isinstance(field, int) and error.part:
            field = f"rows[{field}].{error.part}" if self.listed else error.part
        elif isinstance(field, int):
            field = f"{self.field}[{field}]" if self.listed else self.field
        return _wrong(field, f"{field} {error.what}")


async def read(request: Request, limits: Limits) -> bytes:
    """The body, refused as soon as it is known to be too large: by its announced length, else while it is read."""
    too_large = Refused(
        413,
        "body_too_large",
        f"the body has more than max_body_bytes={limits.max_body_bytes}; send fewer rows at once or smaller files, or raise"
        " serve.max_body_bytes",
    )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.max_body_bytes:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise Refused(408, "body_too_slow", f"the body did not arrive within {limits.timeout_s} s") from None
    return b"".join(chunks)


def parse(raw: bytes, kind: Kind, limits: Limits, reads: Sequence[str] = TEXT) -> Ask:
    """The body -> rows and options. `reads`: what the endpoint's model reads of a row. Raises Refused(422)."""
    one, many = kind.first if tuple(reads) == TEXT else (reads[-1], "rows")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused(422, "not_json", f"the body is not JSON ({error}); send {{'{many}': [...]}}") from None
    if not isinstance(body, dict):
        raise _wrong("body", f"the body is {kind_of(body)}; send an object {{'{many}': [...]}} or {{'{one}': '...'}}")
    names = kind.names if tuple(reads) == TEXT else (*reads, "rows", *(option.name for option in kind.options))
    for key in body:
        if key not in names:
            told = f"; this endpoint reads {' and '.join(reads)}" if key in ("text", "texts", *FORMS) else ""
            raise _wrong(str(key)[:64], f"unknown field {str(key)[:64]!r}; allowed: {', '.join(names)}{told}")
    if many != "rows" and (one in body) == (many in body):
        raise _wrong(many, f"send either {many!r} (a list) or {one!r} (one string)")
    try:
        options = kind.read(body)
    except Unanswerable as error:
        raise _wrong(str(error.where), str(error)) from None
    if many == "rows":
        try:
            rows, listed = media.rows(body, reads, limits.max_texts)
        except media.Wrong as wrong:
            raise _wrong(wrong.field, str(wrong)) from None
        _check_copies(kind, options, len(rows), limits)
        return Ask(rows, options, field="rows" if listed else reads[-1], listed=listed)
    texts: list[Any] = [_text(body[one], one)] if one in body else _texts(body[many], many, limits)
    if kind.second and (others := _seconds(body, kind, len(texts), limits)):
        texts = list(zip(texts, others, strict=True))
    _check_copies(kind, options, len(texts), limits)
    return Ask(texts, options, field=many if many in body else one, listed=many in body)


def _check_copies(kind: Kind, options: dict[str, Any], count: int, limits: Limits) -> None:
    """Options that ask for several answers a text count as several texts."""
    for option in kind.options:
        if option.copies and count * options[option.name] > limits.max_texts:
            told = f"{option.name} is {options[option.name]} for {count} text(s)"
            raise _wrong(option.name, f"{told}, together above max_texts={limits.max_texts}; send several requests")


def _seconds(body: dict[str, Any], kind: Kind, count: int, limits: Limits) -> list[str]:
    """The second text of each of so many; none where none was sent."""
    assert kind.second is not None
    listed = int(kind.first[1] in body)
    field, other = kind.second[listed], kind.second[1 - listed]
    if other in body:
        raise _wrong(
            other, f"{other} belongs to {kind.first[1 - listed]!r}; beside {kind.first[listed]!r} send {field!r}"
        )
    if field not in body:
        return []
    found = _texts(body[field], field, limits) if listed else [_text(body[field], field)]
    if len(found) != count:
        raise _wrong(field, f"{field} has {len(found)} items, {kind.first[1]} has {count}; send as many of both")
    return found


def _texts(texts: Any, field: str, limits: Limits) -> list[str]:
    if not isinstance(texts, list) or not texts:
        raise _wrong(field, f"{field} is {kind_of(texts)}; send a list of 1 to {limits.max_texts} strings")
    if len(texts) > limits.max_texts:
        raise _wrong(field, f"{field} has {len(texts)} items, max_texts={limits.max_texts}; send several requests")
    return [_text(text, f"{field}[{i}]") for i, text in enumerate(texts)]


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong(field, f"{field} is {kind_of(value)}; send a string")
    if not value.strip():
        raise _wrong(field, f"{field} is empty or white space only; send a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(field, f"{field} holds half of a surrogate pair, which is not text; send valid Unicode") from None
    return value


def _wrong(field: str, message: str) -> Refused:
    return Refused(422, "invalid", message, field=field)
