"""When writing goes wrong: full disks, dead ranks, writers of an attempt that is over. What was sealed stays whole."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.storage import Storage
from orchestration.training import checkpoint
from orchestration.training.checkpoint import TrainState, tensors
from orchestration.training.faults import StaleWriter
from orchestration.training.fragments import Fragment, Snapshot
from tests.states import RUN, Attempt, draw, is_whole


@pytest.fixture(params=["folder", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    return Storage(str(tmp_path / "root") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def _newest_step(storage: Storage) -> int | None:
    found = checkpoint.newest(storage, RUN, pytest.fail)
    assert found is None or is_whole(storage, found.rel, draw(found.step))
    return found.step if found else None


# ------------------------------------------------------------------------------------------------ full disk


@pytest.fixture
def full_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The disk takes so many chunks more."""
    left, chunks = [10**9], tensors._chunks

    def counted(named: dict[str, Any]) -> Iterator[memoryview]:
        for chunk in chunks(named):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield chunk

    monkeypatch.setattr(tensors, "_chunks", counted)
    return lambda count: left.__setitem__(0, count)


@pytest.mark.parametrize("chunks", [0, 1, 5, 9])
def test_a_full_disk_is_named_with_bytes_needed_and_free_and_costs_no_checkpoint(
    storage: Storage, full_after: Any, chunks: int
) -> None:
    attempt = Attempt(storage, world=1).saved(1)
    full_after(chunks)
    attempt.save(draw(2))
    with pytest.raises(OSError, match="no space left") as error:
        attempt.wait()
    needed, free = re.findall(r"[\d,]{4,}", str(error.value))[:2]
    assert int(needed.replace(",", "")) > 4 * 37 * 11
    assert int(free.replace(",", "")) > 0
    assert "step-00000002" in str(error.value)
    assert storage.list(checkpoint.name(RUN, 2, 1)) == []
    assert _newest_step(storage) == 1
    full_after(10**9)
    attempt.saved(2, 3)  # room was made: the same writer goes on
    assert _newest_step(storage) == 3


def test_a_disk_too_small_for_a_checkpoint_is_not_filled_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    attempt = Attempt(storage, world=1).saved(1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    monkeypatch.setattr(tensors, "write", pytest.fail)
    attempt.save(draw(2))
    with pytest.raises(OSError, match=r"needs 1,0\d\d,\d\d\d bytes and 10,000 are free"):
        attempt.wait()
    monkeypatch.undo()
    assert _newest_step(storage) == 1


def test_a_rank_whose_disk_is_full_lets_the_first_rank_know(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, write = Attempt(storage, world=3).saved(1), tensors.write

    def full(path: Path, named: Any) -> Any:
        if "00002-of" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, named)

    monkeypatch.setattr(tensors, "write", full)
    attempt.save(draw(2))
    with pytest.raises(OSError, match=r"rank 2 could not write its part: .*bytes"):
        attempt.writers[0].wait()
    attempt.writers[1].wait()
    with pytest.raises(OSError, match="free"):
        attempt.writers[2].wait()
    assert _newest_step(storage) == 1
    monkeypatch.setattr(tensors, "write", write)
    attempt.saved(2)
    assert _newest_step(storage) == 2


# ------------------------------------------------------------------------------------------------ other ranks


def test_a_rank_that_never_writes_means_no_seal_and_is_named(storage: Storage) -> None:
    attempt = Attempt(storage, world=3).saved(1)
    attempt.writers[0].wait_s = 0.05
    state = TrainState(step=2)
    for writer in (attempt.writers[0], attempt.writers[2]):
        writer.save(lambda: draw(2).snapshot(0, 3), state=state, meta={}, frozen=None, score=None, best=False)
    with pytest.raises(TimeoutError, match=r"no part of rank 1 after 0\.05 s"):
        attempt.writers[0].wait()
    attempt.writers[2].wait()
    assert _newest_step(storage) == 1
    attempt.writers[0].wait_s = 60.0
    attempt.saved(3)
    assert storage.list(f"{RUN}/checkpoints") == ["step-00000001.000001", "step-00000003.000001"]


def test_the_first_rank_waits_for_a_slow_one(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, write, go = Attempt(storage), tensors.write, threading.Event()

    def slow(path: Path, named: Any) -> Any:
        assert "00001-of" not in path.name or go.wait(30)
        return write(path, named)

    monkeypatch.setattr(tensors, "write", slow)
    attempt.save(draw(1))
    assert not attempt.writers[0].finished()
    assert _newest_step(storage) is None
    go.set()
    attempt.wait()
    assert _newest_step(storage) == 1


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([("w", 0, 3), ("w", 4, 2)], "w: elements are missing at 3"),
        ([("w", 0, 4), ("w", 3, 3)], "w: elements occur twice at 3"),
        ([("w", 0, 5)], "w: 5 elements of 6"),
        ([], "w is missing"),
        ([("w", 0, 6), ("v", 0, 1)], "v has no shape"),
    ],
)
def test_what_could_not_be_read_is_not_sealed(storage: Storage, weights: list[tuple[str, int, int]], said: str) -> None:
    import torch

    [writer] = Attempt(storage, world=1).writers
    parts = [Fragment(name, start, torch.zeros(numel)) for name, start, numel in weights]
    made = Snapshot(parts, [], {"w": (2, 3)}, {})
    writer.save(lambda: made, state=TrainState(step=1), meta={}, frozen=None, score=None, best=False)
    with pytest.raises(ValueError, match=f"not sealed: {said}"):
        writer.wait()
    assert _newest_step(storage) is None


