"""Checkpoints under harm and kill -9: nothing damaged is ever loaded, nothing whole is ever lost. A minute or two; `make chaos`."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.storage import Storage
from orchestration.training import checkpoint, loop
from tests.states import HARMS, RUN, Attempt, draw, harm, is_whole, same
from tests.tiny import make_job

SEED, CORRUPTIONS, KILLS = 11, 200, 100


@pytest.fixture(params=["1 rank", "3 ranks", "a fit"])
def three(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A run with checkpoints of three steps: of made-up tensors, or of a real fit with frozen embeddings."""
    storage = Storage(str(tmp_path / "base"))
    if request.param == "a fit":
        saves = {"every_steps": 2, "keep": 3}
        job = make_job(tmp_path / "base", run="one", batch=15, layers={"freeze": 1}, checkpoint=saves)
        loop.run(job, report=lambda event: None)
    else:
        Attempt(storage, world=int(request.param[0])).saved(1, 2, 3)
    assert len(storage.list(f"{RUN}/checkpoints")) == 3
    return storage


def test_of_two_hundred_corruptions_each_is_seen_and_the_checkpoint_before_is_taken(
    three: Storage, tmp_path: Path
) -> None:
    """Of any file of the newest of three checkpoints, by turns in each way; every fifth time the one before is harmed, too."""
    names = three.list(f"{RUN}/checkpoints")
    done: Counter[str] = Counter()
    for number in range(CORRUPTIONS):
        pick, kind = random.Random(f"{SEED} {names} {number}"), HARMS[number % len(HARMS)]
        root = Path(shutil.copytree(tmp_path / "base", tmp_path / "harmed"))
        storage = Storage(str(root))
        folders = [Path(storage.path(f"{RUN}/checkpoints/{name}")) for name in names]
        count = 1 if number % 5 else 2
        harmed = [harm(folder, folders[0], kind, pick) for folder in folders[:0:-1][:count]]
        said: list[str] = []
        checkpoint.claim_attempt(storage, RUN)
        found = checkpoint.newest(storage, RUN, said.append)
        assert found is not None, (kind, harmed, said)
        assert (found.rel.rpartition("/")[2], len(said)) == (names[2 - count], count), (kind, harmed, said)
        before, after = checkpoint.open(three, found.rel), checkpoint.open(storage, found.rel)
        assert same(after.weights(), before.weights())
        assert same(after.moments(), before.moments())
        assert len(storage.list(f"{RUN}/damaged")) == count
        done[kind] += 1
        shutil.rmtree(root)
    print(f"\n{done.total()} corruptions seen, none loaded: {dict(done)}")


def test_damaged_frozen_weights_are_seen_and_mended(tmp_path: Path) -> None:
    Attempt(Storage(str(tmp_path / "base"))).saved(1, 2)
    for number in range(30):
        pick, kind = random.Random(f"{SEED} frozen {number}"), HARMS[number % len(HARMS)]
        root = Path(shutil.copytree(tmp_path / "base", tmp_path / "harmed"))
        storage = Storage(str(root))
        [address] = storage.list("frozen")
        other = checkpoint.keep_frozen(storage, draw(2).weights)
        harm(Path(storage.path(f"frozen/{address}")), Path(storage.path(str(other))), kind, pick)
        later = Attempt(storage)
        assert later.found is not None
        assert (later.found.step, len(later.damaged)) == (2, 1), (kind, later.damaged)
        assert is_whole(storage, later.found.rel, draw(2))
        shutil.rmtree(root)


def test_killed_a_hundred_times_in_its_saves_it_never_leaves_one_that_cannot_be_loaded(tmp_path: Path) -> None:
    said = _driver(tmp_path, {"random": KILLS, "seed": SEED})
    assert said["attempts"] == KILLS
    assert said["in a save"] >= KILLS // 4


def test_ended_before_each_operation_on_a_file_in_turn_the_old_checkpoint_or_the_new_one_is_there(
    tmp_path: Path,
) -> None:
    said = _driver(tmp_path, {"every": True})
    assert said["operations"] > 40
    assert set(said["found"]) == {"2", "3"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_disk_that_is_really_full_the_checkpoints_before_stay_whole(small_disk: Path) -> None:
    """Each of two ranks sees room for its own 1.4 MB; for both there is none."""
    storage = Storage(str(small_disk))
    attempt = Attempt(storage, wait_s=20)
    attempt.save(draw(1, width=180))
    attempt.wait()
    failed = 0
    for step in range(2, 8):
        attempt.save(draw(step, width=180))
        for writer in attempt.writers:
            try:
                writer.wait()
            except OSError as error:
                assert "bytes" in str(error)  # noqa: PT017
                failed += 1
        later = checkpoint.newest(storage, RUN, pytest.fail)
        assert later is not None
        assert is_whole(storage, later.rel, draw(later.step, width=180))
    print(f"\n{failed} writes failed")
    assert failed
    (small_disk / RUN / "checkpoints").rename(small_disk / "away")
    shutil.rmtree(small_disk / "away")
    attempt.save(draw(9))
    attempt.wait()  # with room again the same writers go on
    assert is_whole(storage, checkpoint.name(RUN, 9, 1), draw(9))


def _driver(root: Path, asked: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(root / "run"), json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"\n{done.stdout.strip()}")
    return json.loads(done.stdout)
