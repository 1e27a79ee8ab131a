"""Each wrong spec is refused by the real command, in a process of its own: exit code 2, within 2 s, with the key path, what is
allowed and the nearest name, without a traceback, and before Ray or torch is imported."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.spec import _Loader, set_path, split_path

CASES = yaml.load((Path(__file__).parent / "wrong_specs.yaml").read_text(), Loader=_Loader)
GOOD: dict[str, Any] = {
    "name": "good",
    "storage": "store",
    "data": {
        "sources": [{"name": "rows", "path": "rows.jsonl", "label": {"column": "label"}}],
        "labels": ["negative", "positive"],
    },
    "model": {"path": "catalog:minilm"},
}


def write(folder: Path, case: dict[str, Any]) -> Path:
    (folder / "rows.jsonl").write_text('{"text": "good", "label": "positive"}\n{"text": "bad", "label": "negative"}\n')
    spec = copy.deepcopy(GOOD)
    for path in case.get("drop", []):
        *parents, last = split_path(path)
        holder = spec
        for key in parents:
            holder = holder[key]
        del holder[last]
    for path, value in case.get("set", {}).items():
        set_path(spec, path, value)
    file = folder / "spec.yaml"
    file.write_text(case["text"] if "text" in case else yaml.safe_dump(spec, sort_keys=False))
    return file


def run(folder: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], float]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jobs.cli", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, time.monotonic() - began


def test_there_are_at_least_fifty_wrong_specs_with_distinct_names() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) >= 50


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_wrong_spec_is_refused_before_anything_starts(case: dict[str, Any], tmp_path: Path, minilm: Path) -> None:
    done, seconds = run(tmp_path, "train", str(write(tmp_path, case)))
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))
    assert done.returncode == 2, said
    assert "Traceback" not in said
    for text in case["says"]:
        assert text in said
    assert "spec.yaml" in said
    assert not imported & {"ray", "torch", "transformers", "deepspeed"}
    assert seconds < 2.0 * float(os.environ.get("EAGLERAY_SLOW_MACHINE", "1"))
    assert not (tmp_path / "store").exists()


def test_the_good_spec_itself_is_accepted(tmp_path: Path, minilm: Path) -> None:
    from jobs.spec import load_spec

    spec = load_spec(write(tmp_path, {}))
    assert spec.name == "good"
    assert json.dumps(spec.dump())
