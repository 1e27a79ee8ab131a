"""The endpoint's HTTP face: routes, limits, error bodies, OpenAPI. Takes a `Router` (who answers, and for which task) and `Limits`;
gives an ASGI app with the one route of that task. Every answer has a request id; every refusal names the field and the limit.
Called inside the router replica; knows nothing of Ray, so it is tested without."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from orchestration.answers.kinds import KINDS, Kind, Unanswerable
from orchestration.serving import openapi
from orchestration.serving.body import Limits, Refused, parse, read
from orchestration.serving.router import Overloaded, Router, TimedOut, Unavailable

RETRY_AFTER_S = 1
logger = logging.getLogger("ray.serve")


def build_app(router: Router, limits: Limits) -> FastAPI:
    """The app with all routes; `/docs` and `/openapi.json` describe them."""
    kind = KINDS[router.task]
    app = FastAPI(title=f"eagleray endpoint {router.name}", description=f"{kind.summary}.", version="1")
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

    @app.post(kind.path, summary=kind.summary, openapi_extra=openapi.describe(kind, router.reads))
    async def answer(request: Request) -> JSONResponse:
        request_id = _request_id(request)
        try:
            _check_token(request, limits)
            with router.admitted():
                body = await _asked(request, router, kind, limits)
            return _answer({**body, "request_id": request_id})
        except Refused as refused:
            return _refusal(refused, request_id)
        except (Overloaded, Unavailable) as error:
            code = "overloaded" if isinstance(error, Overloaded) else "unavailable"
            again = {"Retry-After": str(RETRY_AFTER_S)}
            return _refusal(Refused(503, code, str(error), headers=again), request_id)
        except TimedOut as error:
            return _refusal(Refused(504, "timed_out", str(error)), request_id)

    async def elsewhere(request: Request) -> JSONResponse:
        """Another task's route: which one is meant here."""
        told = f"{request.url.path}: this endpoint was trained for {router.task} and answers at {kind.path}"
        return _refusal(Refused(404, "other_task", told), _request_id(request))

    for other in KINDS.values():
        if other.path != kind.path:
            app.add_api_route(other.path, elsewhere, methods=["POST"], include_in_schema=False)
    return app


async def _asked(request: Request, router: Router, kind: Kind, limits: Limits) -> dict[str, Any]:
    ask = parse(await read(request, limits), kind, limits, router.reads)
    try:
        answer = await router.ask(ask.texts, ask.options, timeout_s=limits.timeout_s)
    except Unanswerable as error:
        raise ask.refusal(error) from None
    results = kind.show(answer.payload, answer.options, answer.labels)
    return {"model": {"name": router.name, "version": answer.version}, "results": results}


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
