"""The order in which rows are trained. Takes what a store and a spec fix (fingerprint, lengths, seed, epoch); gives the
global batches of an epoch and each rank's part of one. Called by the training loop on every rank: all ranks compute the
same list, nothing is exchanged, and a position is just (epoch, batch index). Knows neither Ray nor torch.

Padding is what mixed lengths cost. So rows are shuffled, taken in windows of WINDOW_BATCHES batches, sorted by length
inside a window and cut into batches, and the batches are shuffled again: lengths within a batch are alike, while which
rows meet is random and every row comes exactly once."""

from __future__ import annotations

import numpy as np

from orchestration.data import rng

WINDOW_BATCHES = 50


def epoch_batches(fingerprint: str, lengths_N: np.ndarray, *, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All global batches of an epoch, as row indices (int64). Pure: the same arguments give the same list anywhere.

    Each row occurs once. Every batch has `batch` rows except one, which holds the remainder, where N does not divide.
    """
    if batch < 1:
        raise ValueError(f"batch={batch}; a batch has at least one row")
    rows_N = rng.permutation(rng.key("rows", fingerprint, seed, epoch), len(lengths_N))
    window = WINDOW_BATCHES * batch
    batches: list[np.ndarray] = []
    for start in range(0, len(rows_N), window):
        rows = rows_N[start : start + window]
        # The short batch is cut from the long and the short end in turn, or it would always hold the longest rows.
        rows = rows[np.argsort(lengths_N[rows] * (1 if epoch % 2 else -1), kind="stable")]
        batches += [rows[i : i + batch] for i in range(0, len(rows), batch)]
    return [batches[i] for i in rng.permutation(rng.key("batches", fingerprint, seed, epoch), len(batches))]


def rank_micro_batches(
    batch_indices: np.ndarray, lengths_N: np.ndarray, *, rank: int, world: int, micro_batch: int
) -> list[np.ndarray]:
    """This rank's micro-batches of one global batch. Every rank gets equally many (the loss is reduced in step), of at
    most `micro_batch` rows; over all ranks each row occurs once. Where rows do not suffice, some are empty: the caller
    runs those with zero weight.

    Rows are sorted by length and cut into world x count pieces of (almost) equal rows; neighbouring pieces, alike in
    length, go to different ranks for the same step, first rank first in one step and last rank first in the next.
    """
    if not 0 <= rank < world or micro_batch < 1:
        raise ValueError(
            f"rank={rank}, world={world}, micro_batch={micro_batch}: rank must be below world, the rest positive"
        )
    count = max(1, -(-len(batch_indices) // (world * micro_batch)))
    # Ties by row index: the result must not depend on the order inside the batch.
    rows = batch_indices[np.lexsort((batch_indices, -lengths_N[batch_indices].astype(np.int64)))]
    pieces = np.array_split(rows, world * count)
    return [pieces[step * world + (rank if step % 2 == 0 else world - 1 - rank)] for step in range(count)]
