from __future__ import annotations

import hashlib
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from orchestration.data import rng
from orchestration.data.draw import Mix, Stream
from orchestration.data.order import WINDOW_BATCHES, Epoch, padding, rank_micro_batches

LENGTHS_N = (np.random.default_rng(1).gamma(4.0, 6.0, 5003) + 3).astype(np.int32)


def _epoch(seed: int = 0, epoch: int = 0, fingerprint: str = "store", batch: int = 32, **more: Any) -> Epoch:
    return Epoch(fingerprint, LENGTHS_N, batch=batch, seed=seed, epoch=epoch, **more)


def _all(epoch: Epoch) -> list[np.ndarray]:
    return [epoch.batch(number) for number in range(len(epoch))]


# --------------------------------------------------------------------------------------------------- every row once


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 1601, 5003])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_an_epoch_holds_every_row_exactly_once_in_full_batches_but_for_the_last(rows: int, batch: int) -> None:
    batches = _all(Epoch("store", LENGTHS_N[:rows], batch=batch, seed=0, epoch=0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
    assert [len(found) for found in batches[:-1]] == [batch] * (len(batches) - 1)
    assert len(batches[-1]) == (rows - 1) % batch + 1


def test_without_rows_there_are_no_batches() -> None:
    assert len(Epoch("store", LENGTHS_N[:0], batch=4, seed=0, epoch=0)) == 0
    with pytest.raises(IndexError, match="batch 157 of 157"):
        _epoch().batch(157)


def test_the_order_is_the_same_for_equal_arguments_and_another_for_each_seed_epoch_and_store() -> None:
    first = np.concatenate(_all(_epoch()))
    assert (first == np.concatenate(_all(_epoch()))).all()
    for other in (_epoch(seed=1), _epoch(epoch=1), _epoch(fingerprint="another store")):
        assert (first != np.concatenate(_all(other))).mean() > 0.9


def test_a_batch_does_not_depend_on_which_were_asked_for_before() -> None:
    whole = _all(_epoch())
    for number in (156, 3, 80, 3, 0, 155, 79, 81):
        assert _epoch().batch(number).tolist() == whole[number].tolist()
    hopping = _epoch()
    for number in (156, 3, 80, 3, 0, 155, 79, 81):
        assert hopping.batch(number).tolist() == whole[number].tolist()


def test_the_order_is_what_checkpoints_of_earlier_versions_count_in() -> None:
    """A checkpoint holds (epoch, batch index). If this fails, positions saved before would point at other rows."""
    mix = Mix([np.arange(100), np.arange(100, 1000)], [1.0, 3.0])
    stream = Stream([90, 110, 300, 40, 460], window=2)
    lengths_N = np.arange(1000, dtype=np.int32) % 37
    digests = []
    for more in ({}, {"mix": mix}, {"stream": stream}):
        batches = _all(Epoch("store", lengths_N, batch=7, seed=3, epoch=1, **more))
        text = ";".join(",".join(map(str, rows.tolist())) for rows in batches)
        digests.append(hashlib.sha256(text.encode()).hexdigest()[:8])
    assert digests == ["ffc9fab2", "db6285d4", "9d0f366d"]


def test_batches_of_like_lengths_have_a_tenth_of_the_padding_of_shuffled_ones() -> None:
    rows_N = rng.permutation(7, len(LENGTHS_N))
    shuffled = [rows_N[i : i + 32] for i in range(0, len(rows_N), 32)]
    assert padding(LENGTHS_N, _all(_epoch())) < 0.1 * padding(LENGTHS_N, shuffled)


def test_padding_counts_the_places_up_to_each_longest_row() -> None:
    lengths_N = np.array([5, 3, 4, 4])
    assert padding(lengths_N, [np.array([0, 1]), np.array([2, 3]), np.array([], dtype=int)]) == 2 / 18
    assert padding(lengths_N, []) == 0.0


def test_long_batches_do_not_come_at_one_end_of_the_epoch_nor_of_a_window() -> None:
    means = np.array([LENGTHS_N[rows].mean() for rows in _all(_epoch())])
    half = len(means) // 2
    assert abs(means[:half].mean() - means[half:].mean()) < 0.15 * means.mean()
    places = np.arange(len(means))
    assert abs(np.corrcoef(places % WINDOW_BATCHES, means)[0, 1]) < 0.3
    last = [np.mean(LENGTHS_N[_epoch(epoch=epoch).batch(156)]) for epoch in range(40)]  # the short one
    assert abs(np.mean(last) - LENGTHS_N.mean()) < 0.15 * LENGTHS_N.mean()


def test_which_rows_meet_differs_by_epoch() -> None:
    """Two rows of one batch share a batch again about as often as chance and like lengths make them."""
    first, second = _all(_epoch(epoch=0)), _all(_epoch(epoch=1))
    home = np.empty(len(LENGTHS_N), dtype=int)
    for number, rows in enumerate(second):
        home[rows] = number
    again = np.mean([(home[rows[:, None]] == home[rows]).sum() - len(rows) for rows in first]) / 32
    assert again < 6.0  # of 31 companions, with three windows an epoch


# ------------------------------------------------------------------------------------------------------ seeking


class Counted:
    """Lengths of 20 million rows that are looked up where asked for, as a mapped store gives them."""

    def __init__(self, lengths_N: np.ndarray) -> None:
        self.lengths_N, self.asked = lengths_N, 0

    def __len__(self) -> int:
        return len(self.lengths_N)

    def __getitem__(self, rows: Any) -> np.ndarray:
        self.asked += len(rows)
        return np.asarray(self.lengths_N[rows])


@pytest.fixture(scope="module")
def twenty_million(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("lengths") / "lengths"
    made = np.memmap(path, dtype=np.uint16, mode="w+", shape=(20_000_000,))  # a sparse file: only what is read costs
    made[:4096] = np.arange(4096) % 50 + 3
    return made


@pytest.mark.parametrize("number", [10, 9_999_999])
def test_a_batch_anywhere_looks_up_one_window_and_holds_nothing_of_the_size_of_the_epoch(
    number: int, twenty_million: np.ndarray
) -> None:
    lengths = Counted(twenty_million)
    tracemalloc.start()
    try:
        epoch = Epoch("store", lengths, batch=2, seed=0, epoch=0)
        assert len(epoch) == 10_000_000
        assert len(epoch.batch(number)) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lengths.asked <= 2 * WINDOW_BATCHES + 2
    assert peak < 200_000  # bytes


def test_finding_batch_ten_million_takes_no_longer_than_finding_batch_ten(twenty_million: np.ndarray) -> None:
    def seek_s(number: int) -> float:
        taken = []
        for _ in range(30):
            began = time.perf_counter()
            Epoch("store", twenty_million, batch=2, seed=0, epoch=0).batch(number)
            taken.append(time.perf_counter() - began)
        return min(taken)

    assert seek_s(9_999_999) < 3 * seek_s(10)


def test_reading_on_keeps_two_windows_and_computes_each_once(twenty_million: np.ndarray) -> None:
    lengths = Counted(twenty_million)
    epoch = Epoch("store", lengths, batch=2, seed=0, epoch=0)
    for number in range(500):
        epoch.batch(number)
    assert len(epoch._kept) == 2
    assert lengths.asked == 500 * 2


def test_a_step_costs_less_than_a_millisecond(twenty_million: np.ndarray) -> None:
    epoch, taken = Epoch("store", twenty_million, batch=32, seed=0, epoch=0), []
    for start in range(0, 2000, 200):
        began = time.perf_counter()
        for number in range(start, start + 200):
            rank_micro_batches(epoch.batch(number), twenty_million, rank=0, world=2, micro_batch=8)
        taken.append((time.perf_counter() - began) / 200)
    assert min(taken) < 1e-3


# ------------------------------------------------------------------------------------------------------- mixing

SOURCES = [np.arange(0, 3000), np.arange(3000, 3400), np.arange(3400, 5003)]


def _mixed(stop: Any, weights: Any = (1.0, 2.0, 1.0), **more: Any) -> Epoch:
    return _epoch(batch=8, mix=Mix(SOURCES, weights, stop), **more)


def _share(rows: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted([3000, 3400], rows, side="right"), minlength=3)


@pytest.mark.parametrize("weights", [(1.0, 2.0, 1.0), (0.1, 0.7, 0.2), (5.0, 1.0, 3.0)])
def test_an_epoch_that_stops_at_the_first_source_repeats_no_row_and_could_not_be_longer(weights: Any) -> None:
    epoch = _mixed("first", weights)
    rows = np.concatenate(_all(epoch))
    assert len(rows) == epoch.rows
    assert len(np.unique(rows)) == len(rows)
    shares = np.array(weights) / sum(weights)
    used = np.array([len(source) for source in SOURCES]) / shares
    assert abs(epoch.rows - used.min()) <= 0.5 / shares[used.argmin()] + 1
    assert (np.abs(_share(rows) - epoch.rows * shares) <= 1).all()
    assert _share(rows)[used.argmin()] == len(SOURCES[used.argmin()])


@pytest.mark.parametrize("weights", [(1.0, 2.0, 1.0), (0.1, 0.7, 0.2), (5.0, 1.0, 3.0)])
def test_an_epoch_of_all_sources_holds_every_row_and_repeats_rows_of_a_source_equally_often(weights: Any) -> None:
    epoch = _mixed("all", weights)
    rows = np.concatenate(_all(epoch))
    times = np.bincount(rows, minlength=5003)
    assert len(rows) == epoch.rows
    assert times.min() == 1
    for source in SOURCES:
        assert times[source].max() - times[source].min() <= 1
    assert min(times[source].max() for source in SOURCES) == 1  # no longer than it must be
    assert (np.abs(_share(rows) - epoch.rows * np.array(weights) / sum(weights)) <= 1).all()


def test_every_window_of_a_mixed_epoch_has_each_source_by_its_weight() -> None:
    weights = np.array([0.02, 0.9, 0.08])
    epoch = _mixed("all", weights)
    batches = _all(epoch)
    seen, start = [], 0
    while start < len(batches) - 1:
        first, stop = epoch._window(start)
        rows = np.concatenate(batches[first:stop])
        seen.append(np.abs(_share(rows) - len(rows) * weights).max())
        start = stop
    assert len(seen) > 100
    assert max(seen) <= 1.5  # two ends of a window, each rounded


def test_each_repetition_of_a_small_source_has_another_order() -> None:
    mix = Mix([np.arange(2000), np.arange(2000, 2050)], [1.0, 1.0])
    line = Epoch("store", np.full(2050, 9), batch=1, seed=0, epoch=0, mix=mix)._line
    rounds = line._draws(1, 0, 1950).reshape(-1, 50)  # type: ignore[attr-defined]
    assert all(sorted(found) == list(range(2000, 2050)) for found in rounds.tolist())
    assert len({tuple(found) for found in rounds.tolist()}) == len(rounds) == 39
    assert line._draws(1, 77, 203).tolist() == rounds.reshape(-1)[77:203].tolist()  # type: ignore[attr-defined]


def test_rows_of_two_sources_of_equal_length_share_batches() -> None:
    mix = Mix([np.arange(1000), np.arange(1000, 2000)], [1.0, 1.0])
    for rows in _all(Epoch("store", np.full(2000, 9), batch=20, seed=0, epoch=0, mix=mix)):
        assert 1 <= (rows < 1000).sum() <= 19


def test_a_mixed_epoch_is_pure_and_sought_without_replay() -> None:
    whole = _all(_mixed("all", epoch=2))
    for number in (len(whole) - 1, 0, len(whole) // 2, 77):
        assert _mixed("all", epoch=2).batch(number).tolist() == whole[number].tolist()
    assert [rows.tolist() for rows in whole] != [rows.tolist() for rows in _all(_mixed("all", epoch=3))]
    assert len(_mixed("all", epoch=3)) == len(whole)


def test_sources_by_row_leave_out_those_without_rows() -> None:
    sources_N = np.array([2, 0, 2, 2, 0], dtype=np.int16)
    mix = Mix.by_row(sources_N, [1.0, 5.0, 1.0])
    assert [rows.tolist() for rows in mix.sources] == [[1, 4], [], [0, 2, 3]]
    epoch = Epoch("store", np.full(5, 3), batch=2, seed=0, epoch=0, mix=mix)
    assert np.bincount(np.concatenate(_all(epoch))).tolist().count(0) == 0
    assert epoch.rows == 6  # three of each


@pytest.mark.parametrize("sources", [1, 2, 7, 40])
def test_counts_before_a_place_grow_one_by_one_and_stay_at_the_shares(sources: int) -> None:
    draw = np.random.default_rng(sources)
    weights = draw.gamma(0.5, 1.0, sources) + 1e-3
    mixed = _epoch(mix=Mix([np.arange(50)] * sources, weights.tolist()))._line
    shares, before = weights / weights.sum(), np.zeros(sources)
    for place in range(1, 400):
        counts = np.array(mixed._before(place))  # type: ignore[attr-defined]
        assert counts.sum() == place
        assert (counts - before).min() >= 0
        assert np.abs(counts - place * shares).max() < 1.5
        before = counts


# ---------------------------------------------------------------------------------------------------- streaming

SHARDS = [700, 650, 0, 801, 3, 4, 900, 720, 610, 615]


def _streamed(shards: int, *, complete: bool = False, window: int = 3, batch: int = 32) -> Epoch:
    known = SHARDS[:shards]
    lengths_N = LENGTHS_N[: sum(known)]  # asking for a row that is not there yet fails
    return Epoch(
        "store", lengths_N, batch=batch, seed=0, epoch=0, stream=Stream(known, window=window, complete=complete)
    )


@pytest.mark.parametrize("window", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("batch", [5, 32, 900])
def test_a_growing_store_gives_the_batches_of_the_complete_one(window: int, batch: int) -> None:
    whole = _all(_streamed(10, complete=True, window=window, batch=batch))
    assert sorted(np.concatenate(whole).tolist()) == list(range(sum(SHARDS)))
    assert {len(rows) for rows in whole[:-1]} <= {batch}
    seen = 0
    for shards in range(11):
        now = _streamed(shards, window=window, batch=batch)
        assert len(now) >= seen
        seen = len(now)
        for number in range(seen):
            assert now.batch(number).tolist() == whole[number].tolist()
    assert seen == sum(SHARDS[: 10 // window * window]) // batch


def test_a_batch_says_how_many_shards_it_needs() -> None:
    whole = _streamed(10, complete=True)
    for number in range(len(whole)):
        needed = whole.shards_needed(number)
        assert needed in (3, 6, 9, 10)
        if number < len(whole) - 1 and needed < 10:
            assert _streamed(needed).batch(number).tolist() == whole.batch(number).tolist()
            assert len(_streamed(needed - 1)) <= number
    assert _streamed(0).shards_needed(0) == 3
    assert _streamed(4).shards_needed(len(_streamed(4))) == 6


def test_rows_of_a_stream_are_shuffled_within_their_window_of_shards_alone() -> None:
    batches = _all(_streamed(10, complete=True))
    ends = np.cumsum(SHARDS)[[2, 5, 8, 9]]
    home = [np.searchsorted(ends, rows, side="right") for rows in batches]
    assert all(found.max() - found.min() <= 1 for found in home)
    carried = sum((found < found.max()).sum() for found in home)
    assert 0 < carried <= 3 * 31  # each window's remainder is in the next one's batches
    latest = [found.max() for found in home]
    assert latest == sorted(latest)
    rows = np.concatenate(batches[:20])
    assert abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]) < 0.15


def test_mixing_a_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="leave one of the two out"):
        _epoch(mix=Mix(SOURCES, [1, 1, 1]), stream=Stream([5003], window=1))
