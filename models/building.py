"""A model from the `model` part of the spec and a local folder, whatever it reads. Called by the training loop in each worker, by plans
and by the package. Equal inputs and seed give equal weights in every process, so workers and restarts start alike."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import norms, text
from models.config import ModelConfig
from models.families import ModelError
from models.scratch import reads_of

# What a model reads -> our own model types, which importing these registers with transformers' Auto classes.
OURS = dict.fromkeys(("image", "audio", "series"), "models.towers")


def register(config: ModelConfig) -> None:
    """Our own model types that a folder of this model may name."""
    if len(config.reads) > 1 or config.towers is not None:
        importlib.import_module("models.towers_text")
    for module in {OURS[name] for name in config.reads if name in OURS}:
        importlib.import_module(module)


def build(config: ModelConfig, folder: Path, labels: Sequence[str], *, seed: int = 0) -> nn.Module:
    """A model whose output has `logits`, fp32, in training mode. What the folder lacks is drawn from `seed`. Raises ModelError."""
    _check(config, folder)
    register(config)
    model = text.build(config, folder, labels, seed=seed)
    norms.still(model)
    if config.family is not None and "image" in config.reads:
        norms.measure(model, _side(model))
    for name in config.towers or {}:
        _fill(model.get_submodule(f"encoders.{name}"), Path(folder) / name)
    return model.train()


def _fill(tower: nn.Module, folder: Path) -> None:
    """A tower's pretrained weights. Raises ModelError where they are not all there."""
    if not list(folder.glob("*.safetensors")):
        norms.measure(tower, _side(tower))
        return
    kind: Any = type(tower)
    with text.quiet_transformers():
        found = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).state_dict()
    lost = tower.load_state_dict(found, strict=False).missing_keys
    if lost:
        raise ModelError(
            f"model folder {folder}: the weights lack {len(lost)} tensors of the encoder, the first is {lost[0]}"
        )


def _side(model: nn.Module) -> int:
    return int(getattr(model.config, "image_size", 0) or 64)


def _check(config: ModelConfig, folder: Path) -> None:
    found = reads_of(text.read_config(folder))
    if found and found != config.reads:
        raise ModelError(
            f"model folder {folder}: its model reads {', '.join(found)}, and model.modalities says {', '.join(config.reads)}"
        )


def skeleton(config: ModelConfig, folder: Path, labels: Sequence[str]) -> nn.Module:
    """The same model without weights (meta device): names, shapes and groups in milliseconds, for plans."""
    register(config)
    return text.skeleton(config, folder, labels)
