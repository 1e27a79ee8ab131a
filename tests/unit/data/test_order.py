from __future__ import annotations

import hashlib

import numpy as np
import pytest

from orchestration.data import rng
from orchestration.data.order import epoch_batches, rank_micro_batches

LENGTHS_N = (np.random.default_rng(1).gamma(4.0, 6.0, 5003) + 3).astype(np.int32)


def _epoch(seed: int = 0, epoch: int = 0, fingerprint: str = "store", batch: int = 32) -> list[np.ndarray]:
    return epoch_batches(fingerprint, LENGTHS_N, batch=batch, seed=seed, epoch=epoch)


def test_an_epoch_holds_every_row_exactly_once() -> None:
    batches = _epoch()
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(LENGTHS_N)))
    assert sorted(map(len, batches))[:2] == [5003 % 32, 32]
    assert len(batches) == -(-5003 // 32)


def test_the_order_is_the_same_for_equal_arguments_and_another_for_each_seed_epoch_and_store() -> None:
    first = np.concatenate(_epoch())
    assert (first == np.concatenate(_epoch())).all()
    for other in (_epoch(seed=1), _epoch(epoch=1), _epoch(fingerprint="another store")):
        assert (first != np.concatenate(other)).mean() > 0.9


def test_the_order_is_what_checkpoints_of_earlier_versions_count_in() -> None:
    """A checkpoint holds (epoch, batch index). If this fails, positions saved before would point at other rows."""
    batches = epoch_batches("store", np.arange(1000, dtype=np.int32) % 37, batch=7, seed=3, epoch=1)
    text = ";".join(",".join(map(str, rows.tolist())) for rows in batches)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "86946fb8e9fb2b8b"


def test_batches_of_like_lengths_have_a_tenth_of_the_padding_of_shuffled_ones() -> None:
    rows_N = rng.permutation(7, len(LENGTHS_N))
    shuffled = [rows_N[i : i + 32] for i in range(0, len(rows_N), 32)]
    assert padding_share(_epoch(), LENGTHS_N) < 0.1 * padding_share(shuffled, LENGTHS_N)


def test_long_batches_do_not_come_at_one_end_of_the_epoch() -> None:
    means = np.array([LENGTHS_N[rows].mean() for rows in _epoch()])
    half = len(means) // 2
    assert abs(means[:half].mean() - means[half:].mean()) < 0.15 * means.mean()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("micro_batch", [1, 5, 32])
def test_ranks_share_each_batch_with_every_row_exactly_once_and_equal_counts(world: int, micro_batch: int) -> None:
    for batch in [*_epoch()[:20], min(_epoch(), key=len)]:
        ranks = [
            rank_micro_batches(batch, LENGTHS_N, rank=rank, world=world, micro_batch=micro_batch)
            for rank in range(world)
        ]
        assert len({len(micro) for micro in ranks}) == 1
        assert max(len(rows) for micro in ranks for rows in micro) <= micro_batch
        assert sorted(row for micro in ranks for rows in micro for row in rows.tolist()) == sorted(batch.tolist())


def test_ranks_get_nearly_equal_tokens() -> None:
    batch = rng.permutation(3, len(LENGTHS_N))[:64]
    tokens = [
        sum(LENGTHS_N[rows].sum() for rows in rank_micro_batches(batch, LENGTHS_N, rank=r, world=2, micro_batch=8))
        for r in (0, 1)
    ]
    assert abs(tokens[0] - tokens[1]) < 0.05 * sum(tokens)


def test_a_batch_smaller_than_the_world_leaves_empty_micro_batches() -> None:
    ranks = [rank_micro_batches(np.array([4]), LENGTHS_N, rank=r, world=3, micro_batch=8) for r in range(3)]
    assert [[len(rows) for rows in micro] for micro in ranks] == [[1], [0], [0]]


def test_micro_batches_do_not_depend_on_the_order_inside_the_batch() -> None:
    batch = np.arange(40)
    there = rank_micro_batches(batch, LENGTHS_N, rank=1, world=2, micro_batch=6)
    back = rank_micro_batches(batch[::-1], LENGTHS_N, rank=1, world=2, micro_batch=6)
    assert [rows.tolist() for rows in there] == [rows.tolist() for rows in back]


def test_one_number_and_many_numbers_come_from_the_same_generator() -> None:
    key = rng.key("a", 1)
    assert rng.mix_array(key, np.arange(100)).tolist() == [rng.mix(key, i) for i in range(100)]
    assert rng.key("a", 11) != rng.key("a1", 1)  # parts are marked by their lengths
    shares = [rng.share(rng.mix(key, i)) for i in range(10_000)]
    assert abs(np.mean(shares) - 0.5) < 0.02
    assert abs(np.var(shares) - 1 / 12) < 0.005


def padding_share(batches: list[np.ndarray], lengths_N: np.ndarray) -> float:
    """Share of token positions that are padding when each batch is padded to its longest row."""
    real = sum(int(lengths_N[rows].sum()) for rows in batches)
    padded = sum(int(lengths_N[rows].max()) * len(rows) for rows in batches if len(rows))
    return 1.0 - real / padded if padded else 0.0
