"""What a benchmark script gives: claims. Takes two measured numbers and the outcome of the equality check beside them; gives
the JSON line that the harness prints. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestration.errors import UserError


@dataclass(frozen=True)
class Claim:
    """`ours` and `peer` are medians in `unit`; `target` is for the ratio ours / peer, None where nothing is promised.

    `gate`: both sides did the same work (same rows, same losses, same scores). `gate_says`: what was compared, and the largest
    difference found. `spread`: lowest and highest ratio of the repeats. `parts`: where the number goes, by side.
    """

    claim: str
    ours: float
    peer: float
    better: Literal["higher", "lower"]
    gate: bool
    target: float | None = None
    unit: str = ""
    repeats: int = 1
    spread: tuple[float, float] | None = None
    gate_says: str = ""
    note: str = ""
    parts: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ours", "peer"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"claim {self.claim!r}: {name}={value}; a measured number is positive and finite")
        if self.better not in ("higher", "lower"):
            raise UserError(f"claim {self.claim!r}: better={self.better!r}; allowed: higher, lower")

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches the target; None without one. Timings are noisy, so this fails nothing: the gate does."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.better == "higher" else self.ratio <= self.target

    def line(self) -> str:
        """One JSON object: the seven fixed keys first, then the rest."""
        fixed = {
            "claim": self.claim,
            "ours": _short(self.ours),
            "peer": _short(self.peer),
            "ratio": _short(self.ratio),
            "target": self.target,
            "better": self.better,
        }
        extra = {
            "met": self.met,
            "unit": self.unit,
            "repeats": self.repeats,
            "spread": self.spread and [_short(x) for x in self.spread],
        }
        more = {"gate_says": self.gate_says, "note": self.note, "parts": self.parts}
        whole = {
            **fixed,
            "gate": "pass" if self.gate else "fail",
            **extra,
            **{key: value for key, value in more.items() if value},
        }
        return json.dumps(whole, ensure_ascii=False)

    def dump(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def load(values: dict[str, Any]) -> Claim:
        spread = values["spread"]
        return Claim(**{**values, "spread": None if spread is None else (spread[0], spread[1])})


def compare(ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """`ours`, `peer`, `repeats`, `spread` of a Claim from repeats measured in turn: entry i of both ran side by side."""
    if len(ours) != len(peer) or not ours:
        raise UserError(f"{len(ours)} repeats of ours and {len(peer)} of the peer; measure them in turn, equally often")
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return {
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "repeats": len(ours),
        "spread": (min(ratios), max(ratios)),
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")
