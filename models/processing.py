"""From token ids to tensors: the same code in training, evaluation and the endpoint. Takes rows of token ids of any length;
gives one rectangular batch. Shapes: B rows, L tokens of the longest row. A packed row is several texts (segments) side by
side; `segment_mask` keeps them from seeing each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def collate(rows: Sequence[Sequence[int] | np.ndarray], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids_BL, attention_mask_BL`, both int64, padded on the right to the longest row. Raises ValueError for no rows."""
    if not len(rows):
        raise ValueError("collate needs at least one row")
    longest = max(1, max(len(row) for row in rows))
    ids_BL = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask_BL = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids_BL[i, : len(row)] = row
        mask_BL[i, : len(row)] = 1
    return torch.from_numpy(ids_BL), torch.from_numpy(mask_BL)


def collate_packed(
    rows: Sequence[Sequence[int] | np.ndarray], segments: Sequence[Sequence[int] | np.ndarray], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`input_ids_BL, segment_ids_BL, position_ids_BL` (int64) of packed rows. `segments` has the lengths of each row's texts, which
    add up to the row. Segment ids count from 1 and are 0 on padding; positions start at 0 in each segment. Raises ValueError for
    no rows, and for lengths that do not add up."""
    ids_BL, _ = collate(rows, pad_id)
    segment_BL = np.zeros(ids_BL.shape, dtype=np.int64)
    position_BL = np.zeros(ids_BL.shape, dtype=np.int64)
    for i, (row, lengths) in enumerate(zip(rows, segments, strict=True)):
        lengths_S = np.asarray(lengths, dtype=np.int64)
        if lengths_S.sum() != len(row):
            raise ValueError(f"packed row {i} has {len(row)} tokens, and segments of {int(lengths_S.sum())}")
        starts_S = np.cumsum(lengths_S) - lengths_S
        segment_BL[i, : len(row)] = np.repeat(np.arange(1, len(lengths_S) + 1), lengths_S)
        position_BL[i, : len(row)] = np.arange(len(row)) - np.repeat(starts_S, lengths_S)
    return ids_BL, torch.from_numpy(segment_BL), torch.from_numpy(position_BL)


def second_text(rows: Sequence[Sequence[int] | np.ndarray], pair_at: Sequence[int] | np.ndarray) -> torch.Tensor:
    """`token_type_ids_BL` (int64) of rows of two texts: 1 from the first token of the second text to the row's end, 0 elsewhere."""
    types_BL = np.zeros((len(rows), max(1, max(len(row) for row in rows))), dtype=np.int64)
    for i, (row, start) in enumerate(zip(rows, pair_at, strict=True)):
        types_BL[i, start : len(row)] = 1
    return torch.from_numpy(types_BL)


def segment_mask(segment_ids_BL: torch.Tensor) -> torch.Tensor:
    """Block-diagonal attention mask (B, 1, L, L), true where a token may look: at its own segment. Padding looks at padding, since
    a row without anything to look at gives NaN; no text sees it. For scaled-dot-product attention (transformers' default, sdpa);
    its eager attention adds masks to the scores, and adding true or false hides nothing."""
    return segment_ids_BL[:, None, :, None] == segment_ids_BL[:, None, None, :]
