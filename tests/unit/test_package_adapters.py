"""Packages of models with adapters: merged, whole, or the adapter alone on a base in storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.config import ModelConfig
from models.depth import is_part
from models.state import named_state
from models.text import build
from orchestration import package
from orchestration.errors import DamagedError, UserError
from orchestration.storage import Storage
from tests.packages import LABELS, PREPROCESSING, cut_encoder

CASES = [
    ("lora", False),
    ("lora", True),
    ("bottleneck", False),
    ("bottleneck", True),
    ("prompt", True),
    ("prefix", True),
]
TEXTS = ["A quiet film.", "We waited two hours and the food was cold."]


def _exported(minilm: Path, storage: Storage, kind: str, alone: bool) -> tuple[str, Any]:
    """And the model it was made of."""
    rel = "weights/cut" if storage.manifest("weights/cut") else cut_encoder(minilm, storage)
    folder = storage.fetch(rel)
    config = ModelConfig.model_validate({"path": str(folder), "adapter": {"kind": kind, "alone": alone}})
    model = build(config, folder, LABELS, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_part(name) or name.startswith("classifier"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    made = package.export(
        storage,
        tensors={name: tensor.detach().clone() for name, tensor in named_state(model).items()},
        weights_rel=rel,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        lineage={},
        model=config,
    )
    return made.rel, model.eval()


@pytest.mark.parametrize(("kind", "alone"), CASES)
def test_a_package_answers_as_the_model_it_was_made_of(minilm: Path, tmp_path: Path, kind: str, alone: bool) -> None:
    storage = Storage(str(tmp_path / "storage"))
    rel, model = _exported(minilm, storage, kind, alone)
    opened = package.opened(storage, rel)
    found_NC = opened.logits(TEXTS)
    for row, text in zip(found_NC, TEXTS, strict=True):
        ids = torch.tensor([opened.encode([text])[0].ids])
        wanted = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].detach().numpy()
        assert np.abs(row - wanted).max() < 1e-4
    assert np.abs(package.load(storage.fetch(rel)).logits(TEXTS) - found_NC).max() == 0  # finds its base by itself
    size = sum(file.stat().st_size for file in storage.fetch(rel).glob("*.safetensors"))
    assert (size < 3_000_000) == alone  # the whole cut encoder takes 60 MB


def test_merged_lora_opens_with_the_auto_class_of_its_task(minilm: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    storage = Storage(str(tmp_path))
    rel, model = _exported(minilm, storage, "lora", False)
    folder = storage.fetch(rel)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.tensor([package.load(folder).encode(TEXTS[:1])[0].ids])
    assert torch.allclose(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4)
    assert "adapter" not in package.read_json(folder, "task.json")


def test_an_adapter_alone_is_refused_without_its_base_or_on_another(minilm: Path, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    rel, _ = _exported(minilm, storage, "bottleneck", True)
    folder, base = storage.fetch(rel), storage.fetch("weights/cut")
    weights = base / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match=r"model\.safetensors: sha256"):
        package.load(folder)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="holds an adapter alone, and its base weights/cut is not beside it"):
        package.load(folder)
