from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from orchestration.data.store import TokenStore
from orchestration.storage import Storage
from orchestration.training.feed import Feed, Step, ahead
from tests.tiny import make_store

ROWS = 37


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Any:
    storage = Storage(str(tmp_path_factory.mktemp("feed")))
    return TokenStore.open(storage, make_store(storage, train=ROWS)).split("train")


def _feed(split: Any, **more: Any) -> Feed:
    values = {"fingerprint": "f", "batch": 6, "micro_batch": 2, "seed": 7, "pad_id": 0, "rank": 0, "world": 1}
    return Feed(split, **{**values, **more})


def _seen(steps: list[Step]) -> list[tuple[int, ...]]:
    """Token ids of every row that counts."""
    found = []
    for step in steps:
        for micro in step.micros:
            for ids_L, mask_L, weight in zip(micro.input_ids_BL, micro.attention_mask_BL, micro.weight_B, strict=True):
                if weight:
                    found.append(tuple(ids_L[mask_L.bool()].tolist()))
    return found


def _all(split: Any) -> list[tuple[int, ...]]:
    return sorted(tuple(ids.tolist()) for ids in split.input_ids(range(len(split))))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_over_all_ranks_every_row_is_seen_once_an_epoch(split: Any, world: int) -> None:
    ranks = [list(_feed(split, rank=rank, world=world).steps(0)) for rank in range(world)]
    assert sorted(row for steps in ranks for row in _seen(steps)) == _all(split)
    for steps in zip(*ranks, strict=True):
        assert len({len(step.micros) for step in steps}) == 1  # or ranks would wait for one another for ever
        assert len({(step.rows, step.batch, step.epoch) for step in steps}) == 1
        assert sum(float(micro.weight_B.sum()) for step in steps for micro in step.micros) == steps[0].rows


def test_epochs_differ_in_order_and_not_in_rows(split: Any) -> None:
    feed = _feed(split)
    first, second = _seen(list(feed.steps(0))), _seen(list(feed.steps(1)))
    assert first != second
    assert sorted(first) == sorted(second)
    assert first == _seen(list(_feed(split).steps(0)))


def test_starting_at_a_batch_gives_the_rest_of_the_epoch(split: Any) -> None:
    feed = _feed(split)
    whole = list(feed.steps(2))
    rest = list(feed.steps(2, 4))
    assert len(whole) == feed.steps_per_epoch == 7
    assert [step.batch for step in rest] == [4, 5, 6]
    assert _seen(rest) == _seen(whole[4:])


def test_labels_and_lengths_belong_to_their_rows(split: Any) -> None:
    wanted = {
        tuple(ids.tolist()): int(label) for ids, label in zip(split.input_ids(range(ROWS)), split.labels, strict=True)
    }
    for step in _feed(split).steps(0):
        for micro in step.micros:
            assert len(micro.labels_B) <= 2
            for ids_L, mask_L, label in zip(micro.input_ids_BL, micro.attention_mask_BL, micro.labels_B, strict=True):
                assert wanted[tuple(ids_L[mask_L.bool()].tolist())] == int(label)


def test_a_rank_without_rows_gets_one_of_weight_zero(split: Any) -> None:
    """37 rows in batches of 6 leave one batch of a single row."""
    steps = [step for step in _feed(split, rank=1, world=2, micro_batch=3).steps(0) if step.rows == 1]
    other = [step for step in _feed(split, rank=0, world=2, micro_batch=3).steps(0) if step.rows == 1]
    weights = [float(step.micros[0].weight_B.sum()) for step in (*steps, *other)]
    assert sorted(weights) == [0.0, 1.0]
    assert all(micro.input_ids_BL.shape[1] >= 1 for step in steps for micro in step.micros)


def test_validation_sees_every_row_once_longest_first(split: Any) -> None:
    steps = list(_feed(split).in_length_order())
    assert sorted(_seen(steps)) == _all(split)
    widths = [micro.input_ids_BL.shape[1] for step in steps for micro in step.micros]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == int(split.lengths.max())


def test_only_the_first_rows_are_used_where_so_many_are_asked_for(split: Any) -> None:
    feed = _feed(split, rows=10)
    assert len(feed) == 10
    assert sorted(_seen(list(feed.steps(0)))) == sorted(tuple(ids.tolist()) for ids in split.input_ids(np.arange(10)))


def test_ahead_gives_the_same_items_in_order() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead(iter([]))) == []


def test_ahead_works_before_it_is_asked_and_not_further_than_it_may() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    items = ahead(make(), depth=2)
    assert next(items) == 0
    _wait_for(lambda: len(made) >= 3)
    time.sleep(0.05)
    assert len(made) <= 4  # given, two waiting, one in hand
    items.close()  # type: ignore[attr-defined]


def test_an_error_while_collating_comes_to_the_one_who_asks() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise OSError("shard lost")

    items = ahead(make())
    assert next(items) == 1
    with pytest.raises(OSError, match="shard lost"):
        next(items)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    items = ahead(iter(range(10**6)))
    next(items)
    assert threading.active_count() == before + 1
    items.close()  # type: ignore[attr-defined]
    _wait_for(lambda: threading.active_count() == before)


def _wait_for(met: Any, limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not met():
        assert time.monotonic() < end, "not within the limit"
        time.sleep(0.01)
