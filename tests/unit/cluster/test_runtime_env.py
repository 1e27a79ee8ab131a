from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.errors import ClusterError
from cluster.local import IN_JOB, _address, _shipment, join
from cluster.runtime_env import MARK, PACKAGES, VARIABLE, assert_ours, assert_shipped, runtime_env, stage


@pytest.fixture
def staged() -> Iterator[tuple[Path, str]]:
    folder, mark = stage({"resolved.json": "{}"})
    yield folder, mark
    shutil.rmtree(folder)


def test_what_is_shipped_is_our_packages_and_the_given_files(staged: tuple[Path, str]) -> None:
    """No .git, data, environments, tests, caches: the folder is listed."""
    folder, _ = staged
    assert {path.name for path in folder.iterdir()} == {*PACKAGES, MARK, "resolved.json"}
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    endings = {path.suffix for path in files if len(path.parts) > 1}
    assert endings <= {".py", ".yaml", ".html", ".css", ".js", ".svg", ".json", ".md", ".png"}, endings
    assert not [
        path for path in files if any(part.startswith(".") or part == "__pycache__" for part in path.parts[:-1])
    ]
    assert sum((folder / path).stat().st_size for path in files) < 5_000_000


def test_the_mark_is_the_content(staged: tuple[Path, str]) -> None:
    folder, mark = staged
    again, same = stage({"resolved.json": "{}"})
    other, different = stage({"resolved.json": "{ }"})
    assert same == mark
    assert different != mark
    assert (folder / MARK).read_text() == mark
    shutil.rmtree(again)
    shutil.rmtree(other)


def test_a_worker_that_would_import_something_else_refuses_to_work(
    staged: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = staged
    monkeypatch.setenv(VARIABLE, mark)
    with pytest.raises(ClusterError, match="not from the shipped copy"):
        assert_shipped()  # here it would import the checkout
    for package in PACKAGES:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder))
    assert_shipped()
    (folder / MARK).write_text("another version")
    with pytest.raises(ClusterError, match="not from the shipped copy"):
        assert_shipped()


def test_a_driver_whose_folder_hides_a_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_ours()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("")
    for name in [name for name in sys.modules if name.partition(".")[0] == "jobs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ClusterError, match=f"would import 'jobs' from {tmp_path}"):
        assert_ours()


def test_the_users_variables_reach_workers_but_cannot_forge_the_mark(staged: tuple[Path, str]) -> None:
    folder, mark = staged
    variables = runtime_env(folder, mark, {"OMP_NUM_THREADS": "3", "MINE": "1", VARIABLE: "forged"})["env_vars"]
    assert (variables["OMP_NUM_THREADS"], variables["MINE"], variables[VARIABLE]) == ("3", "1", mark)


def test_inside_a_submitted_job_nothing_is_shipped_twice(
    staged: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = staged
    monkeypatch.setenv(IN_JOB, "{}")
    assert _address(ClusterConfig()) == "auto"
    monkeypatch.setenv(VARIABLE, mark)
    for package in PACKAGES:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder))
    assert _shipment(ClusterConfig(), None) == (None, None)


def test_a_job_that_another_tool_sent_ships_our_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IN_JOB, "{}")
    monkeypatch.delenv(VARIABLE, raising=False)
    folder, env = _shipment(ClusterConfig(), None)
    assert env is not None
    assert env["working_dir"] == str(folder)
    shutil.rmtree(folder)


def test_a_dashboard_cannot_be_joined() -> None:
    with pytest.raises(ClusterError, match="that is a dashboard; `eagleray submit` sends a job to it"):
        join("http://head:8265")
