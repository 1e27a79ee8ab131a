"""How far rounding may move what an optimizer keeps and does. Takes the spec's optimizer, the bounds on gradients of `rounding` and what a
run left; gives bounds on a moment and on the steps of a weight. Used by `equality`.

AdamW, Adam and LAMB tell the size of each element's gradients by the mean of their squares. SGD's momentum is a sum of gradients, which
grows with the root of the sum of its squared weights where they point anywhere. SGD without momentum keeps nothing: the norm of the
whole gradient then stands in for the strongest tensor, so its bound is wider, by the root of that tensor's number of elements at most.

A step of SGD is the gradient, or the momentum, times the rate. That of AdamW and Adam is at most the rate (`Rounding.moved`). LAMB
multiplies it by r = |w| / |u|, w the parameter and u its step: the mean difference of r u is at most r (1 + max|u| / rms(u)) times that
of u, the second part being that of |u| itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from orchestration.training.config import OptimizerConfig
from orchestration.training.rounding import Rounding

Moment = Callable[[str], torch.Tensor | None]


@dataclass(frozen=True)
class Bounds:
    """`steps`: updates behind the moments. `norm`: the largest gradient norm that an update was made with."""

    chosen: OptimizerConfig
    rounding: Rounding
    steps: int
    norm: float

    @property
    def mean(self) -> str | None:
        """The moment that is a weighted sum of the gradients; None: there is none."""
        return next(iter(self.chosen.moments), None)

    @property
    def weight(self) -> float:
        """Of all gradients in it together."""
        if self.chosen.name == "sgd":
            return sum(self.chosen.momentum**k for k in range(self.steps))
        return 1.0 - self.chosen.beta1**self.steps

    def size(self, moment: Moment) -> torch.Tensor | None:
        """Root mean square of each element of a parameter's gradients; None where nothing is kept that tells."""
        found = moment(self.chosen.moments[-1]) if self.chosen.moments else None
        if found is None:
            return None
        if self.chosen.name == "sgd":
            return found.abs() / math.sqrt(sum(self.chosen.momentum ** (2 * k) for k in range(self.steps)))
        return (found / (1 - self.chosen.beta2**self.steps)).sqrt()

    def of_mean(self, strongest: float, size: torch.Tensor) -> torch.Tensor:
        """Of each element of `mean`."""
        return self.rounding.element(self.steps, strongest, size) * self.weight

    def of_step(self, strongest: float, size: torch.Tensor | None) -> torch.Tensor:
        """Expected difference of each weight's step, as a share of its rate; for LAMB as if the ratio were 1."""
        if self.chosen.name == "sgd":
            gradient = self.rounding.element(self.steps, strongest, torch.zeros(()) if size is None else size)
            return gradient * (self.weight + self.chosen.nesterov)  # Nesterov adds the newest gradient once more
        return torch.tensor(2.0) if size is None else self.rounding.moved(self.steps, strongest, size)

    def ratio(self, weights: torch.Tensor, size: torch.Tensor | None, moment: Moment) -> float:
        """What LAMB multiplies the share of a parameter of two dimensions by; 1 for the other optimizers."""
        first = moment("exp_avg") if self.chosen.name == "lamb" else None
        if first is None or size is None:
            return 1.0
        decay = self.chosen.weight_decay
        update = first / (1 - self.chosen.beta1**self.steps) / (size + self.chosen.eps) + decay * weights
        length = float(update.norm())
        rms = length / math.sqrt(update.numel())
        return float(weights.norm()) / length * (1 + float(update.abs().max()) / rms) if length else 1.0
