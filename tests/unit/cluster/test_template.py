"""Workers as forks: a script that Ray would start as a Python of its own runs the same, with the libraries there already."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import template as module
from cluster.template import SWITCH, template
from orchestration.training.warm import RAY

pytestmark = pytest.mark.skipif(not module.can_fork(), reason="workers are not forked here")

TELLS = """
import json, os, random, sys
print(json.dumps({
    "arguments": sys.argv, "name": __name__, "file": __file__, "main": sys.modules["__main__"].__file__,
    "path": sys.path, "folder": os.getcwd(), "mine": os.environ.get("MINE"), "theirs": os.environ.get("THEIRS"),
    "there": "wave" in sys.modules, "random": random.random(), "group": os.getpgid(0) == os.getpid(),
    "session": os.getsid(0), "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    "pid": os.getpid(), "parent": os.getppid(),
}))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(TELLS)
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("THEIRS", "the template's")
    with template(["wave"], {}) as found:
        assert found
        yield found


def run(python: str, script: Path, **environment: str) -> dict:
    """What the script tells; started as Ray does, through a shell."""
    done = subprocess.run(
        ["bash", "-c", f"exec nice -n 3 {python} {script} a 'b c'"],
        capture_output=True,
        text=True,
        cwd=script.parent,
        env={"PATH": os.environ["PATH"], "MINE": "the worker's", **environment},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_fork_runs_the_script_as_a_python_of_its_own_does(command: str, script: Path) -> None:
    """Arguments, search path, folder and environment are the worker's, none of the template's."""
    folder = str(script.parent / "shipped")
    forked = run(command, script, PYTHONPATH=folder)
    plain = run(shlex.quote(sys.executable), script, PYTHONPATH=folder)
    same = ("arguments", "name", "file", "main", "folder", "mine", "theirs", "session", "niceness")
    assert {key: forked[key] for key in same} == {key: plain[key] for key in same}
    assert forked["arguments"] == [str(script), "a", "b c"]
    assert forked["path"][:2] == plain["path"][:2] == [str(script.parent), folder]
    assert [path for path in forked["path"] if "site-packages" in path] == [
        path for path in plain["path"] if "site-packages" in path
    ]
    assert (forked["there"], plain["there"]) == (True, False)
    assert forked["group"]  # Ray signals a worker's whole group
    assert forked["niceness"] == os.getpriority(os.PRIO_PROCESS, 0) + 3


def test_each_fork_draws_its_own_random_numbers(command: str, script: Path) -> None:
    assert run(command, script)["random"] != run(command, script)["random"]


def test_the_launcher_lives_as_long_as_its_worker(command: str, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    arguments = [*shlex.split(command), str(tmp_path / "sleeper.py")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        worker = int(launcher.stdout.readline())
        assert worker != launcher.pid
        assert launcher.poll() is None
        os.kill(worker, signal.SIGKILL)
        assert launcher.wait(timeout=10) == 0
    assert not _alive(worker)  # and no zombie of it stays


def test_a_worker_of_another_ray_starts_as_an_ordinary_python(command: str, script: Path) -> None:
    """Ray's library has read job and node of the first worker, and never reads them again."""
    first = run(command, script, RAY_JOB_ID="01", RAY_RAYLET_PID="7")
    second = run(command, script, RAY_JOB_ID="01", RAY_RAYLET_PID="7")
    other = run(command, script, RAY_JOB_ID="02", RAY_RAYLET_PID="7")
    assert [first["there"], second["there"], other["there"]] == [True, True, False]


def test_without_the_template_workers_start_as_ordinary_pythons(script: Path) -> None:
    with template(["wave"], {}) as command:
        assert command
    assert run(command, script)["there"] is False


def test_what_cannot_be_imported_is_left_to_the_worker(script: Path) -> None:
    """Workers that come before the last import get what is there."""
    with template(["no_such_module", "wave"], {}) as command:
        end = time.monotonic() + 30
        while not (told := run(str(command), script))["there"] and time.monotonic() < end:
            assert told["arguments"] == [str(script), "a", "b c"]
        assert told["there"]


def test_ray_draws_other_ids_in_each_fork(tmp_path: Path) -> None:
    """Its generator is not seeded anew by a fork: importing what training imports must not have used it."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\nthere = 'ray.train.torch' in sys.modules\nfrom ray._raylet import ObjectRef\n"
        "print(json.dumps({'there': there, 'id': ObjectRef.from_random().hex()}))\n"
    )
    with template(RAY, {}) as command:
        told = [run(str(command), script) for _ in range(3)]
    assert [one["there"] for one in told] == [True] * 3
    assert len({one["id"] for one in told}) == 3


def test_workers_that_would_draw_the_same_ids_are_not_forked(tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text("from ray._raylet import ObjectRef\nObjectRef.from_random()\n")
    code = f"import sys\nsys.path.append({str(tmp_path)!r})\nfrom cluster import forks\nprint(forks.load_ray(['careless']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "False", done.stderr


def test_the_template_ends_with_a_driver_that_is_killed(tmp_path: Path, script: Path) -> None:
    code = (
        "from cluster.template import template\nimport time\n"
        "with template(['wave'], {}) as command:\n    print(command, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        command = driver.stdout.readline().strip()
        forked = run(command, script)
        assert forked["there"]
        driver.kill()
    end = time.monotonic() + 20
    while _alive(forked["parent"]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _alive(forked["parent"])
    assert run(command, script)["there"] is False
    assert not Path(shlex.split(command)[-1]).parent.exists()


def test_the_user_can_switch_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    with template(["wave"], {}) as command:
        assert command is None


def test_nothing_is_forked_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA does not survive a fork, and many libraries count the GPUs when they are imported."""
    monkeypatch.setattr(module, "GPUS", ("/dev/null",))
    with template(["wave"], {}) as command:
        assert command is None


def _alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
