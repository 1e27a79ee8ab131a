"""`eagleray train` as a process: ended by signals, by kill -9, and by the loss of its own Ray. It says how to go on, leaves nothing running,
and the resumed run ends with the losses of one that nobody disturbed. Minutes; `make chaos`."""

from __future__ import annotations

import json
import os
import re
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

from orchestration.storage import Storage
from orchestration.telemetry import read_events
from tests.packages import cut_encoder

MARK = "EAGLERAY_TEST_MARK"  # every process of a command's own Ray inherits it
TIMEOUT_S, GONE_S = 1200.0, 120.0
ROWS, EPOCHS, BATCH = 240, 12, 12
pytestmark = [pytest.mark.timeout(3600)]


class Command:
    """One `eagleray train`, whose console is read as it comes."""

    def __init__(self, spec: Path, log: Path, *arguments: str) -> None:
        self.mark, self.log = uuid.uuid4().hex, log
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", "train", str(spec), *arguments],
                env={key: value for key, value in os.environ.items() if key != "EAGLERAY_ADDRESS"} | {MARK: self.mark},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def reach(self, pattern: str) -> re.Match[str]:
        end = time.monotonic() + TIMEOUT_S
        while not (found := re.search(pattern, self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.05)
        return found

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def family(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def gone(self) -> float:
        """Seconds until no process of it is left."""
        began = time.monotonic()
        while left := self.family():
            assert time.monotonic() - began < GONE_S, f"still there: {left}"
            time.sleep(0.1)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def spec(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commands")
    with open(root / "rows.jsonl", "w") as rows:
        for number in range(ROWS):
            label = "positive" if number % 2 else "negative"
            rows.write(
                json.dumps(
                    {
                        "text": f"row {number} is {'good' if number % 2 else 'bad'} " + "word " * (number % 9),
                        "label": label,
                    }
                )
                + "\n"
            )
    models = Storage(str(root / "models"))
    value = {
        "name": "ended",
        "seed": 5,
        "storage": str(root / "storage"),
        "data": {
            "sources": [{"name": "made", "path": str(root / "rows.jsonl"), "label": {"column": "label"}}],
            "labels": ["negative", "positive"],
            "split": {"validation": 10, "test": 10},
        },
        "model": {"path": models.path(cut_encoder(minilm, models)), "dropout": 0.0},
        "train": {
            "epochs": EPOCHS,
            "batch": BATCH,
            "report_every": 1,
            "checkpoint": {"every_steps": 10},
            "validation": {"every_steps": 50},
        },
        "cluster": {"workers": 2},
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(value))
    return root / "spec.yaml"


@pytest.fixture(scope="module")
def unbroken(spec: Path) -> list[float]:
    command = Command(spec, spec.with_name("unbroken.log"))
    assert command.wait() == 0, command.log.read_text()[-3000:]
    found = re.search(r"^run (ended-\S+): finished", command.log.read_text(), re.M)
    assert found
    return losses(spec, found[1])


def losses(spec: Path, run: str) -> list[float]:
    """Of every step, those before an end too: the result's history comes with the checkpoints."""
    result = Storage(str(spec.with_name("storage"))).read_json(f"runs/{run}/result.json")
    return [event["loss"] for event in result["history"] if event["type"] == "step"]


def ended_by(spec: Path, name: str, harm: Callable[[Command], Any]) -> tuple[Command, str]:
    """A command to which `harm` is done after its first checkpoint; the command and its run."""
    command = Command(spec, spec.with_name(f"{name}.log"))
    run = command.reach(r"runs/(ended-\S+?)/checkpoints/")[1]
    harm(command)
    return command, run


def resumed(spec: Path, name: str, run: str, unbroken: list[float]) -> None:
    command = Command(spec, spec.with_name(f"{name}-resumed.log"), "--resume", run)
    assert command.wait() == 0, command.log.read_text()[-3000:]
    assert re.search(rf"resumed from runs/{run}/checkpoints/", command.log.read_text())
    assert losses(spec, run) == pytest.approx(unbroken, abs=1e-6)
    left = set(Storage(str(spec.with_name("storage"))).list(f"runs/{run}"))
    assert "ray" not in left
    command.gone()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_a_checkpoint_and_says_how_to_go_on(
    spec: Path, unbroken: list[float], number: int, code: int
) -> None:
    name = f"signal-{number}"
    began: list[float] = []

    def harm(command: Command) -> None:
        began.append(time.monotonic())
        command.process.send_signal(number)

    command, run = ended_by(spec, name, harm)
    assert command.wait() == code, command.log.read_text()[-3000:]
    took = time.monotonic() - began[0]
    said = command.log.read_text()
    assert "stopping with a checkpoint, within 30 s; again: at once" in said
    assert f"--resume {run}" in said
    assert "Traceback" not in said
    print(f"\n{signal.Signals(number).name}: ended after {took:.1f} s, all of it gone {command.gone():.1f} s later")
    events = read_events(Storage(str(spec.with_name("storage"))), f"runs/{run}")
    last = [event["step"] for event in events if event["type"] == "step"][-1]
    saved = [event["step"] for event in events if event["type"] == "checkpoint"][-1]
    assert saved == last  # nothing that was told is lost
    resumed(spec, name, run, unbroken)


def test_a_second_signal_ends_it_at_once(spec: Path, unbroken: list[float]) -> None:
    def harm(command: Command) -> None:
        command.process.send_signal(signal.SIGINT)
        command.reach("stopping with a checkpoint")
        command.process.send_signal(signal.SIGINT)

    command, run = ended_by(spec, "twice", harm)
    assert command.wait() == 130
    command.gone()
    resumed(spec, "twice", run, unbroken)


def test_kill_9_of_the_driver_leaves_nothing_running_and_a_run_to_go_on_with(spec: Path, unbroken: list[float]) -> None:
    command, run = ended_by(spec, "killed", lambda command: command.process.kill())
    command.wait()
    print(f"\nkill -9 of the driver: all of it gone after {command.gone():.1f} s")
    resumed(spec, "killed", run, unbroken)


def test_the_loss_of_its_own_ray_ends_it_and_a_run_to_go_on_with_stays(spec: Path, unbroken: list[float]) -> None:
    def harm(command: Command) -> None:
        (raylet,) = [process for process in command.family() if process.name() == "raylet"]
        raylet.kill()

    began = time.monotonic()
    command, run = ended_by(spec, "raylet", harm)
    assert command.wait() != 0
    print(
        f"\nkill -9 of an embedded Ray: ended with {command.process.returncode} after {time.monotonic() - began:.1f} s"
    )
    command.gone()
    resumed(spec, "raylet", run, unbroken)
