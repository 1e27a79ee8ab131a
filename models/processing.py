"""From token ids to tensors: the same code in training, evaluation and the endpoint. Takes rows of token ids of any length;
gives one rectangular batch. Shapes: B rows, L tokens of the longest row."""

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
