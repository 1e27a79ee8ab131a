"""Adam, SGD and LAMB as AdamW: the same training whatever the ZeRO stage and the number of ranks, resumed across them, batches left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.training import loop
from tests.parity.conftest import CHAINS, ENGINES, OPTIMIZERS, STEPPED, losses, one_thread
from tests.tiny import make_job

LOSS, WEIGHT = 1e-6, 2e-5  # see test_stages


@pytest.fixture(scope="module")
def alone(root: Path) -> dict[str, dict[str, Any]]:
    """By optimizer: the run of one process in bare torch."""
    with one_thread():
        return {
            name: loop.run(make_job(root, run=f"alone-{name}", optimizer=chosen), report=_ignore).dump()
            for name, chosen in OPTIMIZERS.items()
        }


def _same(one: dict[str, Any], other: dict[str, Any], weights: Any) -> None:
    assert len(losses(other)) == 8
    assert losses(one) == pytest.approx(losses(other), abs=LOSS)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        if not name.endswith("attention.self.key.bias"):  # its gradient is rounding noise alone
            assert (first[name] - second[name]).abs().max() < WEIGHT, name


@pytest.mark.parametrize(("name", "stage"), [(name, stage) for name in OPTIMIZERS for stage in STEPPED[name]])
def test_every_optimizer_gives_under_every_stage_on_two_ranks_what_one_process_gives(
    name: str, stage: Any, of_two: dict[str, Any], alone: dict[str, Any], weights: Any
) -> None:
    """At the start, every 50 steps and at the end each rank has compared its live optimizer with the planned table."""
    found = of_two[f"{name}{stage}"]
    assert (found["zero_stage"], found["world"]) == (None if stage == "auto" else stage, 2)
    _same(found, alone[name], weights)


def test_the_optimizers_train_and_differ(alone: dict[str, Any]) -> None:
    assert all(losses(found)[-1] != losses(found)[0] for found in alone.values())
    assert len({round(losses(found)[-1], 4) for found in alone.values()}) == len(OPTIMIZERS)


@pytest.mark.parametrize("name", CHAINS)
def test_a_run_goes_on_from_stage_to_stage_and_ends_on_one_rank(
    name: str, root: Path, of_two: dict[str, Any], alone: dict[str, Any], weights: Any
) -> None:
    for i, stage in enumerate(CHAINS[name]):
        found = of_two[f"{name}-chain{i}"]
        assert (found["zero_stage"], found["steps"]) == (None if stage == "auto" else stage, 2 * i + 2)
        assert (found["resumed_from"] is None) == (i == 0)
    with one_thread():
        job = make_job(root, run=f"{name}-chain", optimizer=OPTIMIZERS[name])
        last = loop.run(job, report=_ignore).dump()
    assert (last["world"], last["steps"], last["resumed_from"] is None) == (1, 8, False)
    _same(last, alone[name], weights)


@pytest.mark.parametrize("stage", ENGINES)
@pytest.mark.parametrize("name", CHAINS)
def test_resumed_under_the_same_stage_it_goes_on_to_the_last_bit(name: str, stage: Any, of_two: dict[str, Any]) -> None:
    """With dropout."""
    found = of_two[f"{name}-resuming{stage}"]
    assert found["resumed"] == found["unbroken"]


@pytest.mark.parametrize("stage", ENGINES)
@pytest.mark.parametrize("name", CHAINS)
def test_a_batch_that_is_not_finite_is_left_out_to_the_last_bit(name: str, stage: Any, of_two: dict[str, Any]) -> None:
    found = of_two[f"{name}-skipping{stage}"]
    assert found["with"]["told"] == [[False, False], [True, True], [False, False]]
    assert found["with"]["digest"] == found["without"]["digest"]
    assert found["with"]["counts"] == [2]


def test_a_checkpoint_holds_what_the_optimizer_keeps_and_nothing_else(
    of_two: dict[str, Any], moments: Any, weights: Any
) -> None:
    kept = {"adam": {"exp_avg", "exp_avg_sq"}, "sgd": {"momentum_buffer"}, "bare-sgd": set()}
    for name, keys in {**kept, "lamb": kept["adam"]}.items():
        found = moments(of_two[f"{name}3"])
        assert {tensor.rpartition(".")[2] for tensor in found} == keys
        assert len(found) == len(keys) * len(weights(of_two[f"{name}3"]))
        assert all(torch.isfinite(tensor).all() for tensor in found.values())


def _ignore(event: dict[str, Any]) -> None:
    pass
