from __future__ import annotations

import hashlib

import numpy as np
import pytest

from orchestration.data.config import SplitConfig
from orchestration.data.dedup import find_duplicates, hashes
from orchestration.data.split import TEST, TRAIN, VALIDATION, Assigned
from orchestration.data.split import assign as assign_with_labels
from orchestration.errors import UserError


def _hashes(names: list[str]) -> np.ndarray:
    return hashes(b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names))


def assign(group_N2: np.ndarray, config: SplitConfig, seed: int) -> np.ndarray:
    return assign_with_labels(group_N2, np.full(len(group_N2), -1), config, seed).code_N


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


# ---------------------------------------------------------------------------------------------- classes and folds

LABELS = np.repeat([0, 1, 2], [4000, 900, 100])


def _both(config: SplitConfig, labels: np.ndarray = LABELS, keys: np.ndarray = KEYS, seed: int = 0) -> Assigned:
    return assign_with_labels(keys, labels, config, seed)


def _of_class(chosen_N: np.ndarray) -> list[int]:
    return np.bincount(LABELS[chosen_N], minlength=3).tolist()


def test_the_split_of_a_corpus_of_the_version_before_is_the_same() -> None:
    """Stores are remade when the code changes, but whoever compares two of them wants the same test rows."""
    code_N = assign(KEYS, SplitConfig(validation=0.1, test=0.3), seed=0)
    assert hashlib.sha256(code_N.tobytes()).hexdigest()[:8] == "9e46b75f"
    code_N = assign(_hashes([f"group {i % 50}" for i in range(1000)]), SplitConfig(validation=110, test=230), seed=3)
    assert hashlib.sha256(code_N.tobytes()).hexdigest()[:8] == "fe246006"


@pytest.mark.parametrize("config", [{"validation": 500, "test": 1000}, {"validation": 0.1, "test": 0.2}])
def test_stratified_splits_have_the_same_share_of_each_class(config: dict[str, float]) -> None:
    code_N = _both(SplitConfig(stratify=True, **config)).code_N
    assert _of_class(code_N == TEST) == [800, 180, 20]
    assert _of_class(code_N == VALIDATION) == [400, 90, 10]
    plain_N = _both(SplitConfig(**config)).code_N
    assert _of_class(plain_N == TEST) != [800, 180, 20]


def test_a_stratified_number_that_does_not_divide_is_met_by_largest_remainders() -> None:
    code_N = _both(SplitConfig(stratify=True, validation=0, test=7)).code_N
    assert _of_class(code_N == TEST) == [6, 1, 0]  # 5.6, 1.26, 0.14


def test_a_group_of_two_classes_counts_as_the_smaller_and_stays_whole_in_any_order() -> None:
    names, labels = [f"group {i // 4}" for i in range(4000)], np.tile([1, 1, 0, 2], 1000)
    labels[2000:] = 2
    keys = _hashes(names)
    config = SplitConfig(stratify=True, validation=400, test=800, folds=None)
    code_N = _both(config, labels, keys).code_N
    assert [(code_N[:2000] == code).sum() for code in (TEST, VALIDATION)] == [400, 200]
    assert (code_N.reshape(-1, 4) == code_N[::4, None]).all()
    order = np.random.default_rng(0).permutation(4000)
    for again in (config, SplitConfig(stratify=True, validation=0.1, test=0.2, folds=5)):
        here, there = _both(again, labels, keys), _both(again, labels[order], keys[order])
        assert (here.code_N[order] == there.code_N).all()
        assert (here.fold_N[order] == there.fold_N).all()


def test_folds_are_equally_large_and_hold_all_rows_outside_the_test_split() -> None:
    found = _both(SplitConfig(test=0.3, folds=7))
    assert found.fold_N.dtype == np.int8
    assert ((found.fold_N == -1) == (found.code_N == TEST)).all()
    assert set(np.unique(found.code_N)) == {TRAIN, TEST}
    sizes = np.bincount(found.fold_N[found.code_N == TRAIN], minlength=7)
    assert sizes.max() - sizes.min() <= 1
    assert (_both(SplitConfig(test=0.3)).fold_N == -1).all()
    assert (_both(SplitConfig(test=0.3)).code_N == TEST).tolist() == (found.code_N == TEST).tolist()


def test_stratified_folds_have_equally_many_rows_of_each_class() -> None:
    found = _both(SplitConfig(test=0, folds=6, stratify=True))
    for label in range(3):
        sizes = np.bincount(found.fold_N[label == LABELS], minlength=6)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(found.fold_N, minlength=6)
    assert sizes.max() - sizes.min() <= 1


def test_groups_stay_in_one_fold_and_folds_differ_by_one_group_at_most() -> None:
    sizes = np.random.default_rng(2).geometric(0.05, 300)
    names = [f"group {group}" for group, size in enumerate(sizes) for _ in range(size)]
    found = _both(SplitConfig(test=0, folds=5), np.zeros(len(names)), _hashes(names))
    start = 0
    for size in sizes:
        assert len(set(found.fold_N[start : start + size].tolist())) == 1
        start += size
    rows = np.bincount(found.fold_N, minlength=5)
    assert rows.max() - rows.min() <= sizes.max()


def test_folds_differ_by_seed_and_not_by_position() -> None:
    first, second = (_both(SplitConfig(test=0, folds=5), seed=seed).fold_N for seed in (0, 1))
    assert abs((first == second).mean() - 0.2) < 0.03
    assert abs(np.corrcoef(np.arange(5000), first)[0, 1]) < 0.05


def test_more_folds_than_groups_are_refused_by_key() -> None:
    keys = _hashes([f"group {i % 3}" for i in range(60)])
    with pytest.raises(UserError, match=r"data\.split\.folds=5, but only 3 groups of rows are outside the test split"):
        _both(SplitConfig(test=0, folds=5), np.zeros(60), keys)
    with pytest.raises(UserError, match=r"data\.split: test=60 leave none of 60 rows to train on; lower it"):
        _both(SplitConfig(test=60, folds=2), np.zeros(60), keys)


def test_of_duplicates_the_smallest_row_id_stays_and_label_conflicts_are_counted() -> None:
    text_N2 = _hashes(["a", "b", "a", "c", "a", "b"])
    row_id_N2 = np.array([[5, 0], [1, 1], [3, 9], [0, 0], [3, 8], [1, 2]], dtype=np.uint64)
    found = find_duplicates(text_N2, row_id_N2, np.array([0, 1, 0, 1, 1, 1]))
    assert found.keep_N.tolist() == [False, True, False, True, True, False]
    assert found.conflicts == 2  # both dropped rows of "a" say 0, the kept one says 1
