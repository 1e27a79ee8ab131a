"""The endpoint's HTTP face: routes, limits, error bodies, OpenAPI. Takes a `Router` (who answers) and `Limits`; gives an
ASGI app. Every answer has a request id; every refusal names the field and the limit. Called inside the router replica;
knows nothing of Ray, so it is tested without."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import uuid
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from orchestration import inference
from orchestration.serving.router import Overloaded, Router, TimedOut, Unavailable

FIELDS = ("text", "texts", "logits")
RETRY_AFTER_S = 1
logger = logging.getLogger("ray.serve")


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
    """A valid request body."""

    texts: list[str]
    logits: bool


def build_app(router: Router, limits: Limits) -> FastAPI:
    """The app with all routes; `/docs` and `/openapi.json` describe them."""
    app = FastAPI(title=f"eagleray endpoint {router.name}", description="Text classification.", version="1")
    app.add_exception_handler(Exception, _unexpected)

    @app.get("/healthz", summary="The process is alive")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", summary="A version that gets traffic is ready", responses={503: {"description": "None is"}})
    async def readyz() -> JSONResponse:
        ready = await router.ready()
        if not ready:
            return JSONResponse({"status": "not ready"}, status_code=503, headers={"Retry-After": str(RETRY_AFTER_S)})
        return JSONResponse({"status": "ready", "versions": ready})

    @app.get("/v1/models", summary="Versions behind this endpoint and their share of the traffic")
    async def models(request: Request) -> JSONResponse:
        return _guarded(request, limits, lambda: {"models": router.models()})

    @app.get("/v1/lineage", summary="Where each version came from: rows, seeds, trial, run, code, library versions")
    async def lineage(request: Request) -> JSONResponse:
        return _guarded(request, limits, lambda: {"name": router.name, "versions": router.lineage()})

    @app.post("/v1/classify", summary="Label and scores of each text", openapi_extra=_CLASSIFY_DOCS)
    async def classify(request: Request) -> JSONResponse:
        request_id = _request_id(request)
        try:
            _check_token(request, limits)
            with router.admitted():
                body = await _classify(request, router, limits)
            return _answer({**body, "request_id": request_id})
        except Refused as refused:
            return _refusal(refused, request_id)
        except (Overloaded, Unavailable) as error:
            code = "overloaded" if isinstance(error, Overloaded) else "unavailable"
            again = {"Retry-After": str(RETRY_AFTER_S)}
            return _refusal(Refused(503, code, str(error), headers=again), request_id)
        except TimedOut as error:
            return _refusal(Refused(504, "timed_out", str(error)), request_id)

    return app


async def _classify(request: Request, router: Router, limits: Limits) -> dict[str, Any]:
    raw = await read_body(request, limits)
    ask = parse(raw, limits)
    answer = await router.classify(ask.texts, timeout_s=limits.timeout_s)
    results = inference.results(answer.logits_NC, answer.labels, answer.truncated)
    if ask.logits:
        for result, logits_C in zip(results, answer.logits_NC.tolist(), strict=True):
            result["logits"] = dict(zip(answer.labels, logits_C, strict=True))
    return {"model": {"name": router.name, "version": answer.version}, "results": results}


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body, refused as soon as it is known to be too large: by its announced length, else while it is read."""
    too_large = Refused(
        413,
        "body_too_large",
        f"the body has more than max_body_bytes={limits.max_body_bytes}; send fewer texts at once",
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


def parse(raw: bytes, limits: Limits) -> Ask:
    """The body -> texts. Raises Refused(422) naming the field, what was found and what is allowed."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused(422, "not_json", f"the body is not JSON ({error}); send {{'texts': [...]}}") from None
    if not isinstance(body, dict):
        raise _wrong("body", f"the body is {_kind(body)}; send an object {{'texts': [...]}} or {{'text': '...'}}")
    for key in body:
        if key not in FIELDS:
            raise _wrong(str(key)[:64], f"unknown field {str(key)[:64]!r}; allowed: {', '.join(FIELDS)}")
    if ("text" in body) == ("texts" in body):
        raise _wrong("texts", "send either 'texts' (a list) or 'text' (one string)")
    if not isinstance(body.get("logits", False), bool):
        raise _wrong("logits", f"logits is {_kind(body['logits'])}; allowed: true or false")
    if "text" in body:
        return Ask([_text(body["text"], "text")], logits=body.get("logits", False))
    texts = body["texts"]
    if not isinstance(texts, list) or not texts:
        raise _wrong("texts", f"texts is {_kind(texts)}; send a list of 1 to {limits.max_texts} strings")
    if len(texts) > limits.max_texts:
        raise _wrong("texts", f"texts has {len(texts)} items, max_texts={limits.max_texts}; send several requests")
    return Ask([_text(text, f"texts[{i}]") for i, text in enumerate(texts)], logits=body.get("logits", False))


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong(field, f"{field} is {_kind(value)}; send a string")
    if not value.strip():
        raise _wrong(field, f"{field} is empty or white space only; send a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(field, f"{field} holds half of a surrogate pair, which is not text; send valid Unicode") from None
    return value


def _wrong(field: str, message: str) -> Refused:
    return Refused(422, "invalid", message, field=field)


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a string"}
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return names.get(type(value), "an object")


# ------------------------------------------------------------------------------------------------ around a request


def _check_token(request: Request, limits: Limits) -> None:
    """Digests are compared, in constant time, so neither length nor prefix of the token leaks."""
    if limits.token_sha256 is None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
    if not hmac.compare_digest(found, limits.token_sha256) or scheme.lower() != "bearer":
        message = "this endpoint asks for the header `Authorization: Bearer TOKEN` with its token"
        raise Refused(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


def _guarded(request: Request, limits: Limits, make: Any) -> JSONResponse:
    request_id = _request_id(request)
    try:
        _check_token(request, limits)
    except Refused as refused:
        return _refusal(refused, request_id)
    return _answer({**make(), "request_id": request_id})


def _request_id(request: Request) -> str:
    """The X-Request-ID of the caller or of Serve's proxy, which also sends it back as a header; else a fresh one."""
    given = request.headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", given) else uuid.uuid4().hex


def _answer(body: dict[str, Any]) -> JSONResponse:
    return JSONResponse(body)


def _refusal(refused: Refused, request_id: str) -> JSONResponse:
    error = {"code": refused.code, "message": str(refused), **({"field": refused.field} if refused.field else {})}
    body = {"error": error, "request_id": request_id}
    return JSONResponse(body, status_code=refused.status, headers=refused.headers)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours: the caller gets an id, the log the reason."""
    request_id = _request_id(request)
    logger.error("request %s failed", request_id, exc_info=error)
    return _refusal(Refused(500, "internal", f"the endpoint failed; its log has request {request_id}"), request_id)


_TEXT = {"type": "string", "minLength": 1}
_RESULT = {
    "type": "object",
    "properties": {
        "label": {"type": "string"},
        "score": {"type": "number", "description": "Probability of the label."},
        "scores": {"type": "object", "additionalProperties": {"type": "number"}},
        "truncated": {"type": "boolean", "description": "The text had more tokens than the model reads."},
        "logits": {"type": "object", "additionalProperties": {"type": "number"}, "description": "Where asked for."},
    },
}
_ERRORS = {
    401: "A bearer token is asked for.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "The body is not what is expected; `field` names where.",
    503: "Too many requests wait, or no version is up: try again after Retry-After seconds.",
    504: "No answer in time.",
}
_CLASSIFY_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "texts": {"type": "array", "items": _TEXT, "minItems": 1},
                        "text": _TEXT,
                        "logits": {"type": "boolean", "default": False},
                    },
                    "oneOf": [{"required": ["texts"]}, {"required": ["text"]}],
                    "additionalProperties": False,
                },
                "example": {"texts": ["A quiet, moving film."]},
            }
        },
    },
    "responses": {
        "200": {
            "description": "One result a text, in order.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "request_id": {"type": "string"},
                            "model": {
                                "type": "object",
                                "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
                            },
                            "results": {"type": "array", "items": _RESULT},
                        },
                    }
                }
            },
        },
        **{str(status): {"description": text} for status, text in _ERRORS.items()},
    },
}
