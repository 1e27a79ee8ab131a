from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from orchestration.data import rng
from orchestration.data.rng import TABLE, Permutation


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, TABLE, TABLE + 1, 5003, 2**16, 2**16 + 1])
def test_a_permutation_holds_every_number_once(count: int) -> None:
    found = Permutation(5, count)(np.arange(count))
    assert found.dtype == np.int64
    assert (np.sort(found) == np.arange(count)).all()


def test_any_place_can_be_asked_for_alone_and_in_any_order() -> None:
    shuffle = Permutation(5, 5003)
    whole = shuffle(np.arange(5003))
    places = np.array([4999, 0, 17, 17, 5002])
    assert shuffle(places).tolist() == whole[places].tolist()
    assert [int(shuffle(np.array([place]))[0]) for place in places] == whole[places].tolist()


def test_the_numbers_are_the_same_on_every_machine_and_in_every_version() -> None:
    """Checkpoints hold positions in these orders."""
    assert Permutation(1, 10)(np.arange(10)).tolist() == [8, 4, 3, 7, 0, 1, 5, 9, 6, 2]
    assert Permutation(1, 10**12)(np.array([0, 1, 10**11])).tolist() == [113277034662, 414601820043, 695508974344]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_of_few_places_every_order_is_equally_likely(count: int) -> None:
    seen = [tuple(Permutation(rng.mix(1, key), count)(np.arange(count)).tolist()) for key in range(6000)]
    found = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(found) == math.factorial(count)
    assert abs(_deviation(found, np.full(len(found), 6000 / len(found)))) < 4


A = math.isqrt(TABLE + 75) + 1  # width of the network's left half
PAIRS = np.array([(0, 1), (10, 11), (0, A), (5, 5 + A), (7, 7 + A + 1), (0, TABLE + 75), (3, 3 + 2 * A)])


def test_what_two_places_hold_is_independent_also_where_the_network_has_them_in_one_column() -> None:
    """Over 6,000 keys, just above the size from which it is a network: pairs in 8 x 8 fields, and their differences."""
    count, keys = TABLE + 76, 6000
    found = np.array([Permutation(rng.mix(9, key), count)(PAIRS.reshape(-1)) for key in range(keys)])
    first, second = found.reshape(keys, -1, 2).transpose(2, 1, 0)
    sizes = np.bincount(np.arange(count) * 8 // count)
    fields = (np.outer(sizes, sizes) - np.diag(sizes)).reshape(-1) / (count * (count - 1)) * keys
    for one, other in zip(first, second, strict=True):
        counts = np.bincount((one * 8 // count) * 8 + other * 8 // count, minlength=64)
        assert abs(_deviation(counts, fields)) < 5
        steps = np.bincount((other - one) % count * 32 // count, minlength=32)
        assert abs(_deviation(steps, np.full(32, keys / 32))) < 5


def test_two_rounds_would_fail_that_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "ROUNDS", 2)
    with pytest.raises(AssertionError):
        test_what_two_places_hold_is_independent_also_where_the_network_has_them_in_one_column()


def test_one_order_looks_random_neighbours_cycles_and_fixed_points() -> None:
    count = 100_000
    found = Permutation(77, count)(np.arange(count))
    assert abs(np.corrcoef(np.arange(count), found)[0, 1]) < 0.02
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02
    rises = (np.diff(found) > 0).mean()
    assert abs(rises - 0.5) < 0.01
    assert (found == np.arange(count)).sum() < 10  # 1 is expected


def test_one_number_and_many_numbers_come_from_the_same_generator() -> None:
    key = rng.key("a", 1)
    assert rng.mix_array(key, np.arange(100)).tolist() == [rng.mix(key, i) for i in range(100)]
    assert rng.key("a", 11) != rng.key("a1", 1)  # parts are marked by their lengths
    shares = [rng.share(rng.mix(key, i)) for i in range(10_000)]
    assert abs(np.mean(shares) - 0.5) < 0.02
    assert abs(np.var(shares) - 1 / 12) < 0.005


def _deviation(counts: Any, expected: Any) -> float:
    """Chi-square in standard deviations from its mean."""
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))
