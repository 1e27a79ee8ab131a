"""The factor of a loss in fp16, so that small gradients do not vanish (Micikevicius et al. 2018, "Mixed Precision Training"). Halved when
a gradient overflowed, that update being left out; doubled after many that did not. Lies on the device and is changed there:
nobody waits for it. Used by every engine."""

from __future__ import annotations

import torch

START, FLOOR, EVERY = 2.0**16, 1.0, 2000  # GradScaler's start and patience; DeepSpeed's floor


class LossScale:
    def __init__(self, device: torch.device, *, every: int = EVERY) -> None:
        self.every = every
        self.scale = torch.tensor(START, device=device)
        self.good = torch.zeros((), device=device)  # updates since it last changed

    @property
    def lowest(self) -> torch.Tensor:
        """True where it cannot be halved: then an overflow is not the scale's doing."""
        return self.scale <= FLOOR

    def update(self, overflow: torch.Tensor) -> None:
        """After an update, or one that was left out for `overflow`."""
        good = torch.where(overflow, 0.0, self.good + 1)
        grown = torch.where(good >= self.every, self.scale * 2, self.scale)
        self.good = torch.where(good >= self.every, 0.0, good)
        self.scale = torch.where(overflow, (self.scale / 2).clamp(min=FLOOR), grown)

    def dump(self) -> dict[str, float]:
        return {"loss_scale": float(self.scale), "loss_scale_good": float(self.good)}

    def load(self, values: dict[str, float]) -> None:
        if "loss_scale" in values:
            self.scale.fill_(values["loss_scale"])
            self.good.fill_(values["loss_scale_good"])
