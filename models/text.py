"""Text models. Takes the `model` part of the spec and a local folder of pretrained weights; gives a transformers
classification model, head included. Called by the training loop in each worker and by the package when it is opened.
Equal inputs and seed give equal weights in every process, so workers and restarts start alike."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.config import ModelConfig
from models.families import FAMILIES, ModelError, depth_names

# The names that the families give to their dropout rates: encoder, attention, head.
DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)
HEAD_STD = 0.02  # of weights that the folder does not hold; biases start at 0


def build(config: ModelConfig, folder: Path, labels: list[str], *, seed: int = 0) -> nn.Module:
    """A model whose output is `logits_BC`, fp32, in training mode. What the folder lacks (the head) is drawn from `seed`.

    Raises ModelError for an unsupported family, a folder without weights, or weights that do not fit their config.json.
    """
    read_config(folder)  # refuses a foreign family before the slow import below
    from transformers import AutoModelForSequenceClassification

    settings = _settings(config, folder, labels)
    try:
        with quiet_transformers():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=settings,
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except OSError as error:
        raise ModelError(
            f"model folder {folder}: {str(error).splitlines()[0]}; it must hold config.json and model.safetensors"
        ) from None
    fresh = set(info["missing_keys"]) | {item[0] for item in info["mismatched_keys"]}
    _check_fresh(fresh, folder, settings.model_type)
    _draw(model, fresh, seed)
    return model.train()


def skeleton(config: ModelConfig, folder: Path, labels: list[str]) -> nn.Module:
    """The same model without weights (meta device): names, shapes and groups in milliseconds, for plans."""
    read_config(folder)
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(_settings(config, folder, labels))


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, of a family that is supported. Raises ModelError naming the file."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        depth_names(config)
    except FileNotFoundError:
        raise ModelError(
            f"{path}: no such file; a model folder holds config.json, model.safetensors and tokenizer.json"
        ) from None
    except (ValueError, AttributeError) as error:  # ModelError is a ValueError
        raise ModelError(f"{path}: {error}") from None
    return config


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' bars and its table of fresh weights: a new head is meant (anything else `build` refuses), and a
    package's tensors are loaded strictly and its logits compared."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _settings(config: ModelConfig, folder: Path, labels: list[str]) -> Any:
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(folder, local_files_only=True)
    settings.id2label = dict(enumerate(labels))
    settings.label2id = {label: i for i, label in enumerate(labels)}
    settings.problem_type = "single_label_classification"
    if config.dropout is not None:
        for key in DROPOUT_KEYS:
            if hasattr(settings, key):
                setattr(settings, key, config.dropout)
    return settings


def _check_fresh(fresh: set[str], folder: Path, family: str) -> None:
    """Only head and pooler may be missing: an encoder drawn at random would train, and badly, without a word."""
    encoder = f"{FAMILIES[family][0]}."
    lost = sorted(name for name in fresh if name.startswith(encoder) and not name.startswith(f"{encoder}pooler."))
    if lost:
        raise ModelError(
            f"model folder {folder}: the weights lack or misfit {len(lost)} tensors of the encoder, the first is {lost[0]}"
        )


def _draw(model: nn.Module, names: set[str], seed: int) -> None:
    """Fresh parameters, in the model's order, from one generator: the same in every process."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in names:
                continue
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * HEAD_STD)
            else:
                parameter.zero_()
