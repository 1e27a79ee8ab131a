"""Whatever happens to the files of a checkpoint: it is found, named, moved away, and the one before is taken."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from orchestration.errors import DamagedError
from orchestration.storage import MANIFEST, Storage, dump_json
from orchestration.training import checkpoint
from orchestration.training.faults import StaleWriter
from tests.states import HARMS, RUN, Attempt, draw, harm, is_whole


@pytest.fixture(params=["folder", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    return Storage(str(tmp_path / "root") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


FILES = ("weights-00001-of-00002.safetensors", "optimizer-00000-of-00002.safetensors", "rank-00001.json", "state.json")


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_named_moved_away_and_the_one_before_is_taken(
    storage: Storage, file: str, how: str
) -> None:
    Attempt(storage).saved(1, 2)
    rel = checkpoint.name(RUN, 2, 1)
    data = storage.read(f"{rel}/{file}")
    if how == "remove":
        storage.remove(f"{rel}/{file}")
    else:
        storage.write(f"{rel}/{file}", data[:-1] if how == "cut" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    later = Attempt(storage)
    assert later.found is not None
    assert later.found.step == 1
    assert is_whole(storage, later.found.rel, draw(1))
    [sentence] = later.damaged
    assert sentence.startswith(f"checkpoint {rel} is damaged and skipped for the one before: ")
    assert ("manifest" if file == MANIFEST else file) in sentence
    assert f"it is kept as {RUN}/damaged/step-00000002.000001" in sentence
    assert storage.list(f"{RUN}/damaged") == ["step-00000002.000001"]
    assert storage.list(f"{RUN}/checkpoints") == ["step-00000001.000001"]
    assert not Attempt(storage).damaged


@pytest.mark.parametrize("kind", HARMS)
def test_no_harm_to_a_file_goes_unseen(tmp_path: Path, kind: str) -> None:
    """Each kind on three files drawn at random; hundreds of them in tests/chaos."""
    Attempt(Storage(str(tmp_path / "base"))).saved(1, 2)
    for number in range(3):
        shutil.copytree(tmp_path / "base", tmp_path / str(number))
        storage, pick = Storage(str(tmp_path / str(number))), random.Random(f"{kind} {number}")
        folder, older = (Path(storage.path(checkpoint.name(RUN, step, 1))) for step in (2, 1))
        name = harm(folder, older, kind, pick)
        later = Attempt(storage)
        assert later.found is not None
        assert (name, later.found.step, len(later.damaged)) == (name, 1, 1)
        assert is_whole(storage, later.found.rel, draw(1))


def test_a_manifest_whose_numbers_were_changed_is_damage_though_every_file_is_whole(storage: Storage) -> None:
    Attempt(storage).saved(1)
    rel = checkpoint.name(RUN, 1, 1)
    value = json.loads(storage.read(f"{rel}/{MANIFEST}"))
    value["meta"]["step"] = 7
    storage.write(f"{rel}/{MANIFEST}", dump_json(value))
    with pytest.raises(DamagedError, match="digest"):
        checkpoint.verify(storage, rel)


def test_a_checkpoint_of_another_format_is_no_other_than_a_damaged_one(storage: Storage) -> None:
    Attempt(storage).saved(1, 2)
    rel = checkpoint.name(RUN, 2, 1)
    from orchestration.training.checkpoint import format

    data = json.dumps({"format": 99}).encode()
    seal = format.read_seal(storage, rel)
    assert seal is not None
    storage.write(f"{rel}/state.json", data)
    format.seal(storage, rel, {**seal.files, "state.json": format.describe(data)}, seal.meta)
    later = Attempt(storage)
    assert later.found is not None
    assert later.found.step == 1
    assert "another format than 2" in later.damaged[0]


def test_a_half_written_folder_is_no_checkpoint_and_no_damage_and_is_removed_at_the_next_start(
    storage: Storage,
) -> None:
    attempt = Attempt(storage).saved(1)
    attempt.writers[1].save(
        lambda: draw(2).snapshot(1, 2),
        state=checkpoint.TrainState(step=2),
        meta={},
        frozen=None,
        score=None,
        best=False,
    )
    attempt.writers[1].wait()
    assert len(storage.list(f"{RUN}/checkpoints")) == 2
    later = Attempt(storage)
    assert later.found is not None
    assert (later.found.step, later.damaged) == (1, [])
    assert len(storage.list(f"{RUN}/checkpoints")) == 1


def test_a_run_that_is_being_written_is_not_disturbed_by_who_looks_at_it(storage: Storage) -> None:
    Attempt(storage).saved(1, 2)
    storage.remove(f"{checkpoint.name(RUN, 2, 1)}/{MANIFEST}")  # as in the moment before it is sealed
    found = checkpoint.newest(storage, RUN, pytest.fail)
    assert found is not None
    assert found.step == 1
    assert len(storage.list(f"{RUN}/checkpoints")) == 2


def test_only_the_last_damaged_ones_are_kept(storage: Storage) -> None:
    Attempt(storage).saved(*range(1, 7))
    for step in range(2, 7):
        storage.remove(f"{checkpoint.name(RUN, step, 1)}/{MANIFEST}")
    later = Attempt(storage)
    assert later.found is not None
    assert (later.found.step, len(later.damaged)) == (1, 5)
    assert len(storage.list(f"{RUN}/damaged")) == 3


@pytest.mark.parametrize("how", ["flip", "remove", "manifest"])
def test_damaged_frozen_weights_are_written_anew_from_the_pretrained_ones(storage: Storage, how: str) -> None:
    Attempt(storage).saved(1, 2)
    [address] = storage.list("frozen")
    file = f"frozen/{address}/{MANIFEST if how == 'manifest' else 'tensors.safetensors'}"
    data = storage.read(file)
    storage.remove(file) if how == "remove" else storage.write(file, data[:-3] + bytes([data[-3] ^ 4]) + data[-2:])
    later = Attempt(storage)
    assert later.found is not None
    assert later.found.step == 2
    assert is_whole(storage, later.found.rel, draw(2))
    [sentence] = later.damaged
    assert f"frozen/{address}" in sentence
    assert "written anew" in sentence
    assert storage.list(f"{RUN}/damaged") == [f"frozen-{address}"]


def test_without_the_pretrained_weights_damaged_frozen_ones_are_an_end_that_is_told(storage: Storage) -> None:
    Attempt(storage).saved(1, 2)
    [address] = storage.list("frozen")
    storage.write(f"frozen/{address}/tensors.safetensors", b"nothing")
    said: list[str] = []
    assert checkpoint.newest(storage, RUN, said.append) is None
    assert ["damaged" in said[0], "missing" in said[1]] == [True, True]
    assert len(storage.list(f"{RUN}/checkpoints")) == 2  # they are whole, for who has the frozen weights


def test_who_keeps_frozen_weights_mends_them(storage: Storage) -> None:
    rel = checkpoint.keep_frozen(storage, draw(1).frozen)
    storage.write(f"{rel}/tensors.safetensors", b"nothing")
    assert checkpoint.keep_frozen(storage, draw(1).frozen) == rel
    attempt = Attempt(storage).saved(1)
    assert is_whole(storage, checkpoint.name(RUN, 1, attempt.number), draw(1))


def test_a_copy_that_was_damaged_on_this_machine_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path))
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    Attempt(storage).saved(1)
    assert Attempt(storage).found
    for copy in (tmp_path / "files").iterdir():
        copy.write_bytes(bytes(copy.stat().st_size))
    later = Attempt(storage)
    assert later.found is not None
    assert not later.damaged
    assert is_whole(storage, later.found.rel, draw(1))


def test_on_s3_as_on_a_file_system(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of attempts, parts of two ranks, damage, stale writers."""
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path))
    storage = Storage(f"{s3}/run")
    first = Attempt(storage, keep=2).saved(1, 2, 3)
    rel = checkpoint.name(RUN, 3, 1)
    storage.write(f"{rel}/state.json", storage.read(f"{rel}/state.json")[:-1])
    second = Attempt(storage)
    assert (first.number, second.number) == (1, 2)
    assert second.found is not None
    assert (second.found.step, len(second.damaged)) == (2, 1)
    assert is_whole(storage, second.found.rel, draw(2))
    assert storage.list(f"{RUN}/damaged") == ["step-00000003.000001"]
    first.save(draw(4))
    with pytest.raises(StaleWriter):
        first.wait()
    second.saved(3)
    assert storage.list(f"{RUN}/checkpoints") == ["step-00000002.000001", "step-00000003.000002"]


def test_killed_while_it_saves_a_run_goes_on_from_a_whole_checkpoint(tmp_path: Path) -> None:
    """Five kill -9 at random moments; a hundred, and one before each operation on a file, in tests/chaos."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(tmp_path / "root"), '{"random": 5}'],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["attempts"] == 5
