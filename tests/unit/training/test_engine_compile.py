"""torch.compile of a real model. A file of its own: the compiler takes a quarter of a minute, so it runs beside others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from orchestration.storage import Storage, cache_root
from orchestration.training import engine as engines
from tests.parity import engine_cases as cases
from tests.tiny import make_weights


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_compiled_model_trains_as_the_plain_one_and_is_compiled_once_for_all_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)  # no pool of processes that each import torch
    make_weights(Storage(str(tmp_path)))
    plain = cases.trained(tmp_path, 0, 1, name="", freeze=2)
    counters.clear()
    compiled = cases.trained(tmp_path, 0, 1, name="", freeze=2, compile=True)
    assert compiled["losses"] == pytest.approx(plain["losses"], abs=1e-5)
    assert counters["stats"]["unique_graphs"] == 1  # two lengths a step
    assert any((cache_root() / "inductor").rglob("*.cpp"))


def test_compiled_code_goes_to_the_machines_cache_unless_the_user_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path))
    for given, wanted in ((None, None), ("/tmp/torchinductor_somebody", None), ("/data/mine", "/data/mine")):
        monkeypatch.delenv(key, raising=False)
        if given:
            monkeypatch.setenv(key, given)
        monkeypatch.setattr(engines.tempfile, "gettempdir", lambda: "/tmp")
        engines._keep_compiled()
        assert os.environ[key] == (wanted or str(tmp_path / "inductor"))
