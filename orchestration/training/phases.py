"""Gradual unfreezing: how deep the model is frozen, and when it is less so (Howard and Ruder 2018, "Universal Language Model
Fine-tuning for Text Classification"). Pure functions of the spec's `train.layers` and of where the fit stands, so a resumed run is in
the phase it was in. The loop asks; nothing here knows a model."""

from __future__ import annotations

from orchestration.training.config import LayersConfig
from orchestration.training.state import TrainState


def freeze_depth(layers: LayersConfig, state: TrainState) -> int:
    """Groups at the bottom that are frozen in the state's phase."""
    if layers.unfreeze is None:
        return layers.freeze
    return max(layers.unfreeze.until, layers.freeze - state.released * layers.unfreeze.groups)


def releases(layers: LayersConfig, state: TrainState) -> int:
    """How often groups should have been released by now; above `state.released` at a boundary. Asked at the end of an epoch and
    after each validation."""
    chosen = layers.unfreeze
    if chosen is None or freeze_depth(layers, state) <= chosen.until:
        return state.released
    if chosen.when == "epoch":
        most = -(-(layers.freeze - chosen.until) // chosen.groups)
        return min(most, state.epoch // chosen.every)
    return state.released + (state.flat >= chosen.every)
