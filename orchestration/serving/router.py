"""Which version answers a request. Takes the routes (version -> application and weight) and a way to reach an application;
gives answers, bounded: at most `max_queue` requests inside, each at most `timeout_s`, each asked again of another
replica when one dies under it. Called by `http.py`. Knows no HTTP, and of Ray only the three errors below."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestration.answers.kinds import KINDS

TRIES = 5  # replicas a request may see die under it; the waits between add up to 1.5 s
FIRST_WAIT_S = 0.1
PING_S = 2.0  # an application that does not answer a ping in this time is not ready
FRESH_S = 1.0  # an answer this young is as good as a ping


class Overloaded(Exception):
    """As many requests as allowed are inside."""


class Unavailable(Exception):
    """No version can answer now."""


class TimedOut(Exception):
    """No answer within timeout_s."""


class ReplicaDied(Exception):
    """The replica went away under the call; an answer changes nothing and its seed is fixed, so another can be asked."""


@dataclass(frozen=True)
class Answer:
    """`payload`: of the task's answers, in the order of the texts, with who gave it. `options`: those that held."""

    version: str
    labels: list[str]
    payload: Any
    options: dict[str, Any]


class Backend(Protocol):
    """One application: all replicas of a version. Raises ReplicaDied and Unavailable."""

    def ask(self, texts: Sequence[Any], options: Mapping[str, Any]) -> Awaitable[Any]: ...

    def ping(self) -> Awaitable[Any]: ...


@dataclass
class Route:
    """A version and what is known of it. `weight`: its share of the traffic beside the others' weights. `facts`: what a request is
    checked against."""

    version: str
    weight: float
    labels: list[str]
    package: str
    lineage: dict[str, Any]
    facts: dict[str, Any]
    backend: Backend
    inflight: int = 0
    answered: float = float("-inf")  # when, by time.monotonic


class Router:
    """`connect(application)` -> Backend. `task`, `reads`: of every version. `update` may come at any time; requests inside finish where they
    began."""

    def __init__(
        self,
        name: str,
        *,
        task: str,
        connect: Callable[[str], Backend],
        max_queue: int,
        reads: Sequence[str] = ("text",),
    ) -> None:
        self.name, self.task, self.reads = name, task, tuple(reads)
        self._settle = KINDS[task].settled
        self._connect = connect
        self._max_queue = max_queue
        self._inside = 0
        self._routes: dict[str, Route] = {}
        self._leaving: dict[str, Route] = {}  # no longer routed to, with requests inside
        self._pings: dict[str, asyncio.Task[bool]] = {}

    def update(self, routes: dict[str, dict[str, Any]]) -> None:
        """`{version: {application, weight, task, labels, package, lineage, facts}}` replaces what was there, in one step. Raises
        ValueError for a version of another task: then all stays as it was."""
        if others := sorted(version for version, values in routes.items() if values["task"] != self.task):
            raise ValueError(f"{self.name} answers for {self.task}; version {others[0]} was trained for another task")
        fresh = {}
        for version, values in routes.items():
            known = self._routes.get(version) or self._leaving.pop(version, None)
            route = known or Route(
                version=version,
                weight=0.0,
                labels=[],
                package="",
                lineage={},
                facts={},
                backend=self._connect(values["application"]),
            )
            route.weight, route.labels = values["weight"], values["labels"]
            route.package, route.lineage, route.facts = values["package"], values["lineage"], values["facts"]
            fresh[version] = route
        self._leaving.update(
            {version: route for version, route in self._routes.items() if version not in fresh and route.inflight}
        )
        self._routes = fresh

    def inflight(self, version: str) -> int:
        """Requests that were given to this version and have no answer yet."""
        self._leaving = {key: route for key, route in self._leaving.items() if route.inflight}
        route = self._routes.get(version) or self._leaving.get(version)
        return route.inflight if route else 0

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """A place inside. Raises Overloaded where there is none."""
        if self._inside >= self._max_queue:
            raise Overloaded(f"{self._inside} requests wait or run, max_queue={self._max_queue}; try again shortly")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def ask(self, texts: Sequence[Any], options: dict[str, Any], *, timeout_s: float) -> Answer:
        """Raises Unanswerable, Unavailable or TimedOut."""
        route = self._pick()
        settled = self._settle(texts, options, route.facts)
        route.inflight += 1
        try:
            async with asyncio.timeout(timeout_s):
                payload = await _persistently(route, texts, settled)
        except TimeoutError:
            raise TimedOut(f"version {route.version} gave no answer within timeout_s={timeout_s}") from None
        finally:
            route.inflight -= 1
        route.answered = time.monotonic()
        return Answer(route.version, route.labels, payload, settled)

    def _pick(self) -> Route:
        routes = [route for route in self._routes.values() if route.weight > 0]
        if not routes:
            raise Unavailable(f"no version of {self.name} gets traffic; serve or promote one")
        if len(routes) == 1:
            return routes[0]
        return random.choices(routes, [route.weight for route in routes])[0]

    async def ready(self) -> list[str]:
        """Versions with weight that answer now."""
        routes = [route for route in self._routes.values() if route.weight > 0]
        answers = await asyncio.gather(*(self._answers(route) for route in routes))
        return [route.version for route, answers_now in zip(routes, answers, strict=True) if answers_now]

    async def _answers(self, route: Route) -> bool:
        """One ping at a time a version, however many ask; none where a request was just answered."""
        if time.monotonic() - route.answered < FRESH_S:
            return True
        task = self._pings.get(route.version)
        if task is None or task.done():
            task = self._pings[route.version] = asyncio.create_task(_ping(route.backend))
        return await asyncio.shield(task)

    def models(self) -> list[dict[str, Any]]:
        return [
            {
                "name": self.name,
                "version": route.version,
                "weight": route.weight,
                "task": self.task,
                "reads": list(self.reads),
                "labels": route.labels,
                "package": route.package,
                **route.facts,
            }
            for route in self._routes.values()
        ]

    def lineage(self) -> dict[str, dict[str, Any]]:
        return {route.version: {"package": route.package, **route.lineage} for route in self._routes.values()}


async def _persistently(route: Route, texts: Sequence[Any], options: Mapping[str, Any]) -> Any:
    for attempt in range(TRIES):
        try:
            return await route.backend.ask(texts, options)
        except ReplicaDied:
            await asyncio.sleep(FIRST_WAIT_S * 2**attempt)
    raise Unavailable(f"{TRIES} replicas of version {route.version} went away under this request; try again shortly")


async def _ping(backend: Backend) -> bool:
    try:
        async with asyncio.timeout(PING_S):
            await backend.ping()
    except (TimeoutError, ReplicaDied, Unavailable):
        return False
    return True
