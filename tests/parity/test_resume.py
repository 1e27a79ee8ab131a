"""A run that was broken off and taken up again against its unbroken twin, with dropout. On one rank the losses are equal to the last
bit: dropout is seeded from the position, and nothing else is random."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from orchestration.training.job import LoopResult
from tests.parity import driver
from tests.parity.conftest import ENGINES, MOVES, losses, one_thread
from tests.tiny import make_job

TWO_EPOCHS = {"dropout": 0.1, "epochs": 2, "checkpoint": {"every_steps": 3, "keep": 4}, "micro_batch": 5}


OPTIMIZER, WEIGHTS = "optimizer-00000-of-00001.safetensors", "weights-00000-of-00001.safetensors"


class Interrupted(Exception):
    """What a caller's `report` raises here."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def _run(root: Path, run: str, *, die_at: int | None = None, stop_at: int | None = None, **more: Any) -> LoopResult:
    events: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if event["type"] == "step" and event["step"] == die_at:
            raise Interrupted

    def stop() -> bool:
        return any(event.get("step") == stop_at for event in events if event["type"] == "step")

    return loop.run(make_job(root, run=run, **{**TWO_EPOCHS, **more}), report=report, stop=stop if stop_at else None)


@pytest.fixture(scope="module")
def unbroken(root: Path) -> LoopResult:
    return _run(root, "unbroken")


def _weights(root: Path, result: LoopResult) -> dict[str, torch.Tensor]:
    assert result.last_checkpoint is not None
    return checkpoint.open(Storage(str(root)), result.last_checkpoint).weights()


