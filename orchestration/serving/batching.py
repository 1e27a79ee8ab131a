"""Dynamic batching inside one replica. Takes texts from many requests at once; gives each request its own rows back. While a
forward pass runs in its thread, new texts gather; the next pass takes up to `max_batch` of them, oldest request first. A
request may be larger than a pass (it is spread over several) and small ones share one. Called by `replicas.py`; knows
neither Ray nor HTTP.

Not Ray Serve's own batching, since that refuses a request above the batch size, puts a request that does not fit back at the
end of the queue, and always waits the full window, 5 ms of a 27 ms answer, even for a lone client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Request(Generic[Item, Result]):
    """Items of one caller, taken from the front by successive passes."""

    def __init__(self, items: Sequence[Item], future: asyncio.Future[list[Result]]) -> None:
        self.items = items
        self.future = future
        self.taken = 0
        self.results: list[Result] = []


class Batcher(Generic[Item, Result]):
    """`await submit(items)` -> results in order. `compute(items) -> results` runs in one thread of its own, never twice at a time."""

    def __init__(self, compute: Callable[[list[Item]], Sequence[Result]], *, max_batch: int, wait_s: float) -> None:
        self._compute = compute
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._queue: deque[_Request[Item, Result]] = deque()
        self._waiting = 0  # items not yet taken
        self._filled = asyncio.Event()  # set when a pass could be full
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._runner: asyncio.Task[None] | None = None
        self._crowded = False  # the last pass served more than one request, so company is likely

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Raises what `compute` raised for a pass that held one of these items. Cancelling drops what has not run."""
        if not items:
            return []
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(items, future))
        self._waiting += len(items)
        if self._waiting >= self._max_batch:
            self._filled.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.get_running_loop().create_task(self._run())
        return await future

    async def alone(self, call: Callable[[], Any]) -> Any:
        """Something else that must not run beside a pass."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _run(self) -> None:
        while self._queue:
            await self._gather()
            shares = self._take()
            if shares:
                await self._pass(shares)

    async def _gather(self) -> None:
        """Wait for a full pass, at most `wait_s`, and only where other requests have been about lately."""
        if self._waiting >= self._max_batch or not self._wait_s or not (self._crowded or len(self._queue) > 1):
            return
        self._filled.clear()
        try:
            await asyncio.wait_for(self._filled.wait(), self._wait_s)
        except TimeoutError:
            return

    def _take(self) -> list[tuple[_Request[Item, Result], list[Item]]]:
        """The next pass: up to `max_batch` items from the front of the queue, with whose they are."""
        shares, room = [], self._max_batch
        while self._queue and room:
            request = self._queue[0]
            left = len(request.items) - request.taken
            if request.future.done():  # its caller has gone: nothing of it needs to run
                self._queue.popleft()
                self._waiting -= left
                continue
            count = min(left, room)
            shares.append((request, list(request.items[request.taken : request.taken + count])))
            request.taken += count
            room -= count
            self._waiting -= count
            if count == left:
                self._queue.popleft()
        return shares

    async def _pass(self, shares: list[tuple[_Request[Item, Result], list[Item]]]) -> None:
        self._crowded = len(shares) > 1
        items = [item for _, part in shares for item in part]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, items)
        except Exception as error:  # goes to the callers of this pass; the next pass runs
            for request, _ in shares:
                if not request.future.done():
                    request.future.set_exception(error)
            return
        start = 0
        for request, part in shares:
            request.results.extend(results[start : start + len(part)])
            start += len(part)
            if len(request.results) == len(request.items) and not request.future.done():
                request.future.set_result(request.results)
