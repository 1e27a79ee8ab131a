"""Bytes that the backward pass keeps of one micro-batch of rows with media. Takes a model without weights (meta device) and what a row holds; runs one
forward pass that computes nothing, and adds up what autograd saves: exact for any family, with its attention as the processors have it. Called by
`preflight`; texts alone go by its formula. B rows, L tokens, S pixels a side, T samples or steps, C columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RowShape:
    """`tokens`: of a text; `image`: pixels a side; `samples`: of a sound; `steps`, `columns`: of a series."""

    tokens: int
    image: int
    samples: int
    steps: int
    columns: int


def kept_bytes(model: Any, reads: Sequence[str], shape: RowShape, *, rows: int) -> int:
    """In fp32. Parameters that do not train save nothing below the lowest one that does."""
    import torch

    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Any] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage  # held, so that no other gets its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model.train()(**_inputs(reads, shape, rows))
    logits = output.logits.numel() * 4 * 2  # of the softmax, and of their gradient
    return sum(storage.nbytes() for storage in saved.values()) + logits


def _inputs(reads: Sequence[str], shape: RowShape, rows: int) -> dict[str, Any]:
    """Of `models.inputs`, without values."""
    import torch

    def of(*sizes: int, dtype: Any = torch.long) -> torch.Tensor:
        return torch.empty(rows, *sizes, dtype=dtype, device="meta")

    there = of(dtype=torch.bool)
    length, steps = max(1, shape.tokens), (shape.steps, shape.columns)
    made: Mapping[str, dict[str, Any]] = {
        "text": {"input_ids": of(length), "attention_mask": of(length), "text_mask": there},
        "image": {"pixel_values": of(3, shape.image, shape.image, dtype=torch.float32), "image_mask": there},
        "audio": {"input_values": of(shape.samples, dtype=torch.int16), "audio_mask": of(shape.samples)},
        "series": {"series": of(*steps, dtype=torch.float32), "series_mask": of(shape.steps)},
    }
    found = {name: value for kind in reads for name, value in made[kind].items()}
    if tuple(reads) == ("image",):
        found.pop("image_mask")  # transformers' own classifiers of pictures
    return found
