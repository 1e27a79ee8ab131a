"""Ray Serve's side of the endpoint: the two deployment classes and the way from one to the other. `Version` holds one
package in each replica; `RouterReplica` holds the HTTP app. Called by `app.py`, which deploys them; imported in Ray workers
from the shipped copy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from orchestration.answers.kinds import Unanswerable
from orchestration.serving.body import Limits
from orchestration.serving.http import build_app
from orchestration.serving.router import ReplicaDied, Router, Unavailable


@dataclass(frozen=True)
class Refusal:
    """An Unanswerable on its way to the router: raised, it would be an error of the replica."""

    where: str | int
    what: str
    part: str | None


VERSION = "Version"  # deployment names inside their applications
ROUTER = "Router"


class Version:
    """A replica: one open package, one model thread, one batch at a time. The constructor refuses a damaged package."""

    def __init__(self, storage_url: str, package_rel: str, max_batch: int, wait_s: float, limit_s: float) -> None:
        from orchestration import answers
        from orchestration.package import opened
        from orchestration.serving.batching import Batcher
        from orchestration.storage import Storage

        self._package = opened(Storage(storage_url), package_rel)
        self._answers = answers.of(self._package, micro_batch=max_batch, limit_s=limit_s)
        # Passes run in the model thread, so the replica goes on taking requests meanwhile.
        self._batcher: Batcher[Any, Any] = Batcher(self._answers.compute, max_batch=max_batch, wait_s=wait_s)

    async def ask(self, texts: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """The task's payload, in the order of `texts` (strings, pairs of them, or rows); or what is wrong with one of them that only decoding shows."""
        make = self._answers.items
        slow = len(texts) > 8 or isinstance(texts[0], dict)
        try:
            items = await asyncio.to_thread(make, texts, options) if slow else make(texts, options)
        except Unanswerable as error:
            return Refusal(error.where, error.what, error.part)
        return self._answers.payload(items, await self._batcher.submit(items), options)

    async def logits(self, texts: Sequence[Any]) -> np.ndarray:
        """(N, C) float32: the numbers by which a package is verified, in the thread that computes answers."""
        return await self._batcher.alone(lambda: self._package.logits(texts))

    async def ping(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "package": self._package.folder.name}


@serve.ingress()
class RouterReplica:
    """A replica of the router. New routes arrive through `user_config`, so they reach every replica without a restart."""

    def __init__(self, name: str, fixed: dict[str, Any]) -> None:
        self._fixed = fixed
        self._router = Router(
            name, task=fixed["task"], reads=fixed["reads"], connect=HandleBackend, max_queue=fixed["max_queue"]
        )

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._router.update(user_config["routes"])

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self._router, Limits(**self._fixed["limits"]))

    async def fixed(self) -> dict[str, Any]:
        """What this router was made with; `promote` hands it back unchanged."""
        return self._fixed

    async def inflight(self, version: str) -> int:
        return self._router.inflight(version)


class HandleBackend:
    """A version's application, called through its handle. Ray's errors become the router's three."""

    def __init__(self, application: str) -> None:
        handle = serve.get_deployment_handle(VERSION, app_name=application)
        self._ask = handle.options(method_name="ask")
        self._ping = handle.options(method_name="ping")

    async def ask(self, texts: Sequence[Any], options: Mapping[str, Any]) -> Any:
        found = await _answer(self._ask.remote(list(texts), dict(options)))
        if isinstance(found, Refusal):
            raise Unanswerable(found.where, found.what, part=found.part)
        return found

    async def ping(self) -> Any:
        return await _answer(self._ping.remote())


async def _answer(response: Any) -> Any:
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()  # the caller has gone or its time is up: the replica drops what has not run
        raise
    except (BackPressureError, DeploymentUnavailableError) as error:
        raise Unavailable(str(error)) from None
    except RayTaskError:
        raise  # the replica lives and its code failed: asking another would fail alike
    except RayError as error:
        raise ReplicaDied(str(error)) from None
