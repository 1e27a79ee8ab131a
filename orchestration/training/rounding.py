"""How far two runs may lie apart that do the same sums in another order. Takes the sizes of a model and a batch; gives bounds on the
differences of losses, gradients and weights. Used by `equality`, and by `bounds`, which knows what optimizers do with gradients.

A number of unit roundoff u (fp32: 6e-8) that is the sum of n terms differs by about u sqrt(n) of the terms' size: rounding errors are
independent, so they add like a random walk (Higham 2002, "Accuracy and Stability of Numerical Algorithms", 2.8). So with K the width
of the widest matrix, d the number of matrices that a row passes, T the padded tokens and B the rows of a batch:

    a row's loss       e = sqrt(d (K u32^2 + u^2))      sums are fp32, what is kept between them has the precision's own u
    a batch's loss     e / sqrt(B)                      the mean of B rows
    a gradient         g = sqrt(e^2 + T u32^2)          a weight's gradient is a sum over all tokens

A step carries the differences of the steps before, so step t may differ by t times that; and everything is allowed HEADROOM times its
estimate. Losses are compared relative to max(loss, 1), since it is logits that carry the error; gradient norms relative to the norm and
to min(loss, 1), since a gradient is a difference of probabilities that is small where the loss is. An element of a gradient may differ
by g times its own size and the root mean square of the strongest tensor in its depth group, from which its error comes.

AdamW divides a gradient by its own size. Where that is no more than its noise, the step goes either way, so no bound on the largest
difference of a weight is tighter than twice the rate: of 22 million weights some have a first gradient of almost 0 (seen: 6e-7 apart
at a rate of 5e-5). Their mean has one: for gradients spread like a normal distribution of root mean square s (that of `exp_avg_sq`)
and noise r s, the mean of min(2, noise / gradient) is at most r (1 + ln(2 / r)).

Seen with a 22M encoder in 3 to 12 steps and a tiny one in 4 and 24: of what is allowed, losses use up to 3%, gradient norms 12%,
gradients 3% (bf16: 42%), weights 1% (bf16: 38%). A loss twice too large, a row left out of each step, another seed, or dropout in one of
the runs exceed something that is allowed 10,000 to a million times (bf16: 3 to 350 times)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

UNIT = {"fp32": 2.0**-24, "bf16": 2.0**-9, "fp16": 2.0**-11}  # largest relative error of one rounding
HEADROOM = 4.0


@dataclass(frozen=True)
class Rounding:
    """`width` K, `depth` d, `tokens` T, `rows` B of the module's docstring."""

    precision: str
    width: int
    depth: int
    tokens: int
    rows: int

    @property
    def row(self) -> float:
        return math.sqrt(self.depth * (self.width * UNIT["fp32"] ** 2 + UNIT[self.precision] ** 2))

    @property
    def gradient(self) -> float:
        return math.sqrt(self.row**2 + self.tokens * UNIT["fp32"] ** 2)

    def loss(self, step: int, value: float, rows: int | None = None) -> float:
        return HEADROOM * step * self.row / math.sqrt(rows or self.rows) * max(abs(value), 1.0)

    def norm(self, step: int, value: float, loss: float) -> float:
        return HEADROOM * step * self.gradient * value / max(min(loss, 1.0), self.gradient)

    def element(self, step: int, strongest: float, size: torch.Tensor) -> torch.Tensor:
        """Of each element of a gradient; `size`: its own root mean square over the steps, `strongest`: that of the strongest tensor."""
        return HEADROOM * step * self.gradient * (strongest + size)

    def moved(self, step: int, strongest: float, size: torch.Tensor) -> torch.Tensor:
        """Expected difference of AdamW's step of each weight, as a share of its rate; at most 2, and 0 where no gradient came."""
        r = self.element(step, strongest, size) / size.clamp_min(torch.finfo(torch.float32).tiny)
        return (r * (1 + torch.log((2 / r).clamp_min(1)))).clamp_max(2.0) * (size > 0)

    def kept(self, step: int, weights: torch.Tensor) -> torch.Tensor:
        """Of a weight that is rounded to fp32 twice a step, for its decay and its step."""
        return 2 * step * UNIT["fp32"] * weights.abs()
