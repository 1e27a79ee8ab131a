from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

from orchestration.data.draw import Mix, Stream
from orchestration.data.store import TokenStore
from orchestration.storage import Storage
from orchestration.training.feed import Feed, Step, ahead
from tests.tiny import make_store, row_task

ROWS = 37


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Any:
    storage = Storage(str(tmp_path_factory.mktemp("feed")))
    return TokenStore.open(storage, make_store(storage, train=ROWS)).split("train")


def _feed(split: Any, **more: Any) -> Feed:
    values = {
        "task": row_task(),
        "fingerprint": "f",
        "batch": 6,
        "micro_batch": 2,
        "seed": 7,
        "pad_id": 0,
        "rank": 0,
        "world": 1,
    }
    return Feed(split, **{**values, **more})


def _by_tokens(split: Any, **more: Any) -> Feed:
    return _feed(split, micro_batch=None, micro_tokens=50, **more)


def _seen(steps: list[Step]) -> list[tuple[int, ...]]:
    """Token ids of every row that counts."""
    found = []
    for step in steps:
        for micro in step.micros:
            for ids_L, mask_L, weight in zip(
                micro.inputs["input_ids"], micro.inputs["attention_mask"], micro.weight_B, strict=True
            ):
                if weight:
                    found.append(tuple(ids_L[mask_L.bool()].tolist()))
    return found


def _all(split: Any) -> list[tuple[int, ...]]:
    return sorted(tuple(ids.tolist()) for ids in split.input_ids(range(len(split))))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("feed", [_feed, _by_tokens])
def test_over_all_ranks_every_row_is_seen_once_an_epoch(split: Any, world: int, feed: Any) -> None:
    ranks = [list(feed(split, rank=rank, world=world).steps(0)) for rank in range(world)]
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
    assert [step.last for step in whole] == [False] * 6 + [True]
    assert _seen(rest) == _seen(whole[4:])


def test_labels_and_lengths_belong_to_their_rows(split: Any) -> None:
    wanted = {
        tuple(ids.tolist()): int(label) for ids, label in zip(split.input_ids(range(ROWS)), split.labels, strict=True)
    }
    for step in _feed(split).steps(0):
        for micro in step.micros:
            assert len(micro.targets["labels"]) <= 2
            for ids_L, mask_L, label in zip(
                micro.inputs["input_ids"], micro.inputs["attention_mask"], micro.targets["labels"], strict=True
            ):
                assert wanted[tuple(ids_L[mask_L.bool()].tolist())] == int(label)


def test_a_rank_without_rows_gets_one_of_weight_zero(split: Any) -> None:
    """37 rows in batches of 6 leave one batch of a single row."""
    steps = [step for step in _feed(split, rank=1, world=2, micro_batch=3).steps(0) if step.rows == 1]
    other = [step for step in _feed(split, rank=0, world=2, micro_batch=3).steps(0) if step.rows == 1]
    weights = [float(step.micros[0].weight_B.sum()) for step in (*steps, *other)]
    assert sorted(weights) == [0.0, 1.0]
    assert all(micro.inputs["input_ids"].shape[1] >= 1 for step in steps for micro in step.micros)


def test_validation_sees_every_row_once_longest_first(split: Any) -> None:
    steps = list(_feed(split).in_length_order())
    assert sorted(_seen(steps)) == _all(split)
    widths = [micro.inputs["input_ids"].shape[1] for step in steps for micro in step.micros]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == int(split.lengths.max())


def test_only_the_first_rows_are_used_where_so_many_are_asked_for(split: Any) -> None:
    feed = _feed(split, rows=10)
    assert len(feed) == 10
    assert sorted(_seen(list(feed.steps(0)))) == sorted(tuple(ids.tolist()) for ids in split.input_ids(np.arange(10)))


def test_a_budget_of_tokens_moves_no_row_to_another_step_and_is_kept(split: Any) -> None:
    by_rows, by_tokens = list(_feed(split).steps(1)), list(_by_tokens(split).steps(1))
    assert [sorted(_seen([step])) for step in by_rows] == [sorted(_seen([step])) for step in by_tokens]
    sizes = [micro.inputs["input_ids"].numel() for step in by_tokens for micro in step.micros]
    assert max(sizes) <= 50
    assert max(len(micro.targets["labels"]) for step in by_tokens for micro in step.micros) > 2


@pytest.mark.parametrize("world", [1, 2])
def test_validation_by_a_budget_of_tokens_sees_every_row_once_longest_first(split: Any, world: int) -> None:
    ranks = [list(_by_tokens(split, rank=rank, world=world).in_length_order()) for rank in range(world)]
    assert sorted(row for steps in ranks for row in _seen(steps)) == _all(split)
    for steps in zip(*ranks, strict=True):
        assert {len(step.micros) for step in steps} == {1}
    widths = [micro.inputs["input_ids"].shape[1] for step in ranks[0] for micro in step.micros]
    assert widths == sorted(widths, reverse=True)


# --------------------------------------------------------------------------------------- resume, mixing, streaming


def _rows(split: Any, world: int, epoch: int, start: int, stop: int, **more: Any) -> list[list[tuple[int, ...]]]:
    """By step: the rows that all ranks see, in sorted order."""
    ranks = [
        [_seen([step]) for step in islice(_feed(split, rank=r, world=world, **more).steps(epoch, start), stop - start)]
        for r in range(world)
    ]
    return [sorted(row for found in steps for row in found) for steps in zip(*ranks, strict=True)]


