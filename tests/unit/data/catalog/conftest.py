"""A cache, a package index and programs of a test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and configuration; a folder of packages, the only place where pip looks, and a folder of programs, the first
    where npm and apt-get are looked for."""
    for name in ("packages", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "packages"


def left(made: Path) -> list[str]:
    """What lies in the cache's folder of entries."""
    return sorted(path.name for path in (made.parent / "cache" / "catalog").iterdir())
