"""Bytes that a backward pass keeps, found without computing: those of a real forward pass of the same model and rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.building import build, skeleton
from models.config import ModelConfig
from models.scratch import Shapes
from orchestration.storage import Storage
from orchestration.training.activations import RowShape, kept_bytes
from orchestration.weights import stage_model
from tests.tiny import make_tokenizer

SIZE = {"layers": 2, "width": 32, "heads": 2}
SHAPE = RowShape(tokens=7, image=32, samples=4000, steps=16, columns=2)
ROWS = 4


def _model(tmp_path: Path, towers: tuple[str, ...], *, meta: bool) -> Any:
    families = {
        "text": {"family": "bert", "tokenizer": str(make_tokenizer(tmp_path / "tokenizer", "bert"))},
        "image": {"family": "resnet"},
        "audio": {"family": "audio"},
        "series": {"family": "series"},
    }
    config = ModelConfig.model_validate(
        {"towers": {name: {**families[name], "size": SIZE} for name in towers}, "dropout": 0.0}
    )
    storage = Storage(str(tmp_path / "storage"))
    shapes = Shapes(positions=32, image=32, rate=8000, columns=2)
    folder = storage.fetch(stage_model(config, storage, shapes=shapes).rel)
    return skeleton(config, folder, ["a", "b"]) if meta else build(config, folder, ["a", "b"], seed=3)


def _inputs() -> dict[str, torch.Tensor]:
    ones = torch.ones(ROWS, dtype=torch.bool)
    mask = torch.ones(ROWS, 7, dtype=torch.long)
    mask[0, 5:] = 0  # a row with padding: attention then needs its mask
    return {
        "input_ids": torch.full((ROWS, 7), 5),
        "attention_mask": mask,
        "text_mask": ones,
        "pixel_values": torch.randn(ROWS, 3, 32, 32),
        "image_mask": ones,
        "input_values": torch.randint(-9000, 9000, (ROWS, 4000)).to(torch.int16),
        "audio_mask": torch.ones(ROWS, 4000, dtype=torch.long),
        "series": torch.randn(ROWS, 16, 2),
        "series_mask": torch.ones(ROWS, 16, dtype=torch.long),
    }


def _kept(model: Any, inputs: dict[str, torch.Tensor]) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model.train()(**inputs)
    found = sum(storage.nbytes() for storage in saved.values())
    assert output.logits.requires_grad
    return found


@pytest.mark.parametrize(
    "towers", [("text", "image"), ("text", "audio"), ("text", "series"), ("image", "audio", "series")]
)
def test_bytes_on_the_meta_device_are_those_of_a_real_pass(tmp_path: Path, towers: tuple[str, ...]) -> None:
    beginnings = {"text": ("input_ids", "attention", "text"), "image": ("pixel", "image")}
    beginnings |= {"audio": ("input_values", "audio"), "series": ("series",)}
    wanted = tuple(beginning for name in towers for beginning in beginnings[name])
    inputs = {name: value for name, value in _inputs().items() if name.startswith(wanted)}
    real = _kept(_model(tmp_path, towers, meta=False), inputs)
    found = kept_bytes(_model(tmp_path, towers, meta=True), towers, SHAPE, rows=ROWS)
    assert real * 0.95 < found < real * 1.1


def test_what_is_frozen_below_keeps_nothing(tmp_path: Path) -> None:
    model = _model(tmp_path, ("text", "image"), meta=True)
    whole = kept_bytes(model, ("text", "image"), SHAPE, rows=ROWS)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("text" not in name)
    assert kept_bytes(model, ("text", "image"), SHAPE, rows=ROWS) < whole * 0.9