@pytest.mark.parametrize("then", [1, 2, 3])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_wherever_it_is_cut_an_epoch_goes_on_with_any_number_of_ranks(split: Any, first: int, then: int) -> None:
    whole = _rows(split, 1, 3, 0, 7)
    assert sorted(chain.from_iterable(whole)) == _all(split)
    for cut in range(8):
        assert _rows(split, first, 3, 0, cut) + _rows(split, then, 3, cut, 7) == whole


def test_at_the_same_number_of_ranks_the_rest_is_the_same_to_the_micro_batch(split: Any) -> None:
    for world in (1, 2, 3):
        for feed in (_feed, _by_tokens):
            whole = list(feed(split, rank=world - 1, world=world).steps(3))
            for cut in range(8):
                rest = list(feed(split, rank=world - 1, world=world).steps(3, cut))
                assert [_seen([step]) for step in rest] == [_seen([step]) for step in whole[cut:]]


def test_ids_of_an_epoch_take_the_place_of_the_stored_ones_and_are_the_same_after_a_resume(split: Any) -> None:
    def augment(indices: np.ndarray, epoch: int) -> list[np.ndarray]:
        return [np.append(ids, 100 + epoch) for ids in split.input_ids(indices)]

    feed = _feed(split, augment=augment)
    for epoch in (0, 1):
        seen = _seen(list(feed.steps(epoch)))
        assert {row[-1] for row in seen} == {100 + epoch}
        assert sorted(row[:-1] for row in seen) == _all(split)
        assert _seen(list(_feed(split, augment=augment).steps(epoch, 4))) == seen[24:]
    assert sorted(_seen(list(feed.in_length_order()))) == _all(split)  # validation rows stay as they are


def test_a_mixed_feed_draws_by_weight_and_can_be_cut_anywhere(split: Any) -> None:
    sources_N = np.repeat([0, 1], [30, 7])
    mix = Mix.by_row(sources_N, [1.0, 1.0])
    feed = _feed(split, mix=mix)
    assert (feed.steps_per_epoch, len(feed)) == (10, ROWS)
    whole = _rows(split, 1, 0, 0, 10, mix=mix)
    seen = list(chain.from_iterable(whole))
    times = {row: seen.count(row) for row in _all(split)}
    small = {tuple(ids.tolist()) for ids in split.input_ids(np.arange(30, 37))}
    assert [sorted({times[row] for row in times if (row in small) == which}) for which in (False, True)] == [
        [1],
        [4, 5],
    ]
    for cut in range(11):
        assert _rows(split, 2, 0, 0, cut, mix=mix) + _rows(split, 3, 0, cut, 10, mix=mix) == whole


class Growing:
    """A split whose shards of 8 rows appear one by one, whenever somebody waits for more than there are."""

    def __init__(self, split: Any, *, shards: int = 1) -> None:
        self.split, self.shards, self.waited = split, shards, 0

    @property
    def lengths(self) -> np.ndarray:
        return np.asarray(self.split.lengths[: self.shards * 8])

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self.split.labels[: self.shards * 8])

    def input_ids(self, indices: np.ndarray) -> list[np.ndarray]:
        assert max(indices, default=0) < self.shards * 8
        return list(self.split.input_ids(indices))

    def wait(self, shards: int) -> Stream:
        self.waited += shards > self.shards
        self.shards = max(self.shards, min(5, shards))
        return Stream([8, 8, 8, 8, 5][: self.shards], window=2, complete=self.shards == 5)


def test_a_feed_on_a_growing_split_waits_for_shards_and_gives_the_steps_of_the_whole_one(split: Any) -> None:
    whole = list(_feed(split, stream=Growing(split, shards=5).wait).steps(0))
    growing = Growing(split)
    steps = []
    for step in _feed(growing, stream=growing.wait).steps(0):
        steps.append(step)
        if step.batch == 0:
            assert growing.shards == 2  # not more than the first window needs
    assert [_seen([step]) for step in steps] == [_seen([step]) for step in whole]
    assert [(step.batch, step.last) for step in steps] == [(i, i == 6) for i in range(7)]
    assert growing.waited == 3
    assert sorted(_seen(steps)) == _all(split)


def test_a_resumed_feed_on_a_growing_split_waits_until_its_place_is_there(split: Any) -> None:
    whole = list(_feed(split, stream=Growing(split, shards=5).wait).steps(0))
    for cut in range(7):
        growing = Growing(split)
        rest = list(_feed(growing, stream=growing.wait).steps(0, cut))
        assert [_seen([step]) for step in rest] == [_seen([step]) for step in whole[cut:]]


# -------------------------------------------------------------------------------------------------------- ahead


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


def test_what_a_row_loses_of_its_modalities_is_the_same_for_any_number_of_workers_and_another_in_each_epoch(
    split: Any,
) -> None:
    from pathlib import Path

    from models.config import ModelConfig
    from models.tasks.rows import Classification

    towers = {"text": {"path": "a"}, "image": {"path": "b"}}
    config = ModelConfig.model_validate({"towers": towers, "fusion": {"modality_dropout": 0.4}})
    task = Classification(config, ("a", "b"), Path("a"))

    def numbers(rows: list[int], epoch: int, **more: Any) -> list[list[int]]:
        found = _feed(split, task=task, **more)._lost(np.array(rows), epoch)
        assert found is not None
        return [row.tolist() for row in found]

    one = numbers([0, 1, 2, 3], 0)
    assert numbers([3, 1], 0, rank=1, world=2) == [one[3], one[1]]
    assert len({tuple(row) for row in one + numbers([0, 1, 2, 3], 1)}) == 8
    assert _feed(split)._lost(np.array([0]), 0) is None
