"""The batcher: who shares a pass, in what order, and what happens to those who fail or leave. No Ray, no model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from orchestration.serving.batching import Batcher


class Squares:
    """Computes squares slowly and remembers its passes."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.passes: list[list[int]] = []
        self.threads: set[str] = set()
        self.running = 0
        self._seconds = seconds

    def __call__(self, items: list[int]) -> list[int]:
        self.running += 1
        assert self.running == 1, "two passes at once"
        self.passes.append(items)
        self.threads.add(threading.current_thread().name)
        time.sleep(self._seconds)
        self.running -= 1
        if 13 in items:
            raise ValueError("13 has no square here")
        return [item * item for item in items]


def ask(
    compute: Squares, requests: Sequence[Sequence[int]], *, max_batch: int = 4, wait_s: float = 0.0
) -> list[object]:
    async def main() -> list[object]:
        batcher: Batcher[int, int] = Batcher(compute, max_batch=max_batch, wait_s=wait_s)
        return await asyncio.gather(*(batcher.submit(request) for request in requests), return_exceptions=True)

    return asyncio.run(main())


def test_each_request_gets_its_own_results_in_its_own_order() -> None:
    compute = Squares()
    assert ask(compute, [[1, 2], [3], [4, 5, 6]]) == [[1, 4], [9], [16, 25, 36]]
    assert len(compute.passes) == 2
    assert compute.threads == {"model_0"}


def test_a_request_above_the_batch_size_is_spread_over_passes() -> None:
    compute = Squares()
    assert ask(compute, [list(range(10))]) == [[i * i for i in range(10)]]
    assert [len(items) for items in compute.passes] == [4, 4, 2]


def test_a_large_request_does_not_let_later_small_ones_overtake_nor_starve_it() -> None:
    compute = Squares()
    ask(compute, [[0, 1, 2], [10, 11, 12], [20]])
    assert compute.passes == [[0, 1, 2, 10], [11, 12, 20]]


def test_requests_that_arrive_during_a_pass_share_the_next() -> None:
    compute = Squares(seconds=0.1)

    async def main() -> None:
        batcher: Batcher[int, int] = Batcher(compute, max_batch=8, wait_s=0.0)
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.03)
        await asyncio.gather(first, *(batcher.submit([i]) for i in range(2, 7)))

    asyncio.run(main())
    assert compute.passes == [[1], [2, 3, 4, 5, 6]]


def test_a_lone_request_does_not_wait_for_company() -> None:
    begun = time.monotonic()
    assert ask(Squares(seconds=0.0), [[3]], wait_s=5.0) == [[9]]
    assert time.monotonic() - begun < 1.0


def test_company_waits_for_a_full_pass_and_no_longer_than_asked() -> None:
    compute = Squares(seconds=0.0)

    async def main() -> float:
        batcher: Batcher[int, int] = Batcher(compute, max_batch=3, wait_s=0.2)
        both = [asyncio.create_task(batcher.submit([i])) for i in (1, 2)]
        await asyncio.sleep(0.05)
        third = asyncio.create_task(batcher.submit([3]))
        await asyncio.gather(*both, third)  # full: goes at once
        begun = time.monotonic()
        await batcher.submit([4])  # company is likely after a shared pass: waits its 0.2 s in vain
        return time.monotonic() - begun

    waited = asyncio.run(main())
    assert compute.passes == [[1, 2, 3], [4]]
    assert 0.15 < waited < 1.0


def test_an_error_reaches_the_requests_of_that_pass_and_no_other() -> None:
    compute = Squares()
    first, second, third = ask(compute, [[1, 2, 3], [13], [4]])
    assert isinstance(first, ValueError)
    assert isinstance(second, ValueError)
    assert third == [16]


def test_the_rest_of_a_failed_request_is_not_computed() -> None:
    compute = Squares()
    (found,) = ask(compute, [[13, 1, 2, 3, 4, 5, 6, 7, 8]])
    assert isinstance(found, ValueError)
    assert len(compute.passes) == 1


def test_a_caller_that_left_costs_no_pass() -> None:
    compute = Squares(seconds=0.1)

    async def main() -> list[int]:
        batcher: Batcher[int, int] = Batcher(compute, max_batch=2, wait_s=0.0)
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.03)
        gone, stays = asyncio.create_task(batcher.submit([2, 3])), asyncio.create_task(batcher.submit([4]))
        await asyncio.sleep(0)
        gone.cancel()
        await first
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert asyncio.run(main()) == [16]
    assert compute.passes == [[1], [4]]


def test_no_texts_are_no_pass() -> None:
    compute = Squares()
    assert ask(compute, [[]]) == [[]]
    assert compute.passes == []


def test_what_must_not_run_beside_a_pass_waits_for_it() -> None:
    compute = Squares(seconds=0.05)

    async def main() -> int:
        batcher: Batcher[int, int] = Batcher(compute, max_batch=4, wait_s=0.0)
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.01)
        assert compute.running == 1
        beside = await batcher.alone(lambda: compute.running)
        await first
        return beside

    assert asyncio.run(main()) == 0
