"""Copies a row: exact in total, decided by hashes alone."""

from __future__ import annotations

import numpy as np
import pytest

from orchestration.data import rng
from orchestration.data.augment.loop import balanced_copies, balanced_rows, wanted_copies


def hashes(count: int) -> np.ndarray:
    return rng.mix_array(7, np.arange(count))


@pytest.mark.parametrize(("rows", "until"), [(10, 10), (10, 11), (10, 37), (7, 3), (1, 100), (0, 5)])
def test_rows_and_copies_reach_the_wanted_amount_exactly_and_evenly(rows: int, until: int) -> None:
    copies = wanted_copies(hashes(rows), until)
    assert rows + copies.sum() == (max(rows, until) if rows else 0)
    assert not rows or copies.max() - copies.min() <= 1


def test_the_order_of_rows_changes_nothing() -> None:
    hash_N, label_N = hashes(50), np.arange(50) % 7 % 3
    order = rng.permutation(3, 50)
    assert (wanted_copies(hash_N, 90)[order] == wanted_copies(hash_N[order], 90)).all()
    assert (balanced_copies(label_N, hash_N)[order] == balanced_copies(label_N[order], hash_N[order])).all()
    assert (balanced_rows(label_N, hash_N)[order] == balanced_rows(label_N[order], hash_N[order])).all()


def test_balancing_by_copies_lifts_every_class_to_the_largest() -> None:
    label_N = np.array([0] * 30 + [1] * 7 + [2] * 11)
    copies_N = balanced_copies(label_N, hashes(48))
    assert np.bincount(label_N, weights=1 + copies_N).tolist() == [30, 30, 30]
    assert not copies_N[:30].any()
    assert np.ptp(copies_N[30:37]) <= 1


def test_balancing_by_leaving_takes_every_class_down_to_the_smallest() -> None:
    label_N = np.array([0] * 30 + [1] * 7 + [2] * 11)
    stays_N = balanced_rows(label_N, hashes(48))
    assert np.bincount(label_N[stays_N]).tolist() == [7, 7, 7]
    assert stays_N[:30].tolist() != [True] * 7 + [False] * 23  # by hash, not by place
