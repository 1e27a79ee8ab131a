"""What workers import is what was shipped, also where the user's folder has `models/`, `jobs/` and `cluster/` of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.runtime_env import PACKAGES
from tests.architecture.tree import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import json
from cluster.config import ClusterConfig
from cluster.local import session

with session(ClusterConfig(env={{"PYTHONPATH": {foreign!r}}}), files={{"note.txt": "shipped beside"}}):
    import ray

    @ray.remote
    def seen():
        import importlib, os
        files = {{name: importlib.import_module(name).__file__ for name in {packages!r}}}
        return {{"files": files, "cwd": os.getcwd(), "note": open("note.txt").read(), "threads": os.environ["OMP_NUM_THREADS"]}}

    print(json.dumps(ray.get(seen.remote())))
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A user's project whose folders are named like our packages, and break when imported."""
    for package in ("models", "jobs", "cluster"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('a file of the user was imported')\n")
    return tmp_path


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, env=env)


def test_workers_of_a_script_in_such_a_folder_import_the_shipped_copy(foreign: Path) -> None:
    (foreign / "script.py").write_text(SCRIPT.format(root=str(ROOT), foreign=str(foreign), packages=PACKAGES))
    done = _run([sys.executable, "script.py"], foreign)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert set(seen["files"]) == set(PACKAGES)
    for name, file in seen["files"].items():
        assert Path(file).parent.parent == Path(seen["cwd"]), f"{name} came from {file}"
        assert not Path(file).is_relative_to(ROOT), "the checkout itself, which a remote worker would not have"
    assert seen["note"] == "shipped beside"
    assert seen["threads"] == "1"
    assert "WARNING" not in done.stderr, done.stderr


def test_the_command_works_in_such_a_folder(foreign: Path) -> None:
    """`eagleray` starts Ray there; `doctor --ray` is the shortest verb that does."""
    done = _run([str(Path(sys.executable).parent / "eagleray"), "doctor", "--ray"], foreign)
    assert "a worker answered" in done.stdout, done.stdout + done.stderr
    assert "working_dir_files" in done.stdout, "the worker runs in the shipped folder"
    assert "a file of the user" not in done.stdout + done.stderr


def test_a_script_whose_own_folder_hides_our_package_is_told_so_before_ray_starts(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "script.py").write_text(
        "from cluster.config import ClusterConfig\nfrom cluster.local import session\nwith session(ClusterConfig()): pass\n"
    )
    done = _run([sys.executable, "script.py"], tmp_path)
    assert done.returncode == 1
    assert f"would import 'models' from {tmp_path}" in done.stderr, done.stderr
