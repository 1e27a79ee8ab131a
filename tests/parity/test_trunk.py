"""Stored outputs of the frozen bottom under two ranks and each ZeRO stage: ranks share the filling, scores are those without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.storage import Storage
from tests.parity.conftest import HERE, TIMEOUT_S
from tests.tiny import make_store, make_weights

STAGES = ("auto", 0, 1, 2, 3)
FIT: dict[str, Any] = {"epochs": 2, "layers": {"freeze": 2, "decay": 0.9}}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("trunk")
    storage = Storage(str(root))
    make_weights(storage)
    make_store(storage, train=300, validation=24, rel="stores/tiny")  # two blocks, so that both ranks have one
    cases = [{"name": "plain", "zero": {"stage": "auto"}, "trunk": {"use": "off"}, **FIT}]
    cases += [{"name": f"stage-{stage}", "zero": {"stage": stage}, "trunk": {"use": "on"}, **FIT} for stage in STAGES]
    (root / "cases-2.json").write_text(json.dumps(cases))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.parity.driver", str(root), str(rank), "2"],
            cwd=HERE,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    return {"root": root, **json.loads((root / "found-2.json").read_text())}


@pytest.mark.parametrize("stage", STAGES)
def test_scores_are_those_of_computing_everything(found: dict[str, Any], stage: int | str) -> None:
    plain, stored = found["plain"], found[f"stage-{stage}"]
    assert _losses(stored) == pytest.approx(_losses(plain), abs=1e-5)
    assert stored["best_value"] == pytest.approx(plain["best_value"], abs=1e-5)


def test_every_block_is_there_once_and_no_claim_is_left(found: dict[str, Any]) -> None:
    files = sorted(path.name for path in Path(found["root"]).glob("trunks/*/*"))
    assert [name[:13] for name in files] == ["000000-000024", "000000-000256", "000001-000044"]


def _losses(result: dict[str, Any]) -> list[float]:
    return [event["loss"] for event in result["history"] if event["type"] in ("step", "validation")]
