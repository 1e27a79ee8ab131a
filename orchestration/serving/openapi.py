"""What `/docs` says of the route of a task. Takes the task's `Kind`; gives OpenAPI's description of its body, answer and refusals. Called
by `http.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration.answers.kinds import Kind
from orchestration.serving import media

_TEXT = {"type": "string", "minLength": 1}
_EXAMPLES = {"image": "iVBORw0KGgo...", "audio": "UklGRg...", "series": [[1.5], [2.0], [1.0]]}
_ERRORS = {
    401: "A bearer token is asked for.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "The body is not what is expected; `field` names where.",
    503: "Too many requests wait, or no version is up: try again after Retry-After seconds.",
    504: "No answer in time.",
}


def describe(kind: Kind, reads: Sequence[str]) -> dict[str, Any]:
    """For FastAPI's `openapi_extra`. `reads`: what the endpoint's model reads of a row."""
    given: dict[str, Any] = {"text": kind.example, **_EXAMPLES}
    parts = {name: given[name] for name in reads if given[name]}  # a text that a row needs not is left out
    example = {"texts": [kind.example]} if tuple(reads) == ("text",) else parts
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _body(kind, reads), "example": example}},
        },
        "responses": {
            "200": {
                "description": "One result a row, in order.",
                "content": {"application/json": {"schema": _answer(kind)}},
            },
            **{str(status): {"description": text} for status, text in _ERRORS.items()},
        },
    }


def _body(kind: Kind, reads: Sequence[str]) -> dict[str, Any]:
    options = {option.name: option.schema() for option in kind.options}
    if tuple(reads) != ("text",):
        return {"type": "object", "properties": {**media.schema(reads), **options}, "additionalProperties": False}
    one, many = kind.first
    several = {"type": "array", "items": _TEXT, "minItems": 1}
    beside = {"description": "The second text, where the model reads two."}
    other = {kind.second[1]: {**several, **beside}, kind.second[0]: {**_TEXT, **beside}} if kind.second else {}
    return {
        "type": "object",
        "properties": {many: several, one: _TEXT, **other, **options},
        "oneOf": [{"required": [many]}, {"required": [one]}],
        "additionalProperties": False,
    }


def _answer(kind: Kind) -> dict[str, Any]:
    model = {"type": "object", "properties": {"name": {"type": "string"}, "version": {"type": "string"}}}
    results = {"type": "array", "items": {"type": "object", "properties": kind.result}}
    return {
        "type": "object",
        "properties": {"request_id": {"type": "string"}, "model": model, "results": results},
    }
