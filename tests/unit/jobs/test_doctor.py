from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from cluster import health
from cluster.health import FAIL, OK, WARN, Line
from jobs import doctor
from jobs.spec import JobSpec, validate
from orchestration.data import catalog


def _spec(tmp_path: Path, **changed: object) -> JobSpec:
    value = {
        "name": "x",
        "storage": str(tmp_path / "storage"),
        "data": {
            "sources": [{"name": "a", "path": "catalog:vader-sentiment", "label": {"column": "label"}}],
            "labels": ["n", "y"],
            "augment": None,
        },
        "model": {"path": "catalog:minilm"},
        **changed,
    }
    return validate(value, origin="test")


def _line(lines: list[Line], check: str) -> Line:
    return next(line for line in lines if line.check == check)


def test_a_sound_machine_passes_in_under_three_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.perf_counter()
    assert doctor.run(_spec(tmp_path)) == 0
    assert time.perf_counter() - begin < 3.0
    out = capsys.readouterr().out
    assert out.strip().splitlines()[-1].endswith(", 0 broken")
    assert not (tmp_path / "storage").exists(), "a doctor changes nothing"


def test_every_line_that_is_not_ok_says_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    lines = list(doctor.diagnose(_spec(tmp_path, cluster={"address": "127.0.0.1:1"})))
    assert len(lines) > 10
    assert _line(lines, "cluster").state == FAIL
    assert _line(lines, "token").state == WARN
    assert not [line for line in lines if line.state != OK and not line.mend]
    assert not [line for line in lines if "itself broke" in line.found], lines


def test_a_missing_library_fails_and_another_version_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        health, "pins", lambda: ({"not-a-library": "1.0", "pydantic": "1.0", "torch": "2.13.0"}, "a list")
    )
    lines = list(health.libraries())
    assert [(line.state, "not-a-library" in line.found, "pydantic" in line.found) for line in lines] == [
        (FAIL, True, False),
        (WARN, False, True),
    ]


def test_the_pins_are_the_lock_files() -> None:
    wanted, origin = health.pins()
    assert origin == "requirements.lock"
    assert len(wanted) > 100
    assert wanted["ray"] == "2.60.0"


def test_a_storage_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines = list(doctor.disks(_spec(tmp_path, storage=str(tmp_path / "file" / "below"))))
    assert _line(lines, "storage").state == FAIL


def test_an_object_store_without_its_package_fails(tmp_path: Path) -> None:
    lines = list(doctor.disks(_spec(tmp_path, storage="memory://root", tracking="http://mlflow:1")))
    assert _line(lines, "storage").state == OK
    lines = list(doctor.disks(_spec(tmp_path, storage="nosuch://root", tracking="http://mlflow:1")))
    assert _line(lines, "storage").state == FAIL


def test_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = doctor.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    assert _line(list(doctor.disks(_spec(tmp_path))), "storage").state == FAIL


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        [line] = doctor.ports(_spec(tmp_path, serve={"port": port}))
    assert line.state == WARN
    assert str(port) in line.found
    [line] = doctor.ports(_spec(tmp_path, serve={"port": port}))
    assert line.state == OK


def test_tokens_that_others_can_read_or_that_are_empty_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EAGLERAY_TOKEN", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert [line.state for line in health.tokens()] == [OK], "none yet"
    for text, mode, state in (
        ("a" * 64, 0o600, OK),
        ("a" * 64, 0o644, WARN),
        ("", 0o600, WARN),
        ("two words of text", 0o600, WARN),
    ):
        path.write_text(text)
        path.chmod(mode)
        assert [line.state for line in health.tokens()] == [state], (text, oct(mode))


def test_a_damaged_download_is_found_and_fails_where_the_spec_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.storage import describe

    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    folder = catalog.entry("minilm").folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "entry.json").write_text(json.dumps({"files": {"config.json": describe(folder / "config.json")}}))
    spec = _spec(tmp_path)
    assert _line(list(doctor.caches(spec)), "data minilm").state == OK
    absent = _line(list(doctor.caches(spec)), "data")
    assert absent.state == WARN
    assert "eagleray data fetch vader-sentiment" in absent.mend
    (folder / "config.json").write_text("[]")
    damaged = _line(list(doctor.caches(spec)), "data minilm")
    assert damaged.state == FAIL
    assert "sha256" in damaged.found
    assert _line(list(doctor.caches(None)), "data minilm").state == WARN


def test_a_check_that_breaks_is_a_line_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(health, "device", broken)
    lines = list(doctor.diagnose(_spec(tmp_path)))
    assert [line.state for line in lines if "itself broke" in line.found] == [FAIL]
    assert _line(lines, "ray")


def test_a_torch_build_that_does_not_fit_the_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    monkeypatch.setattr(health.sysconfig, "get_paths", lambda: {"platlib": str(tmp_path)})
    seen = []
    for cuda in ("None", "'12.8'"):
        (tmp_path / "torch" / "version.py").write_text(f"from typing import Optional\ncuda: Optional[str] = {cuda}\n")
        for devices in (["null"], ["nvidia0", "nvidia1", "nvidiactl"]):
            monkeypatch.setattr(health.os, "listdir", lambda _, devices=devices: devices)
            [line] = health.device()
            seen.append((cuda, len(devices), line.state))
    assert seen == [("None", 1, OK), ("None", 3, WARN), ("'12.8'", 1, OK), ("'12.8'", 3, OK)]