def _same(root: Path, one: LoopResult, other: LoopResult) -> None:
    """Losses, validations and final weights, to the bit."""
    assert one.losses == other.losses
    assert one.validations == other.validations
    first, second = _weights(root, one), _weights(root, other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_died_in_mid_epoch_goes_on_from_its_newest_checkpoint_as_if_it_had_not(
    root: Path, unbroken: LoopResult
) -> None:
    with pytest.raises(Interrupted):
        _run(root, "died", die_at=11)
    again = _run(root, "died")
    assert again.resumed_from == checkpoint.name("runs/died", 9, 1)  # one step into the second epoch
    assert again.steps == unbroken.steps == 16
    assert len(set(unbroken.losses)) == 16
    _same(root, again, unbroken)


def test_a_run_that_was_stopped_goes_on_where_it_stopped(root: Path, unbroken: LoopResult) -> None:
    halted = _run(root, "halted", stop_at=4)
    assert (halted.ended, halted.steps) == ("stopped", 5)  # asked at the report after step 4's
    again = _run(root, "halted")
    assert (again.ended, again.resumed_from) == ("finished", checkpoint.name("runs/halted", 5, 1))
    _same(root, again, unbroken)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_taken(root: Path, unbroken: LoopResult) -> None:
    with pytest.raises(Interrupted):
        _run(root, "damaged", die_at=11)
    for number, file in ((9, OPTIMIZER), (8, WEIGHTS)):
        _flip(Path(Storage(str(root)).path(checkpoint.name("runs/damaged", number, 1))) / file)
    again = _run(root, "damaged")
    assert again.resumed_from == checkpoint.name("runs/damaged", 6, 1)
    assert ["step-00000009" in again.damaged[0], "step-00000008" in again.damaged[1]] == [True, True]
    assert [OPTIMIZER in again.damaged[0], WEIGHTS in again.damaged[1]] == [True, True]
    _same(root, again, unbroken)


def test_a_run_whose_checkpoints_are_all_damaged_starts_anew_and_says_so(root: Path, unbroken: LoopResult) -> None:
    with pytest.raises(Interrupted):
        _run(root, "lost", die_at=4)
    _flip(Path(Storage(str(root)).path(checkpoint.name("runs/lost", 3, 1))) / "state.json")
    again = _run(root, "lost")
    assert again.resumed_from is None
    assert "step-00000003.000001 is damaged" in again.damaged[0]
    _same(root, again, unbroken)


def test_an_ended_run_is_not_trained_further(root: Path, unbroken: LoopResult) -> None:
    again = _run(root, "unbroken")
    assert again.resumed_from == unbroken.last_checkpoint
    assert again.history == unbroken.history


def test_another_rate_or_seed_is_refused_with_both_values(root: Path, unbroken: LoopResult) -> None:
    with pytest.raises(UserError, match=r"train\.layers was .*0\.9.* and is .*0\.5.*start a new run"):
        _run(root, "unbroken", layers={"decay": 0.5})


@pytest.mark.parametrize("stage", ENGINES)
def test_two_ranks_at_every_stage_go_on_as_if_unbroken_to_the_last_bit(
    stage: Any, of_two: dict[str, Any], weights: Any, moments: Any
) -> None:
    whole, again = of_two[f"noisy{stage}-unbroken"], of_two[f"noisy{stage}-resumed"]
    assert again["resumed_from"] == checkpoint.name(f"runs/noisy{stage}", 5, 1)
    assert losses(again) == losses(whole)
    assert losses(whole) != pytest.approx(losses(of_two[f"w2-stage{stage}"]), abs=1e-4)  # dropout is on
    for tensors in (weights, moments):
        first, second = tensors(again), tensors(whole)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_three_ranks_go_on_as_if_unbroken_to_the_last_bit(of_three: dict[str, Any], weights: Any) -> None:
    """With three the order of a sum matters: it must not depend on how long a rank has been running."""
    again, whole = of_three["3to3"], of_three["3whole"]
    assert again["resumed_from"] == checkpoint.name("runs/3to3", 5, 1)
    assert [*losses(of_three["3to3-stopped"]), *losses(again)[5:]] == losses(again) == losses(whole)
    first, second = weights(again), weights(whole)
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.parametrize(("first", "then"), MOVES)
def test_a_run_goes_on_under_another_stage(first: Any, then: Any, of_two: dict[str, Any], weights: Any) -> None:
    whole, again = of_two[f"w2-stage{first}"], of_two[f"from{first}to{then}"]
    assert (of_two[f"from{first}to{then}-stopped"]["zero_stage"], again["zero_stage"]) == tuple(
        None if stage == "auto" else stage for stage in (first, then)
    )
    assert again["resumed_from"] is not None
    assert losses(again) == pytest.approx(losses(whole), abs=1e-6)
    _close(weights(again), weights(whole))


def test_a_run_of_two_ranks_goes_on_with_one(root: Path, of_two: dict[str, Any], weights: Any) -> None:
    """Stage 2 on two ranks for 5 steps, then bare torch on one, dropout 0; no row is seen twice or left out."""
    again = loop.run(make_job(root, run="shrunk"), report=lambda event: None)
    assert (
        of_two["shrunk-stopped"]["world"],
        of_two["shrunk-stopped"]["zero_stage"],
        of_two["shrunk-stopped"]["steps"],
    ) == (2, 2, 5)
    assert (again.world, again.zero_stage, again.steps) == (1, None, 8)
    assert again.losses == pytest.approx(losses(of_two["w2-stage2"]), abs=1e-6)
    _close(weights(again.dump()), weights(of_two["w2-stage2"]))


@pytest.fixture(scope="module")
def one_rank(root: Path) -> dict[str, Any]:
    return driver.recorded(root, 0, 1, name="recorded", micro_batch=5)


@pytest.mark.parametrize(("first", "then"), [(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 3)])
def test_a_run_resumed_with_another_number_of_ranks_sees_the_very_batches_of_the_unbroken_one(
    first: int,
    then: int,
    root: Path,
    one_rank: dict[str, Any],
    begun: dict[str, Any],
    of_two: dict[str, Any],
    of_three: dict[str, Any],
) -> None:
    """Stopped after 5 of 8 steps. Every row comes once; each step has the rows it has without the stop; the losses are equal."""
    found = {**begun, **of_two, **of_three}
    name = f"{first}to{then}"
    before = found[f"{name}-stopped"]
    after = found[name] if then > 1 else driver.recorded(root, 0, 1, name=name, micro_batch=5)
    assert (before["world"], before["steps"], after["world"], after["steps"]) == (first, 5, then, 8)
    assert (sorted(before["rows"]), sorted(after["rows"])) == (list("01234"), list("567"))
    rows = {**before["rows"], **after["rows"]}
    for step, wanted in one_rank["rows"].items():
        assert sorted(rows[step]) == sorted(wanted)
    everything = [row for part in rows.values() for row in part]
    assert len(everything) == len(set(everything)) == 85
    assert losses(after) == pytest.approx(losses(one_rank), abs=1e-6)


def _close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """But for key biases, whose gradient is rounding noise alone."""
    assert one.keys() == other.keys()
    for name in one:
        if not name.endswith("attention.self.key.bias"):
            assert (one[name] - other[name]).abs().max() < 2e-5, name


def _flip(path: Path) -> None:
    """The file with its last byte changed: its length stays."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(bytes(data))
