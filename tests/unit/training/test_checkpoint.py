from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint
from orchestration.training.checkpoint import Found, TrainState
from orchestration.training.process import same_job
from tests.tiny import make_job

RUN = "runs/one"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def _save(storage: Storage, step: int, **state: Any) -> str:
    weights = {"a.weight": torch.full((2, 3), float(step)), "view": torch.arange(6.0).view(2, 3).t()}
    moments = {"a.weight.exp_avg": torch.full((2, 3), step / 2), "a.weight.exp_avg_sq": torch.full((2, 3), step / 4)}
    chosen = TrainState(step=step, **state)
    return checkpoint.save(
        storage, RUN, weights=weights, moments=moments, state=chosen, meta={"identity": {"seed": 7}, "world": 2}
    )


def _newest(storage: Storage) -> tuple[Found | None, list[str]]:
    damaged: list[str] = []
    return checkpoint.newest(storage, RUN, damaged.append), damaged


def test_what_was_saved_is_read_back_to_the_bit(storage: Storage) -> None:
    history = [{"type": "step", "step": 3, "loss": 0.1 + 0.2}]
    rel = _save(
        storage, 3, epoch=1, batch=2, best_value=1 / 3, best_step=2, stale=1, pending=(0.7, 12.0), history=history
    )
    found, damaged = _newest(storage)
    assert rel == "runs/one/checkpoints/step-00000003"
    assert found == Found(
        rel=rel,
        state=TrainState(
            3, epoch=1, batch=2, best_value=1 / 3, best_step=2, stale=1, pending=(0.7, 12.0), history=history
        ),
        meta={"identity": {"seed": 7}, "world": 2},
    )
    assert not damaged
    assert checkpoint.load_weights(storage, rel)["view"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert {name: float(t.max()) for name, t in checkpoint.load_moments(storage, rel).items()} == {
        "a.weight.exp_avg": 1.5,
        "a.weight.exp_avg_sq": 0.75,
    }


def test_no_run_and_an_empty_one_have_no_checkpoint(storage: Storage) -> None:
    assert _newest(storage) == (None, [])


def test_the_newest_by_step_is_found_also_where_digits_would_sort_otherwise(storage: Storage) -> None:
    for step in (9, 100_000, 20):
        _save(storage, step)
    found, _ = _newest(storage)
    assert found is not None
    assert found.state.step == 100_000


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_named_and_skipped_for_the_one_before(storage: Storage, file: str, harm: str) -> None:
    _save(storage, 1)
    path = Path(storage.path(_save(storage, 2))) / file
    data = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if harm == "cut" else data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    found, damaged = _newest(storage)
    assert found is not None
    assert found.state.step == 1
    [sentence] = damaged
    assert sentence.startswith(
        "checkpoint runs/one/checkpoints/step-00000002 is damaged and skipped for the one before: "
    )
    assert file in sentence


def test_a_checkpoint_of_another_format_is_skipped_and_says_so(storage: Storage) -> None:
    _save(storage, 1)
    aside = storage.staging()
    for source in Path(storage.path(_save(storage, 2))).glob("*.safetensors"):
        (aside / source.name).write_bytes(source.read_bytes())
    (aside / checkpoint.STATE).write_text(json.dumps({"format": 99, "meta": {}}))
    storage.commit("runs/one/checkpoints/step-00000003", aside, {"step": 3})
    found, damaged = _newest(storage)
    assert found is not None
    assert found.state.step == 2
    assert "step-00000003" in damaged[0]
    assert "another format than 1" in damaged[0]


def test_an_unsealed_folder_is_no_checkpoint_and_no_damage(storage: Storage) -> None:
    _save(storage, 1)
    unsealed = Path(storage.path("runs/one/checkpoints/step-00000002"))
    unsealed.mkdir()
    (unsealed / checkpoint.STATE).write_text("{")
    found, damaged = _newest(storage)
    assert found is not None
    assert (found.state.step, damaged) == (1, [])


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, None, [5]), (2, None, [4, 5]), (2, 1, [1, 4, 5]), (2, 5, [4, 5]), (9, 3, [1, 2, 3, 4, 5])],
)
def test_the_newest_and_the_best_are_kept(storage: Storage, keep: int, best: int | None, left: list[int]) -> None:
    for step in range(1, 6):
        _save(storage, step)
    checkpoint.retain(storage, RUN, keep=keep, best_step=best)
    assert storage.list("runs/one/checkpoints") == [f"step-{step:08d}" for step in left]


def test_a_checkpoint_of_another_job_is_refused_with_what_differs(tmp_path: Path) -> None:
    then = make_job(tmp_path, epochs=2)
    found = Found(
        "runs/one/checkpoints/step-00000004", TrainState(4), {"identity": json.loads(json.dumps(then.identity()))}
    )
    same_job(then, found)
    same_job(
        make_job(tmp_path, run="other", epochs=2, zero={"stage": 3}, micro_batch=3, report_every=9, precision="bf16"),
        found,
    )
    with pytest.raises(
        UserError,
        match=r"step-00000004 was written by another job \(train\.epochs was 2 and is 3\); resume with the same",
    ):
        same_job(make_job(tmp_path, epochs=3), found)
