from __future__ import annotations

import itertools

import pytest

from orchestration.training.memory import HEADROOM, STAGES, lowest_stage, worker_bytes

MODEL = {"numel": 1_000_000, "trainable": 1_000_000, "moments": 2}


def test_stage_0_holds_sixteen_bytes_a_trained_parameter_and_four_a_frozen_one() -> None:
    assert worker_bytes(**MODEL, world=8, stage=0, copies=False) == 16_000_000
    assert worker_bytes(numel=1_000_000, trainable=0, moments=2, world=8, stage=0) == 4_000_000


@pytest.mark.parametrize("world", [2, 4, 64])
def test_each_stage_needs_less_than_the_one_below_from_four_workers_on(world: int) -> None:
    """With two, stages 1's flat copy outweighs nothing yet: it needs less all the same."""
    found = [worker_bytes(**MODEL, world=world, stage=stage) for stage in STAGES]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


@pytest.mark.parametrize("stage", STAGES)
def test_more_workers_and_more_frozen_parameters_never_need_more(stage: int) -> None:
    for fewer, more in itertools.pairwise((1, 2, 4, 8, 1000)):
        assert worker_bytes(**MODEL, world=more, stage=stage) <= worker_bytes(**MODEL, world=fewer, stage=stage)
    sizes = [worker_bytes(**MODEL | {"trainable": t}, world=4, stage=stage) for t in (1_000_000, 500_000, 0)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("stage", STAGES)
def test_the_copy_for_checkpoints_is_shared_out_at_every_stage(stage: int) -> None:
    without, copied = (worker_bytes(**MODEL, world=4, stage=stage, copies=copies) for copies in (False, True))
    assert copied - without == 12_000_000 // 4


@pytest.mark.parametrize(("moments", "kept"), [(0, 0), (1, 4), (2, 8)])
def test_every_moment_is_four_bytes_a_trained_parameter_and_so_is_its_copy(moments: int, kept: int) -> None:
    chosen = {**MODEL, "moments": moments, "world": 1}
    assert [worker_bytes(**chosen, stage=0, copies=c) for c in (False, True)] == [
        (8 + kept) * 10**6,
        (12 + 2 * kept) * 10**6,
    ]
    assert worker_bytes(**chosen, stage=3, copies=False) == (12 + kept) * 10**6


def test_stage_3_shares_everything_out() -> None:
    assert worker_bytes(**MODEL, world=1000, stage=3) == 20_000 + 12_000


def test_auto_takes_the_lowest_stage_that_fits_and_the_leanest_where_none_does() -> None:
    needs = [worker_bytes(**MODEL, world=4, stage=stage) for stage in STAGES]
    for stage, need in zip(STAGES, needs, strict=True):
        assert lowest_stage(**MODEL, world=4, memory_bytes=int(need / HEADROOM) + 1) == stage
    assert lowest_stage(**MODEL, world=4, memory_bytes=1) == 3
