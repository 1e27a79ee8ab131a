"""Augmented copies of training rows: text, images, audio and series. `stage_ops` (driver) puts into storage what the ops read;
`Augmenter` (workers, preview, training) changes rows. Every choice is a pure function of (seed, row id, copy or epoch, op)."""

from orchestration.data.augment.augmenter import Augmenter
from orchestration.data.augment.stage import stage_ops

__all__ = ["Augmenter", "stage_ops"]