# ------------------------------------------------------------------------------------------------ attempts


def test_attempts_are_numbered_and_say_who_they_are(storage: Storage) -> None:
    assert [checkpoint.claim_attempt(storage, RUN) for _ in range(3)] == [1, 2, 3]
    checkpoint.note_resumed(storage, RUN, 3, 40)
    facts = storage.read_json(f"{RUN}/attempts/000003.json")
    assert (facts["resumed_from"], facts["pid"]) == (40, os.getpid())


def test_of_two_starts_in_the_same_moment_each_gets_its_own_number(tmp_path: Path) -> None:
    storage, claimed, gate = Storage(str(tmp_path)), [], threading.Barrier(8)

    def claim() -> None:
        gate.wait()
        claimed.append(checkpoint.claim_attempt(storage, RUN))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(1, 9))


def test_a_writer_of_an_older_attempt_seals_nothing_more(storage: Storage) -> None:
    old = Attempt(storage).saved(1)
    new = Attempt(storage)
    old.save(draw(2))
    for writer in old.writers:
        with pytest.raises(StaleWriter, match="attempt 2 of this run has begun, so attempt 1 writes no more") as error:
            writer.wait()
        assert error.value.facts == {"attempt": 1, "newest": 2}
    new.saved(2)
    assert storage.list(f"{RUN}/checkpoints") == ["step-00000001.000001", "step-00000002.000002"]


def test_a_writer_that_gets_stale_while_it_writes_removes_what_it_wrote(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, write = Attempt(storage, world=1).saved(1), tensors.write

    def overtaken(path: Path, named: Any) -> Any:
        monkeypatch.setattr(tensors, "write", write)
        checkpoint.claim_attempt(storage, RUN)
        return write(path, named)

    monkeypatch.setattr(tensors, "write", overtaken)
    old.save(draw(2))
    with pytest.raises(StaleWriter):
        old.wait()
    assert storage.list(checkpoint.name(RUN, 2, 1)) == []


def test_what_a_stale_writer_sealed_in_the_last_moment_is_ignored_and_removed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer attempt looked before it was sealed, and goes on from step 1."""
    old = Attempt(storage).saved(1)
    new = Attempt(storage)
    for writer in old.writers:
        monkeypatch.setattr(writer, "_refuse_stale", lambda: None)
    old.saved(9)
    assert _newest_step(storage) == 1
    third = Attempt(storage, keep=1)
    assert third.found is not None
    assert (third.found.step, third.damaged) == (1, [])
    assert new.found is not None
    third.saved(2)
    assert storage.list(f"{RUN}/checkpoints") == ["step-00000002.000003"]


def test_a_run_that_was_rolled_back_goes_on_from_its_new_history(storage: Storage) -> None:
    Attempt(storage).saved(2, 4, 6)
    back = Attempt(storage, before_step=4)
    assert back.found is not None
    assert back.found.step == 2
    assert _newest_step(storage) == 2
    back.saved(3)
    assert _newest_step(storage) == 3
    assert storage.list(f"{RUN}/checkpoints") == ["step-00000002.000001", "step-00000003.000002"]


def test_an_attempt_that_died_before_it_looked_shuts_nothing_out(storage: Storage) -> None:
    Attempt(storage).saved(4)
    checkpoint.claim_attempt(storage, RUN)
    storage.write(f"{RUN}/attempts/000003.json", b"")
    assert _newest_step(storage) == 4
    assert checkpoint.claim_attempt(storage, RUN) == 4
