"""`python -m benchmarks.harness [NAME ...]`: runs benchmark scripts and prints their claims. A script is a file in this folder
without a leading underscore that has `run(**options) -> list[Claim]`; it runs us and the peer in turn. Each runs in a process
of its own, so that threads, Ray and imports of one do not touch the next.

Standard output ends with one JSON line a claim: {"claim", "ours", "peer", "ratio", "target", "better", "gate", ...}; everything
else goes to standard error. docs/BENCHMARKS.md gets the sections of the scripts that ran. Exit code 1 where a gate fails or a
script breaks, 2 for an unknown name. Options that are not the harness's own go to the script: `accuracy --seeds 3`."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._claim import Claim
from benchmarks._page import Section, update
from orchestration.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "BENCHMARKS.md"


def main(argv: list[str] | None = None) -> int:
    """Gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="scripts to run; none: all")
    parser.add_argument("--list", action="store_true", help="name every script and what it claims")
    parser.add_argument("--scripts", type=Path, default=Path(__file__).parent, help="folder of the scripts")
    parser.add_argument("--page", type=Path, default=PAGE, help="the Markdown page to update")
    parser.add_argument("--child", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args(argv)
    try:
        scripts = discover(known.scripts)
        if known.list:
            for name, path in scripts.items():
                print(f"{name}: {about(path)}")
            return 0
        chosen = {name: scripts[_known(name, scripts)] for name in known.names or scripts}
        options = _options(rest)
        if known.child:
            _run_here(next(iter(chosen.values())), options, known.child)
            return 0
        return _run_all(chosen, options=options, rest=rest, page=known.page)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def discover(folder: Path) -> dict[str, Path]:
    """Script name -> file. `make bench-NAME` is this name."""
    files = sorted(
        path for path in folder.glob("*.py") if not path.name.startswith("_") and path.name != Path(__file__).name
    )
    return {path.stem.replace("_", "-"): path for path in files}


def about(script: Path) -> str:
    """The first paragraph of the script's docstring, on one line; read without running it."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def _known(name: str, scripts: dict[str, Path]) -> str:
    if name not in scripts:
        near = difflib.get_close_matches(name, scripts, n=1)
        raise UserError(
            f"no benchmark is called {name!r}{f'; nearest: {near[0]}' if near else ''}; there are: {', '.join(scripts)}"
        )
    return name


def _options(rest: list[str]) -> dict[str, Any]:
    """`--seeds 3` -> {"seeds": 3}; a value that is not JSON is text."""
    keys, values = rest[::2], rest[1::2]
    if len(keys) != len(values) or not all(key.startswith("--") for key in keys):
        raise UserError(f"{' '.join(rest)}: options of a script are pairs: --name value")
    found = {}
    for key, value in zip(keys, values, strict=True):
        try:
            found[key[2:].replace("-", "_")] = json.loads(value)
        except ValueError:
            found[key[2:].replace("-", "_")] = value
    return found


def _run_all(chosen: dict[str, Path], *, options: dict[str, Any], rest: list[str], page: Path) -> int:
    """Every script in turn; the page is updated after each, so a broken one loses no others."""
    claims: list[Claim] = []
    broken = []
    for name, path in chosen.items():
        print(f"--- {name}: {about(path)}", file=sys.stderr, flush=True)
        load, started = os.getloadavg()[0], time.monotonic()
        found = _run_child(name, path, rest)
        if found is None:
            broken.append(name)
            continue
        claims += found
        command = f"make bench-{name}" if not rest else f"python -m benchmarks.harness {name} {' '.join(rest)}"
        update(
            page, [Section(name, about(path), found, command, time.monotonic() - started, (load, os.getloadavg()[0]))]
        )
    sys.stderr.flush()
    for claim in claims:
        print(claim.line(), flush=True)
    for name in broken:
        print(f"error: benchmark {name} broke; its output is above", file=sys.stderr)
    return 1 if broken or not all(claim.gate for claim in claims) else 0


def _run_child(name: str, path: Path, rest: list[str]) -> list[Claim] | None:
    """The script's claims; None where its process failed. Whatever it prints goes to our standard error."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "claims.json"
        command = [
            sys.executable,
            "-m",
            "benchmarks.harness",
            name,
            "--scripts",
            str(path.parent.absolute()),
            "--child",
            str(result),
            *rest,
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        done = subprocess.run(command, stdout=sys.stderr.fileno(), env=environment)
        if done.returncode or not result.exists():
            return None
        return [Claim.load(values) for values in json.loads(result.read_text(encoding="utf-8"))]


def _run_here(script: Path, options: dict[str, Any], result: Path) -> None:
    """Import the script, call its `run`, write what it gives. A traceback of the script is shown: it is a defect of ours."""
    spec = importlib.util.spec_from_file_location(f"benchmarks.{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    allowed = inspect.signature(module.run).parameters
    if unknown := [key for key in options if key not in allowed]:
        raise UserError(f"--{unknown[0]}: not an option of {script.stem}; its options: {', '.join(allowed) or 'none'}")
    claims = module.run(**options)
    if not claims or not all(isinstance(claim, Claim) for claim in claims):
        raise UserError(f"{script}: run() gave {claims!r}; it must give a list of at least one Claim")
    result.write_text(json.dumps([claim.dump() for claim in claims]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
