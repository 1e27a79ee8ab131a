"""Which split a row goes to. Takes the 128-bit hash of each row's group (or normalised text) and the `data.split` part of
the spec; gives a code a row. Called by `prepare` on the driver. Rows of one group never part.

A fraction is a threshold on a salted hash: a row's split depends on its own group and the seed alone. A whole number takes
groups by smallest hash while they fit, so a new row may push one other row over the border."""

from __future__ import annotations

import numpy as np

from orchestration.data import rng
from orchestration.data.config import SplitConfig
from orchestration.errors import UserError

TRAIN, VALIDATION, TEST, LEFT = 0, 1, 2, 255  # index into store.SPLITS; LEFT is no split


def salted(hash_N2: np.ndarray, *salt: object) -> np.ndarray:
    """128-bit hashes (uint64 N, 2) -> one uint64 a row, another one for each salt."""
    key = rng.key(*salt)
    return rng.mix_array(key, rng.mix_array(key, hash_N2[:, 0]) ^ hash_N2[:, 1])


def assign(group_N2: np.ndarray, config: SplitConfig, seed: int) -> np.ndarray:
    """uint8 code a row: TRAIN, VALIDATION or TEST.

    Raises UserError where a whole number is more than there is, cuts through a single group, or nothing is left to train.
    """
    groups, inverse, counts = np.unique(group_N2, axis=0, return_inverse=True, return_counts=True)
    code_G = np.full(len(groups), TRAIN, dtype=np.uint8)
    # The validation share is of the rows that the test split left.
    share = config.validation
    if isinstance(share, float) and isinstance(config.test, float):
        share = share / (1.0 - config.test)
    for code, name, amount in ((TEST, "test", config.test), (VALIDATION, "validation", share)):
        free_G = np.flatnonzero(code_G == TRAIN)
        hash_G = salted(groups[free_G], seed, "split", name)
        code_G[free_G[_chosen(hash_G, counts[free_G], amount, name)]] = code
    code_N = code_G[inverse.reshape(-1)]
    if not (code_N == TRAIN).any():
        raise UserError(
            f"data.split: validation={config.validation} and test={config.test} leave none of {len(code_N)} rows to train on; lower them"
        )
    return code_N


def _chosen(hash_G: np.ndarray, counts_G: np.ndarray, amount: int | float, name: str) -> np.ndarray:
    """Indices of the groups that go to a split."""
    if isinstance(amount, float):
        return np.flatnonzero(hash_G < np.uint64(int(amount * 2**64)))
    if amount > counts_G.sum():
        raise UserError(
            f"data.split.{name}={amount}, but only {counts_G.sum()} rows are there; lower it or write a fraction like 0.1"
        )
    order = np.argsort(hash_G, kind="stable")
    fits = int(np.searchsorted(np.cumsum(counts_G[order]), amount, side="right"))
    if amount and not fits:
        raise UserError(f"data.split.{name}={amount} is less than one group of {counts_G[order[0]]} rows; raise it")
    return order[:fits]
