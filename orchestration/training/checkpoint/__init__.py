"""Training checkpoints: sealed folders `<run>/checkpoints/step-%08d.%06d` (step, attempt) of named tensors and JSON. Written by all
ranks, each its own part, in a thread while training goes on; sealed by rank 0, manifest last. No pickle. Tensors are cut wherever
the ranks held them and read in any other cut, so a checkpoint knows neither ZeRO stage nor world size.

    weights-00000-of-00002.safetensors    trainable weights and buffers that rank 0 held, one-dimensional pieces
    optimizer-00000-of-00002.safetensors  the pieces of its moments
    rank-00000.json                       its files' bytes and sha256; tensor -> where its pieces lie
    state.json                            TrainState, the caller's meta, shapes, updates behind each parameter's moments
    manifest.json                         bytes and sha256 of all of these, and a digest of itself

Frozen weights lie once in `frozen/<address>`, shared by checkpoints and runs. The order of calls at a start, on rank 0: `claim_attempt`,
`newest`, `note_resumed`; then on every rank `open` to read and a `Writer` to write.

An *attempt* is one start of a run's workers. A worker of an older attempt that still runs is a stale writer: it refuses to seal
(faults.StaleWriter), and what it sealed in the very moment in which a newer attempt began is ignored (`attempts.Fence`)."""

from __future__ import annotations

from orchestration.training.checkpoint.attempts import claim_attempt, note_resumed
from orchestration.training.checkpoint.find import Found, newest, verify
from orchestration.training.checkpoint.format import name
from orchestration.training.checkpoint.frozen import keep_frozen
from orchestration.training.checkpoint.reader import Reader, open
from orchestration.training.checkpoint.writer import Saved, Writer
from orchestration.training.state import TrainState

__all__ = [
    "Found",
    "Reader",
    "Saved",
    "TrainState",
    "Writer",
    "claim_attempt",
    "keep_frozen",
    "name",
    "newest",
    "note_resumed",
    "open",
    "verify",
]
