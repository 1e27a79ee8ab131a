"""Which split and fold a row goes to. Takes the 128-bit hash of each row's group (or normalised text), its label and the `data.split`
part of the spec; gives a code and a fold a row. Called by `prepare` on the driver. Rows of one group never part, and nothing depends on
the order of the rows.

A fraction is a threshold on a salted hash: a row's split depends on its own group and the seed alone. A whole number takes
groups by smallest hash while they fit, so a new row may push one other row over the border; with `stratify` each class gives its
share of that number (a fraction then is the number of rows it comes to). Folds are dealt out, so that they are equally large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestration.data import rng
from orchestration.data.config import SplitConfig
from orchestration.errors import UserError

TRAIN, VALIDATION, TEST, LEFT = 0, 1, 2, 255  # index into store.SPLITS; LEFT is no split


@dataclass(frozen=True)
class Assigned:
    """`code_N`: TRAIN, VALIDATION or TEST (uint8); with folds none is VALIDATION. `fold_N`: 0 ... folds-1, or -1 for rows of the test
    split and without folds (int8)."""

    code_N: np.ndarray
    fold_N: np.ndarray


@dataclass(frozen=True)
class _Groups:
    """Distinct groups in order of their hashes: rows each, and the smallest label among them (its class, whatever their order)."""

    hash_G2: np.ndarray
    rows_G: np.ndarray
    class_G: np.ndarray
    of_N: np.ndarray

    def take(self, chosen_K: np.ndarray) -> _Groups:
        return _Groups(self.hash_G2[chosen_K], self.rows_G[chosen_K], self.class_G[chosen_K], self.of_N)


def salted(hash_N2: np.ndarray, *salt: object) -> np.ndarray:
    """128-bit hashes (uint64 N, 2) -> one uint64 a row, another one for each salt."""
    key = rng.key(*salt)
    return rng.mix_array(key, rng.mix_array(key, hash_N2[:, 0]) ^ hash_N2[:, 1])


def assign(group_N2: np.ndarray, label_N: np.ndarray, config: SplitConfig, seed: int) -> Assigned:
    """`label_N`: class of each row, -1 without; only `stratify` looks at it.

    Raises UserError where a whole number is more than there is, cuts through a single group, nothing is left to train, or a
    fold gets no row.
    """
    groups = _grouped(group_N2, label_N if config.stratify else np.zeros(len(label_N), dtype=np.int64))
    code_G = np.full(len(groups.rows_G), TRAIN, dtype=np.uint8)
    for code, name, amount in _wanted(config):
        free_G = np.flatnonzero(code_G == TRAIN)
        code_G[free_G[_chosen(groups.take(free_G), amount, name, config.stratify, seed)]] = code
    fold_G = np.full(len(code_G), -1, dtype=np.int8)
    free_G = np.flatnonzero(code_G == TRAIN)
    if not len(free_G):
        amounts = f"test={config.test}" if config.folds else f"validation={config.validation} and test={config.test}"
        raise UserError(
            f"data.split: {amounts} leave none of {len(group_N2)} rows to train on; lower {'it' if config.folds else 'them'}"
        )
    if config.folds:
        fold_G[free_G] = _folds(groups.take(free_G), config.folds, seed)
    return Assigned(code_G[groups.of_N], fold_G[groups.of_N])


def by_threshold(group_N2: np.ndarray, config: SplitConfig, seed: int) -> np.ndarray:
    """uint8 code a row where both amounts are fractions: as `assign`, but of each row alone, so nothing else need be known."""
    code_N = np.full(len(group_N2), TRAIN, np.uint8)
    for code, name, share in _wanted(config):
        hash_N = salted(group_N2, seed, "split", name)
        code_N[(code_N == TRAIN) & (hash_N < np.uint64(int(share * 2**64)))] = code
    return code_N


def _wanted(config: SplitConfig) -> list[tuple[int, str, int | float]]:
    """In this order. The validation share is of the rows that the test split left."""
    share = config.validation
    if isinstance(share, float) and isinstance(config.test, float):
        share = share / (1.0 - config.test)
    validation = [] if config.folds else [(VALIDATION, "validation", share)]
    return [(TEST, "test", config.test), *validation]


def _grouped(group_N2: np.ndarray, label_N: np.ndarray) -> _Groups:
    order = np.lexsort((label_N, group_N2[:, 1], group_N2[:, 0]))  # np.unique of rows takes four times as long
    sorted_N2 = group_N2[order]
    new_N = np.ones(len(order), dtype=bool)
    new_N[1:] = (sorted_N2[1:] != sorted_N2[:-1]).any(axis=1)
    first_G = np.flatnonzero(new_N)
    of_N = np.empty(len(order), dtype=np.int64)
    of_N[order] = np.cumsum(new_N) - 1
    rows_G = np.diff(np.append(first_G, len(order)))
    return _Groups(sorted_N2[first_G], rows_G, label_N[order][first_G], of_N)


def _chosen(groups: _Groups, amount: int | float, name: str, stratify: bool, seed: int) -> np.ndarray:
    """Indices of the groups that go to a split."""
    hash_G = salted(groups.hash_G2, seed, "split", name)
    if isinstance(amount, float) and not stratify:
        return np.flatnonzero(hash_G < np.uint64(int(amount * 2**64)))
    total = int(groups.rows_G.sum())
    rows = round(amount * total) if isinstance(amount, float) else amount
    if rows > total:
        raise UserError(
            f"data.split.{name}={amount}, but only {total} rows are there; lower it or write a fraction like 0.1"
        )
    class_G = groups.class_G
    classes = np.unique(class_G)
    shares = _apportioned([int(groups.rows_G[class_G == label].sum()) for label in classes], rows)
    found = [np.empty(0, np.int64)]
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(class_G == label)
        members = members[np.argsort(hash_G[members], kind="stable")]
        found.append(members[: np.searchsorted(np.cumsum(groups.rows_G[members]), share, side="right")])
    chosen = np.concatenate(found)
    if rows and not len(chosen):
        smallest = int(groups.rows_G[np.argmin(hash_G)])
        raise UserError(f"data.split.{name}={amount} is less than one group of {smallest} rows; raise it")
    return chosen


def _apportioned(rows_C: list[int], amount: int) -> list[int]:
    """A number of rows divided among classes in proportion, by largest remainders."""
    total = max(1, sum(rows_C))
    quota_C = [rows * amount // total for rows in rows_C]
    by_rest = sorted(range(len(rows_C)), key=lambda c: (-(rows_C[c] * amount % total), c))
    for label in by_rest[: amount - sum(quota_C)]:
        quota_C[label] += 1
    return quota_C


def _folds(groups: _Groups, folds: int, seed: int) -> np.ndarray:
    """Fold of each group. Groups are dealt out like cards, class by class, the largest first, so that of a class two folds differ by
    the rows of its largest group at most."""
    if len(groups.rows_G) < folds:
        raise UserError(
            f"data.split.folds={folds}, but only {len(groups.rows_G)} groups of rows are outside the test split; lower it"
        )
    order = np.lexsort((salted(groups.hash_G2, seed, "split", "folds"), -groups.rows_G, groups.class_G))
    fold_G = np.empty(len(order), dtype=np.int8)
    fold_G[order] = np.arange(len(order)) % folds
    return fold_G
