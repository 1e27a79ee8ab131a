"""The planned table against the running optimizer: what is broken in it by hand is named, what is planned really moves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestration.storage import Storage
from orchestration.training import loop
from tests.parity import conftest
from tests.parity.conftest import ONE_STEP
from tests.parity.driver import breaking
from tests.tiny import make_job

ENGINES = ["bare", *conftest.ENGINES]
LAYERS = {"decay": 0.5, "freeze": 1}
# plan: embeddings frozen, then layer.0, layer.1, head, each a decayed and an undecayed row; row 2 is layer.1's first
SAID = {
    "lr": "group layer.1 (weight decay 0.01): planned learning rate 0.001, live 0.5",
    "weight_decay": "group layer.1 (weight decay 0.01): planned weight decay 0.01, live 0.25",
    "frozen": "group layer.0: planned trainable, but bert.encoder.layer.0.attention.self.query.weight is frozen",
    "thawed": "group embeddings: planned frozen, but bert.embeddings.word_embeddings.weight is trainable",
    "while running": "group layer.0 (weight decay 0.01): planned weight decay 0.01, live 0.125",
}


@pytest.fixture(scope="module")
def said(root: Path, of_two: dict[str, Any]) -> dict[Any, dict[str, str | None]]:
    """By engine and what was broken: the refusal."""
    return {
        "bare": breaking(root, 0, 1, name="bare-broken", layers=LAYERS),
        **{s: of_two[f"broken{s}"] for s in conftest.ENGINES},
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", SAID)
def test_what_is_broken_in_the_live_optimizer_is_named_with_group_and_values(
    what: str, engine: Any, said: dict[Any, dict[str, str | None]]
) -> None:
    assert said[engine][what] == f"the live optimizer differs from the planned table: {SAID[what]}"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_optimizer_as_planned_is_let_through(engine: Any, said: dict[Any, dict[str, str | None]]) -> None:
    assert (said[engine]["intact"], said[engine]["mended"]) == (None, None)


@pytest.fixture(scope="module")
def moved(root: Path, of_two: dict[str, Any], weights: Callable[..., Any]) -> dict[Any, dict[str, float]]:
    """By engine and depth group: how far one update moved the weight that it moved farthest."""
    one = loop.run(make_job(root, run="bare-moved", layers=LAYERS, **ONE_STEP), report=lambda event: None).dump()
    results: dict[Any, dict[str, Any]] = {"bare": one, **{stage: of_two[f"moved{stage}"] for stage in conftest.ENGINES}}
    before = load_file(Path(Storage(str(root)).fetch("weights/tiny")) / "model.safetensors")
    return {engine: _moved(weights(result), before) for engine, result in results.items()}


def _moved(after: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> dict[str, float]:
    groups: dict[str, float] = {}
    for name, tensor in after.items():
        start = before.get(name.removeprefix("bert."))
        if start is not None and start.shape == tensor.shape:
            found = re.search(r"layer\.\d+", name)
            group = found[0] if found else "embeddings" if ".embeddings." in name else "head"
            groups[group] = max(groups.get(group, 0.0), float((tensor - start).abs().max()))
    return groups


@pytest.mark.parametrize("engine", ENGINES)
def test_each_depth_group_moves_by_its_own_rate_and_frozen_ones_not_at_all(
    engine: Any, moved: dict[Any, dict[str, float]]
) -> None:
    """The peak rate is 2e-3 at the head and halves with each group below it."""
    found = moved[engine]
    assert found.pop("embeddings") == 0.0
    assert found == pytest.approx({"layer.0": 5e-4, "layer.1": 1e-3, "head": 2e-3}, rel=1e-2)
