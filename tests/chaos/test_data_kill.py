"""`eagleray prepare` under kill -9: of the whole command at random moments, and of Ray's workers while it runs. What it leaves is never
taken for a store, and the run that comes to the end gives the bytes of the unbroken one. Minutes; `make chaos`."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orchestration.data import rng
from orchestration.storage import MANIFEST, Storage
from tests.chaos import corpus
from tests.packages import cut_encoder

MARK = "EAGLERAY_TEST_MARK"  # every process of a command's own Ray inherits it
SEED, KILLS, ROWS, TIMEOUT_S, GONE_S = 11, 5, 24_000, 900, 60
MORE = 9  # units at most between one kill and the next, of 48


class Command:
    """One `eagleray prepare`, which can be killed."""

    def __init__(self, spec: Path) -> None:
        self.mark, self.started = uuid.uuid4().hex, time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "prepare", str(spec)],
            env={key: value for key, value in os.environ.items() if key != "EAGLERAY_ADDRESS"} | {MARK: self.mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, said[-3000:]

    def kill(self) -> None:
        """And wait until its Ray is gone, too: nobody writes behind our back."""
        self.process.kill()
        self.process.communicate()
        until = time.monotonic() + GONE_S
        while left := self.family():
            assert time.monotonic() < until, f"still there: {left}"
            time.sleep(0.1)

    def family(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue  # gone meanwhile, or not ours to read
        return found

    def workers(self) -> list[psutil.Process]:
        """Those that are at work on a part of ours."""
        found = []
        for process in self.family():
            try:
                title = (process.cmdline() or [""])[0]
            except psutil.Error:
                continue
            if title.startswith("ray::") and ("read_keys" in title or "write_unit" in title):
                found.append(process)
        return found


@pytest.fixture(scope="module")
def new_spec(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    root = tmp_path_factory.mktemp("kill")
    made = corpus.write(root / "corpus", corpus.whole_words(minilm), rows=ROWS, files=3, seed=SEED)
    weights = Storage(str(root / "models"))
    folder = weights.path(cut_encoder(minilm, weights))

    def make(name: str, **data: Any) -> Path:
        value = {
            "name": "kill",
            "seed": 5,
            "storage": str(root / name),
            "data": {
                "sources": [{"name": "made", "path": str(made.folder)}],
                "augment": {"copies": 1, "ops": [{"op": "swap"}]},
                "max_bad_rows": 10,
                "shard_rows": 500,
                **data,
            },
            "model": {"path": folder},
        }
        path = root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(value))
        return path

    return make


def _stores(spec: Path) -> list[Path]:
    return sorted(spec.with_suffix("").glob("stores/*"))


def _bytes(spec: Path) -> dict[str, str]:
    (folder,) = _stores(spec)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _notes(spec: Path) -> int:
    return sum(len(list(folder.glob("unit-*.json"))) for folder in _stores(spec))


def _reach(command: Command, spec: Path, units: int, *, at_work: bool = False) -> None:
    """Wait until so many units are written, and with `at_work` until a worker is at another."""
    while _notes(spec) < units or (at_work and not command.workers()):
        assert command.process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)


@pytest.fixture(scope="module", params=[{}, {"stream": {"window": 4}}], ids=["prepared", "streamed"])
def unbroken(request: pytest.FixtureRequest, new_spec: Callable[..., Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """(the part of the spec, the bytes of its store) of a run that nobody disturbs."""
    spec = new_spec(f"unbroken-{request.param_index}", **request.param)
    Command(spec).wait()
    return request.param, _bytes(spec)


def test_killed_again_and_again_at_random_moments_it_ends_with_the_same_bytes(
    unbroken: tuple[dict[str, Any], dict[str, str]], new_spec: Callable[..., Path]
) -> None:
    """Moments: at a random number of finished units, a random part of a unit's time later; the first while rows are read."""
    part, wanted = unbroken
    spec = new_spec(f"killed-{len(part)}", **part)
    units, said = 3 * -(-ROWS // 3 // 500), []
    for number in range(KILLS):
        draws = [rng.share(rng.mix(rng.key(SEED, "kill", len(part)), 2 * number + i)) for i in (0, 1)]
        target = 0 if number == 0 else _notes(spec) + 1 + int(MORE * draws[0])
        command = Command(spec)
        _reach(command, spec, target, at_work=number == 0)
        time.sleep(0.2 * draws[1])
        command.kill()
        said.append(f"{time.monotonic() - command.started:.1f} s: {_notes(spec)} of {units} units")
        assert not any((folder / MANIFEST).exists() for folder in _stores(spec)), "it ended before it was killed"
    command = Command(spec)
    command.wait()
    print(f"\nkilled after {'; '.join(said)}; the rest took {time.monotonic() - command.started:.1f} s")
    assert _bytes(spec) == wanted


def test_killed_workers_are_replaced_and_the_bytes_are_the_same(
    unbroken: tuple[dict[str, Any], dict[str, str]], new_spec: Callable[..., Path]
) -> None:
    part, wanted = unbroken
    spec = new_spec(f"workers-{len(part)}", **part)
    command, killed = Command(spec), []
    for target in (0, 5, 20):
        _reach(command, spec, target, at_work=True)
        victim = command.workers()[:1]
        for process in victim:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
    command.wait()
    print(f"\nkilled {len(killed)} workers")
    assert len(killed) >= 2
    assert _bytes(spec) == wanted
