from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import local
from orchestration.data.config import TokenizeConfig
from orchestration.data.pack import best_fit, pack
from orchestration.data.rng import mix_array
from orchestration.data.tokenize import Entries, Tokenizer


def _lengths(seed: int, count: int, highest: int) -> np.ndarray:
    return (mix_array(seed, np.arange(count)) % np.uint64(highest + 1)).astype(np.int64)


def _naive(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit decreasing, word for word: O(N B)."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b, room in enumerate(rooms) if room >= lengths[row]]
        if not fitting:
            bins.append([])
            rooms.append(capacity)
            fitting = [len(bins) - 1]
        best = min(fitting, key=lambda b: rooms[b])
        bins[best].append(row)
        rooms[best] -= lengths[row]
    return bins


@pytest.mark.parametrize("seed", range(12))
def test_every_row_is_in_one_bin_and_no_bin_is_over_capacity(seed: int) -> None:
    highest = [1, 2, 7, 50, 128, 1000][seed % 6]
    capacity = highest + [0, 3][seed // 6]
    lengths = _lengths(seed, 700, highest)
    order, bounds = best_fit(lengths, capacity)
    assert sorted(order.tolist()) == list(range(700))
    sums = [int(lengths[order[a:b]].sum()) for a, b in itertools.pairwise(bounds)]
    assert max(sums) <= capacity
    assert min(np.diff(bounds)) >= 1
    assert len(sums) == len(_naive(lengths[lengths > 0].tolist(), capacity))  # as many bins as the method's definition
    assert len(sums) <= 1.25 * np.ceil(lengths.sum() / capacity) + 1  # 11/9 of the best possible


def test_the_fullest_bin_that_holds_a_row_gets_it_and_ties_go_by_index() -> None:
    order, bounds = best_fit(np.array([3, 7, 5, 3, 7, 2, 0]), 10)
    bins = [order[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    assert bins == [[1, 0, 6], [4, 3], [2, 5]]


def test_nothing_to_pack_gives_no_bins_and_a_row_that_cannot_fit_is_named() -> None:
    order, bounds = best_fit(np.zeros(0, np.int64), 10)
    assert (order.tolist(), bounds.tolist()) == ([], [0])
    with pytest.raises(ValueError, match="row 2 has 11 tokens, above the capacity of 10"):
        best_fit(np.array([1, 10, 11]), 10)


def test_a_million_rows_take_seconds() -> None:
    lengths = _lengths(4, 1_000_000, 2048)
    started = time.perf_counter()
    _, bounds = best_fit(lengths, 2048)
    assert time.perf_counter() - started < 10  # 0.6 s on an idle core
    assert lengths.sum() > 0.99 * 2048 * (len(bounds) - 1)


@pytest.fixture(scope="module")
def entries(minilm: Path) -> Entries:
    texts = pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()
    return Tokenizer(minilm, 128).entries(texts[::3], TokenizeConfig(max_length=128, long="windows", stride=8))


@pytest.mark.parametrize("capacity", [128, 256, 512])
def test_bins_of_real_texts_waste_less_than_two_percent(entries: Entries, capacity: int) -> None:
    packed = pack(entries, capacity)
    assert 1 - len(packed.values_T) / (len(packed) * capacity) < 0.02
    assert int(np.diff(packed.offsets_B1).max()) <= capacity


def test_packed_tokens_are_those_of_the_entries_they_name(entries: Entries) -> None:
    packed = pack(entries, 256)
    at = {(int(r), int(p)): e for e, (r, p) in enumerate(zip(entries.row_E, entries.part_E, strict=True))}
    seen = set()
    for b in range(len(packed)):
        token = packed.offsets_B1[b]
        for e in range(packed.bounds_B1[b], packed.bounds_B1[b + 1]):
            entry = at[int(packed.rows_E[e]), int(packed.parts_E[e])]
            own = entries.values_T[entries.offsets_E1[entry] : entries.offsets_E1[entry + 1]]
            assert np.array_equal(packed.values_T[token : token + packed.segments_E[e]], own)
            token += packed.segments_E[e]
            seen.add(entry)
        assert token == packed.offsets_B1[b + 1]
    assert len(seen) == len(entries)
