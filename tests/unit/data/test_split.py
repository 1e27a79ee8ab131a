from __future__ import annotations

import hashlib

import numpy as np
import pytest

from orchestration.data.config import SplitConfig
from orchestration.data.dedup import find_duplicates, hashes
from orchestration.data.split import TEST, TRAIN, VALIDATION, assign
from orchestration.errors import UserError


def _hashes(names: list[str]) -> np.ndarray:
    return hashes(b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names))


KEYS = _hashes([f"text {i}" for i in range(5000)])


def test_whole_numbers_are_met_exactly() -> None:
    code_N = assign(KEYS, SplitConfig(validation=100, test=1234), seed=0)
    assert [(code_N == code).sum() for code in (TEST, VALIDATION, TRAIN)] == [1234, 100, 5000 - 1334]


def test_fractions_are_shares_of_all_rows_and_do_not_move_when_rows_are_added() -> None:
    config = SplitConfig(validation=0.1, test=0.3)
    code_N = assign(KEYS, config, seed=0)
    assert abs((code_N == TEST).mean() - 0.3) < 0.02
    assert abs((code_N == VALIDATION).mean() - 0.1) < 0.02
    assert (assign(KEYS[:3000], config, seed=0) == code_N[:3000]).all()


def test_another_seed_gives_another_split() -> None:
    config = SplitConfig(validation=0.0001, test=2500)
    assert abs((assign(KEYS, config, seed=0) == assign(KEYS, config, seed=1)).mean() - 0.5) < 0.05


def test_rows_of_a_group_stay_together() -> None:
    names = [f"group {i % 50}" for i in range(1000)]
    for config in (SplitConfig(validation=0.2, test=0.2), SplitConfig(validation=110, test=230)):
        code_N = assign(_hashes(names), config, seed=3)
        for group in set(names):
            assert len({code_N[i] for i in range(1000) if names[i] == group}) == 1
    assert (code_N == TEST).sum() == 220  # whole groups of 20 that fit into 230


def test_more_rows_than_there_are_is_refused_by_key() -> None:
    with pytest.raises(UserError, match=r"data\.split\.test=6000, but only 5000 rows"):
        assign(KEYS, SplitConfig(test=6000), seed=0)
    with pytest.raises(UserError, match="leave none of 5000 rows to train on"):
        assign(KEYS, SplitConfig(test=4000, validation=1000), seed=0)
    with pytest.raises(UserError, match=r"data\.split\.test=5 is less than one group of 20 rows"):
        assign(_hashes([f"group {i % 50}" for i in range(1000)]), SplitConfig(test=5), seed=0)


def test_of_duplicates_the_smallest_row_id_stays_and_label_conflicts_are_counted() -> None:
    text_N2 = _hashes(["a", "b", "a", "c", "a", "b"])
    row_id_N2 = np.array([[5, 0], [1, 1], [3, 9], [0, 0], [3, 8], [1, 2]], dtype=np.uint64)
    found = find_duplicates(text_N2, row_id_N2, np.array([0, 1, 0, 1, 1, 1]))
    assert found.keep_N.tolist() == [False, True, False, True, True, False]
    assert found.conflicts == 2  # both dropped rows of "a" say 0, the kept one says 1
