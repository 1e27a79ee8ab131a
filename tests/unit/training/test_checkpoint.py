"""Checkpoints as they are meant: written by any number of ranks, read in any other cut, the newest and best kept."""

from __future__ import annotations

import json
import random
import uuid
from pathlib import Path

import pytest
import torch

from orchestration.errors import UserError
from orchestration.storage import MANIFEST, Storage
from orchestration.training import checkpoint
from orchestration.training.checkpoint import Found, TrainState
from orchestration.training.fragments import Fragment, Snapshot
from orchestration.training.process import same_job
from tests.states import RUN, Attempt, State, cut, draw, is_whole, same
from tests.tiny import make_job


@pytest.fixture(params=["folder", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    return Storage(str(tmp_path / "root") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def _names(storage: Storage) -> list[tuple[int, int]]:
    """(step, attempt) of what is there."""
    return [(int(name[5:13]), int(name[14:])) for name in storage.list(f"{RUN}/checkpoints")]


def test_what_was_saved_is_read_back_to_the_bit(storage: Storage) -> None:
    history = [{"type": "step", "step": 3, "loss": 0.1 + 0.2}]
    attempt, state = Attempt(storage), draw(3)
    values = {"epoch": 1, "batch": 2, "best_value": 1 / 3, "stale": 1, "pending": (0.7, 12.0), "history": history}
    rel = attempt.save(state, score=0.5, best=True, **values)
    attempt.wait()
    [saved] = attempt.writers[0].finished()
    assert (saved.step, saved.rel, saved.best) == (3, rel, True)
    assert saved.bytes > 6 * 4 * 37 * 11 / 2
    assert attempt.writers[0].finished() == attempt.writers[1].finished() == []
    later = Attempt(storage)
    assert later.found == Found(rel, TrainState(3, **values), {"identity": {"seed": 7}})
    assert not later.damaged
    assert is_whole(storage, rel, state)
    reader = checkpoint.open(storage, rel)
    assert reader.state == TrainState(3, **values)
    assert reader.steps == state.steps
    assert reader.extra == {"loss_scale": 3.0}


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_any_range_of_a_tensor_is_read_whatever_the_ranks_that_wrote_it(storage: Storage, world: int) -> None:
    attempt, state, pick = Attempt(storage, world=world), draw(5), random.Random(world)
    rel = attempt.save(state)
    attempt.wait()
    reader = checkpoint.open(storage, rel)
    for name, tensor in {**state.named, **state.moments}.items():
        flat = tensor.reshape(-1)
        for _ in range(12):
            start, stop = sorted(pick.randrange(flat.numel() + 1) for _ in range(2))
            found = reader.read(name, start, stop)
            assert found.dtype == flat.dtype
            assert torch.equal(found, flat[start:stop])
    with pytest.raises(KeyError, match="nobody"):
        reader.read("nobody", 0, 1)


def test_two_ranks_write_three_go_on_and_one_ends_with_the_same_bits(storage: Storage) -> None:
    state = draw(1)
    for world in (2, 3, 1):
        attempt = Attempt(storage, world=world)
        if attempt.found:
            state = _taken_over(storage, attempt.found.rel, world)
        state = State(state.step + 1, state.weights, state.moments, state.frozen)
        attempt.save(state)
        attempt.wait()
    first = draw(1)
    assert state.step == 4
    assert same(state.weights, first.weights)
    assert same(state.moments, first.moments)


def _taken_over(storage: Storage, rel: str, world: int) -> State:
    """What `world` ranks have together, each of which reads only its own ranges."""
    reader, like = checkpoint.open(storage, rel), draw(1)
    made = {"weights": {}, "moments": {}}  # type: ignore[var-annotated]
    for kind, tensors in (("weights", like.weights), ("moments", like.moments)):
        for name, tensor in tensors.items():
            made[kind][name] = torch.empty_like(tensor)
        for rank in range(world):
            for piece in cut(tensors, rank, world):
                stop = piece.start + piece.values.numel()
                made[kind][piece.name].reshape(-1)[piece.start : stop] = reader.read(piece.name, piece.start, stop)
    return State(reader.state.step, made["weights"], made["moments"], like.frozen)


def test_a_rank_on_another_machine_copies_only_the_files_that_hold_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "writer"))
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    attempt = Attempt(storage, world=4)
    rel = attempt.save(draw(1))
    attempt.wait()
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "reader"))
    reader = checkpoint.open(storage, rel)
    piece = cut(draw(1).weights, 3, 4)[0]
    reader.read(piece.name, piece.start, piece.start + 1)
    sizes = [path.stat().st_size for path in (tmp_path / "reader" / "files").iterdir()]
    assert len(sizes) == 1 + 4 + 1  # state, an index a rank, one file of tensors


def test_frozen_weights_lie_once_for_all_checkpoints_and_runs(storage: Storage) -> None:
    Attempt(storage).saved(1, 2)
    [address] = storage.list("frozen")
    assert checkpoint.keep_frozen(storage, dict(reversed(draw(9).frozen.items()))) == f"frozen/{address}"
    assert checkpoint.keep_frozen(storage, {}) is None
    other = {**draw(1).frozen, "embedding.norm": torch.ones(7)}
    assert checkpoint.keep_frozen(storage, other) != f"frozen/{address}"
    held = [name for name in storage.list(checkpoint.name(RUN, 2, 1)) if name.endswith(".safetensors")]
    assert len(held) == 4


