"""Stored outputs as batches. Takes the blocks of a trunk and where each row of a feed's split stands in them; gives what the top of
the model takes. Called in the feed's thread, a step ahead. Shapes: B rows, L tokens, D width."""

from __future__ import annotations

import numpy as np
import torch

from orchestration.training.trunk.blocks import Blocks
from orchestration.training.trunk.numbers import decode


class Reader:
    """Rows of the feed's split as padded batches. `files`: block -> (rows, name)."""

    def __init__(self, blocks: Blocks, places_N: np.ndarray, files: dict[int, tuple[int, str]]) -> None:
        self.blocks, self.places_N = blocks, places_N
        self.mapped = {number: blocks.open(number, rows, blocks.local(name)) for number, (rows, name) in files.items()}

    def inputs(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """`{"hidden": hidden_BLD (float32), "attention_mask": mask_BL}`; for no rows one of zeros that fills the place."""
        if not len(indices):
            one_BL = torch.ones((1, 1), dtype=torch.int64)
            return {"hidden": torch.zeros(1, 1, self.blocks.width), "attention_mask": one_BL}
        places_B = self.places_N[indices]
        starts_B, sizes_B = self._where(places_B)
        longest = int(sizes_B.max())
        values_BLD, scales_BL = self._gather(places_B, starts_B, sizes_B, longest)
        mask_BL = np.arange(longest) < sizes_B[:, None]
        hidden_BLD = decode(values_BLD, scales_BL, self.blocks.dtype)
        return {"hidden": hidden_BLD, "attention_mask": torch.from_numpy(mask_BL.astype(np.int64))}

    def _where(self, places_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First token in its block's file, and how many, of each row."""
        offsets_N1, rows = self.blocks.offsets_N1, self.blocks.rows
        first_B = offsets_N1[places_B]
        return first_B - offsets_N1[places_B // rows * rows], offsets_N1[places_B + 1] - first_B

    def _gather(
        self, places_B: np.ndarray, starts_B: np.ndarray, sizes_B: np.ndarray, longest: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """One copy a row, out of the mapped file into the batch."""
        mapped = [self.mapped[number] for number in (places_B // self.blocks.rows).tolist()]
        values_BLD = np.empty((len(places_B), longest, self.blocks.width), mapped[0][0].dtype)
        scales_BL = None if mapped[0][1] is None else np.zeros((len(places_B), longest), np.float32)
        for i, (start, size) in enumerate(zip(starts_B.tolist(), sizes_B.tolist(), strict=True)):
            values, scales = mapped[i]
            values_BLD[i, :size] = values[start : start + size]
            values_BLD[i, size:] = 0
            if scales_BL is not None and scales is not None:
                scales_BL[i, :size] = scales[start : start + size]
        return values_BLD, scales_BL
