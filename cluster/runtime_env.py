"""What is shipped to workers: a staged folder with our four packages and the resolved spec, nothing else. Import names are
generic (`models`, `jobs`), and Ray puts the driver's own folder first on the workers' path, so a user's folder of the same
name would win. Each worker therefore checks, as its first act, that what it imports is what was staged."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError

PACKAGES = ("orchestration", "models", "jobs", "cluster")
MARK = ".eagleray-staged"
VARIABLE = "EAGLERAY_STAGED"


def stage(files: dict[str, str] | None = None) -> tuple[Path, str]:
    """Copy our packages and `files` (name -> text) into a fresh folder. Gives the folder and the hash of its content.

    The caller removes the folder. Tests, caches and data never travel.
    """
    here = Path(__file__).resolve().parent.parent
    folder = Path(tempfile.mkdtemp(prefix="eagleray-staged-"))
    for package in PACKAGES:
        shutil.copytree(here / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    content = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    mark = content.hexdigest()[:32]
    (folder / MARK).write_text(mark, encoding="utf-8")
    return folder, mark


def runtime_env(folder: Path, mark: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Ray's runtime environment: the staged folder, the check, one thread a process (two cores are the normal case)."""
    variables = {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **(env or {}),
        VARIABLE: mark,
    }
    return {
        "working_dir": str(folder),
        "env_vars": variables,
        "worker_process_setup_hook": "cluster.runtime_env.assert_shipped",
    }


def assert_ours() -> None:
    """In the driver, before anything is shipped. Raises ClusterError where a folder of the user hides one of our packages."""
    here = Path(__file__).resolve().parent.parent
    for package, origin in _origins():
        if origin != here:
            raise ClusterError(
                f"this process would import {package!r} from {origin}, which hides Eagleray's package of that name; rename that folder, start from"
                " another one, or use the `eagleray` command"
            )


def assert_shipped() -> None:
    """Runs first in every worker. Raises ClusterError where `models` or a sibling is not the staged copy."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    for package, origin in _origins():
        mark = (origin / MARK).read_text(encoding="utf-8") if origin and (origin / MARK).is_file() else None
        if mark != wanted:
            raise ClusterError(
                f"a worker would import {package!r} from {origin}, not from the shipped copy; rename that folder or start from another one"
                f" (sys.path begins {json.dumps(sys.path[:3])})"
            )


def _origins() -> Iterator[tuple[str, Path | None]]:
    """(package, folder it would be imported from)."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        yield package, Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
