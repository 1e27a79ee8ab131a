"""How ranks share a batch."""

from __future__ import annotations

import numpy as np
import pytest

from orchestration.data import rng
from orchestration.data.order import Epoch, rank_micro_batches

LENGTHS_N = (np.random.default_rng(1).gamma(4.0, 6.0, 5003) + 3).astype(np.int32)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(
    "micro", [{"micro_batch": n} for n in (1, 5, 32)] + [{"micro_tokens": n} for n in (1, 90, 700)]
)
def test_ranks_share_each_batch_with_every_row_exactly_once_and_equal_counts(world: int, micro: dict[str, int]) -> None:
    epoch = Epoch("store", LENGTHS_N, batch=32, seed=0, epoch=0)
    batches = [epoch.batch(number) for number in (*range(20), len(epoch) - 1)]
    for batch in [*batches, LENGTHS_N.argsort()[::157]]:
        ranks = [rank_micro_batches(batch, LENGTHS_N, rank=rank, world=world, **micro) for rank in range(world)]
        assert len({len(found) for found in ranks}) == 1
        pieces = [rows for found in ranks for rows in found]
        assert sorted(np.concatenate(pieces).tolist()) == sorted(batch.tolist())
        for rows in pieces:
            assert len(rows) <= micro.get("micro_batch", 32)
            assert len(rows) < 2 or len(rows) * LENGTHS_N[rows].max() <= micro.get("micro_tokens", 10**9)


def test_a_budget_of_tokens_makes_larger_micro_batches_of_shorter_rows() -> None:
    """64 rows of all lengths, in nearly as few micro-batches as the budget allows."""
    batch = LENGTHS_N.argsort()[::78][:64]
    micros = rank_micro_batches(batch, LENGTHS_N, rank=0, world=1, micro_tokens=300)
    assert max(map(len, micros)) > 2 * len(micros[0])
    assert len(micros) <= -(-int(LENGTHS_N[batch].sum()) // 300) + 1
    by_rows = rank_micro_batches(batch, LENGTHS_N, rank=0, world=1, micro_batch=-(-64 // len(micros)))
    widest = max(len(rows) * int(LENGTHS_N[rows].max()) for rows in by_rows)
    assert widest > 1.4 * 300  # tokens: what equal counts of rows would ask of memory


def test_empty_micro_batches_of_a_budget_come_only_where_rows_do_not_suffice() -> None:
    lengths_N = np.array([9, 9, 9, 1])
    for world, empty in ((2, 0), (3, 0), (4, 0), (5, 1)):
        ranks = [
            rank_micro_batches(np.arange(4), lengths_N, rank=rank, world=world, micro_tokens=36)
            for rank in range(world)
        ]
        assert sum(not len(rows) for found in ranks for rows in found) == empty


def test_ranks_get_nearly_equal_tokens() -> None:
    batch = rng.permutation(3, len(LENGTHS_N))[:64]
    for micro, most in (({"micro_batch": 8}, 0.05), ({"micro_tokens": 250}, 0.1)):
        tokens = [
            sum(LENGTHS_N[rows].sum() for rows in rank_micro_batches(batch, LENGTHS_N, rank=r, world=2, **micro))
            for r in (0, 1)
        ]
        assert abs(tokens[0] - tokens[1]) < most * sum(tokens)


def test_a_batch_smaller_than_the_world_leaves_empty_micro_batches() -> None:
    ranks = [rank_micro_batches(np.array([4]), LENGTHS_N, rank=r, world=3, micro_batch=8) for r in range(3)]
    assert [[len(rows) for rows in micro] for micro in ranks] == [[1], [0], [0]]


@pytest.mark.parametrize("micro", [{"micro_batch": 6}, {"micro_tokens": 200}])
def test_micro_batches_do_not_depend_on_the_order_inside_the_batch(micro: dict[str, int]) -> None:
    batch = np.arange(40)
    there = rank_micro_batches(batch, LENGTHS_N, rank=1, world=2, **micro)
    back = rank_micro_batches(batch[::-1], LENGTHS_N, rank=1, world=2, **micro)
    assert [rows.tolist() for rows in there] == [rows.tolist() for rows in back]


def test_rows_and_tokens_together_or_neither_are_refused() -> None:
    for micro in ({}, {"micro_batch": 2, "micro_tokens": 9}, {"micro_tokens": 0}):
        with pytest.raises(ValueError, match="one of the other two a positive number"):
            rank_micro_batches(np.arange(4), LENGTHS_N, rank=0, world=1, **micro)
