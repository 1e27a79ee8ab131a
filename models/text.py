"""Models of one encoder, of text or of pictures. Takes the `model` part of the spec and a local folder: pretrained weights, or for a model
from scratch its config.json (and tokenizer) alone. Gives a transformers model with the head of its task. Called by `building`. Equal inputs and seed give equal weights in every process, so workers and restarts start alike."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import sharing
from models.config import ModelConfig
from models.depth import HEAD, depth_groups, is_part
from models.families import ModelError, depth_names, unfit, unpoolable
from models.tasks import auto_class

# The names that the families give to their dropout rates: hidden states, attention, head.
DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "drop_connect_rate",
    "dropout",
    "dropout_rate",
    "attention_dropout",
    "activation_dropout",
    "seq_classif_dropout",
    "embd_pdrop",
    "resid_pdrop",
    "attn_pdrop",
    "summary_last_dropout",
    "summary_first_dropout",
)
HEAD_STD = 0.02  # of weights that the folder does not hold; biases start at 0


def build(config: ModelConfig, folder: Path, labels: Sequence[str], *, seed: int = 0) -> nn.Module:
    """`plain`, with the spec's adapter, memory and pooling in it."""
    model = plain(config, folder, labels, seed=seed)
    return _adapted(model, config, folder, seed).train()


def _adapted(model: nn.Module, config: ModelConfig, folder: Path, seed: int) -> nn.Module:
    if config.adapter is not None:
        from models import adapters

        adapters.attach(model, config.adapter, seed=seed)
    if config.memory is not None and config.attends:
        from models import memory

        memory.attach(model, folder, config.memory, seed=seed)
    if config.pooling == "mean":
        from models import pooling

        pooling.attach(model)
    return model


def plain(config: ModelConfig, folder: Path, labels: Sequence[str], *, seed: int = 0) -> nn.Module:
    """A model whose output has `logits`, fp32, in training mode. What the folder lacks (a fresh head, or all of a model from scratch) is
    drawn from `seed`.

    Raises ModelError for a task that the family has no head for, a folder without weights, or weights that do not fit their config.json.
    """
    settings = _settings(config, folder, labels)
    if not list(Path(folder).glob("*.safetensors")):
        if config.path is not None:
            raise ModelError(f"model folder {folder}: no *.safetensors; it must hold config.json and weights")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            model = _from_config(config, settings)
        sharing.tie(model)
        return model.train()
    try:
        with quiet_transformers():
            model, info = _class(config).from_pretrained(
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
    except ValueError as error:
        raise _no_head(config, settings, error) from None
    if config.adapter is None and any(map(is_part, info["unexpected_keys"])):
        raise ModelError(f"model folder {folder}: its weights hold an adapter; give model.adapter as it was trained")
    sharing.tie(model)  # a layer without weights of its own lacks none
    fresh = set(info["missing_keys"]) | {item[0] for item in info["mismatched_keys"]}
    _check_fresh(model, fresh, folder)
    _draw(model, fresh, seed)
    return model.train()


def skeleton(config: ModelConfig, folder: Path, labels: Sequence[str]) -> nn.Module:
    """The same model without weights (meta device): names, shapes and groups in milliseconds, for plans."""
    settings = _settings(config, folder, labels)
    with torch.device("meta"):
        model = _from_config(config, settings)
        sharing.tie(model)
        return _adapted(model, config, folder, 0)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises ModelError naming the file."""
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


def _class(config: ModelConfig) -> Any:
    import transformers

    return getattr(transformers, auto_class(config.task, config.reads))


def _from_config(config: ModelConfig, settings: Any) -> nn.Module:
    try:
        return _class(config).from_config(settings, dtype=torch.float32)
    except ValueError as error:
        raise _no_head(config, settings, error) from None


def _no_head(config: ModelConfig, settings: Any, error: ValueError) -> ModelError:
    """transformers lists every family it knows; one line is enough."""
    return ModelError(
        f"model.task={config.task}: family {settings.model_type!r} has no head for it in transformers ({str(error).splitlines()[0][:160]})"
    )


def _settings(config: ModelConfig, folder: Path, labels: Sequence[str]) -> Any:
    read_config(folder)  # refuses what it can before the slow import below
    from transformers import AutoConfig

    try:
        settings = AutoConfig.from_pretrained(folder, local_files_only=True)
    except ValueError as error:
        raise ModelError(f"{Path(folder) / 'config.json'}: {str(error).splitlines()[0]}") from None
    if why := unfit(settings.model_type, config.task) or unpoolable(settings.model_type, config.pooling):
        raise ModelError(why)
    if config.task == "regression":
        settings.num_labels, settings.problem_type = 1, "regression"
    elif labels:
        settings.id2label = dict(enumerate(labels))
        settings.label2id = {label: i for i, label in enumerate(labels)}
        if config.task == "classification":
            settings.problem_type = "single_label_classification"
    if config.fusion is not None:
        settings.fusion = config.fusion.model_dump(
            mode="json"
        )  # what the spec says now: `check` and sweeps change rates
    if config.share_layers is not None:
        settings.share_layers = config.share_layers
    if config.adapter is not None and getattr(settings, "share_layers", None):
        raise ModelError(f"model folder {folder}: its layers share weights, and an adapter belongs to one layer")
    if config.dropout is not None:
        _drop(settings, config.dropout)
    return settings


def _drop(settings: Any, rate: float) -> None:
    """Every rate of a model, and of each tower of several."""
    from transformers import AutoConfig

    for key in DROPOUT_KEYS:
        if hasattr(settings, key):
            setattr(settings, key, rate)
    for values in (getattr(settings, "towers", None) or {}).values():
        tower = AutoConfig.for_model(**values)
        values |= {key: rate for key in DROPOUT_KEYS if hasattr(tower, key)}
    if fusion := getattr(settings, "fusion", None):
        fusion["dropout"] = rate


def _check_fresh(model: nn.Module, fresh: set[str], folder: Path) -> None:
    """Only the head (pooler and last norm counted) may be missing: an encoder drawn at random would train, and badly, without a word."""
    below = [name for group, members in depth_groups(model) if not group.endswith(HEAD) for name, _ in members]
    lost = sorted(fresh.intersection(below))
    if lost:
        raise ModelError(
            f"model folder {folder}: the weights lack or misfit {len(lost)} tensors of the encoder, the first is {lost[0]}"
        )


def _draw(model: nn.Module, names: set[str], seed: int) -> None:
    """Fresh parameters, in the model's order, from one generator: the same in every process. A norm's weights start at 1."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    norms = {f"{path}.weight" for path, module in model.named_modules() if "norm" in type(module).__name__.lower()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in names:
                continue
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * HEAD_STD)
            elif name in norms:
                parameter.fill_(1.0)
            else:
                parameter.zero_()