def test_no_run_and_an_empty_one_have_no_checkpoint(storage: Storage) -> None:
    assert checkpoint.newest(storage, RUN, pytest.fail) is None
    assert Attempt(storage).found is None


def test_the_newest_by_step_is_found_also_where_digits_would_sort_otherwise(storage: Storage) -> None:
    Attempt(storage).saved(9, 100_000, 20)
    found = checkpoint.newest(storage, RUN, pytest.fail)
    assert found is not None
    assert found.step == 100_000


def test_going_back_takes_the_newest_before_a_step(storage: Storage) -> None:
    Attempt(storage).saved(2, 4, 6)
    found = checkpoint.newest(storage, RUN, pytest.fail, before_step=6)
    assert found is not None
    assert found.step == 4
    assert checkpoint.newest(storage, RUN, pytest.fail, before_step=2) is None


@pytest.mark.parametrize(
    ("keep", "keep_best", "scores", "left"),
    [
        (1, 1, [None] * 5, [5]),
        (2, 1, [None] * 5, [4, 5]),
        (2, 1, [0.9, 0.1, 0.2, 0.3, 0.4], [1, 4, 5]),
        (1, 2, [0.1, 0.8, 0.9, None, 0.2], [2, 3, 5]),
        (1, 1, [0.5, 0.7, 0.7, 0.7, 0.1], [2, 5]),  # of equal ones the earliest, which the run calls its best
        (1, 1, [-0.2, float("nan"), -0.9, None, None], [1, 5]),  # lower losses are higher scores; NaN is none
        (9, 1, [None] * 5, [1, 2, 3, 4, 5]),
    ],
)
def test_the_newest_and_the_best_are_kept(
    storage: Storage, keep: int, keep_best: int, scores: list[float | None], left: list[int]
) -> None:
    attempt = Attempt(storage, keep=keep, keep_best=keep_best)
    for step, score in enumerate(scores, 1):
        attempt.save(draw(step), score=score)
    attempt.wait()
    assert _names(storage) == [(step, 1) for step in left]
    assert storage.list("frozen")


def test_what_the_run_calls_its_best_is_kept_whatever_the_scores(storage: Storage) -> None:
    attempt = Attempt(storage, keep=1)
    for step in range(1, 6):
        attempt.save(draw(step), score=float(step), best=step == 2)
    attempt.wait()
    assert _names(storage) == [(2, 1), (5, 1)]


def test_a_step_saved_twice_gets_the_new_position_and_keeps_its_tensors_and_score(storage: Storage) -> None:
    attempt = Attempt(storage, keep=1)
    attempt.save(draw(1), score=0.9, best=True)
    attempt.save(draw(2), score=0.1)
    for ended in (None, "early_stopping", "stopped"):
        attempt.save(draw(2), ended=ended)
    rel = attempt.save(draw(1), ended="stopped")
    attempt.wait()
    assert checkpoint.open(storage, rel).state.ended == "stopped"
    assert is_whole(storage, rel, draw(1))
    found = checkpoint.newest(storage, RUN, pytest.fail)
    assert found is not None
    assert (found.step, found.state.ended) == (2, "stopped")
    assert is_whole(storage, found.rel, draw(2))
    assert _names(storage) == [(1, 1), (2, 1)]
    assert [name for name in storage.list(found.rel) if name.startswith("state")] == ["state-4.json"]


def test_the_snapshot_is_taken_when_the_one_before_is_written(storage: Storage) -> None:
    """Engines use their buffers again."""
    [writer] = Attempt(storage, world=1).writers
    buffer = torch.zeros(50_000)

    def snapshot(step: int) -> Snapshot:
        buffer.fill_(step)
        return Snapshot([Fragment("w", 0, buffer)], [], {"w": (50_000,)}, {})

    for step in range(1, 6):
        state = TrainState(step=step)
        writer.save(lambda step=step: snapshot(step), state=state, meta={}, frozen=None, score=None, best=False)  # type: ignore[misc]
        state.step, state.history = 99, [{}]  # the loop goes on
    writer.wait()
    for step in range(1, 6):
        reader = checkpoint.open(storage, checkpoint.name(RUN, step, 1))
        assert (reader.state, reader.weights()["w"].unique().tolist()) == (TrainState(step=step), [float(step)])


def test_files_are_plain_safetensors_and_json(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    storage, attempt = Storage(str(tmp_path)), Attempt(Storage(str(tmp_path)), world=1)
    rel = attempt.save(draw(4))
    attempt.wait()
    folder = Path(storage.path(rel))
    assert sorted(path.suffix for path in folder.iterdir()) == [".json"] * 3 + [".safetensors"] * 2
    tensors = load_file(folder / "weights-00000-of-00001.safetensors")
    assert torch.equal(tensors["encoder.bias@0"], draw(4).weights["encoder.bias"])
    assert set(json.loads((folder / MANIFEST).read_text())["files"]) == {path.name for path in folder.iterdir()} - {
        MANIFEST
    }


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
