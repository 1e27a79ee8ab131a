"""Answers of a model that writes a text for what its other towers read. Options, ends and draws are those of `generate`; what a row has as `text` is
what its caption begins with. Shapes: B rows, P tokens of the other towers, L of the text, D width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestration.answers.generate import Continuations, Prompt
from orchestration.answers.kinds import Unanswerable
from orchestration.package import Encoded, Package


@dataclass(frozen=True)
class Shown(Prompt):
    """With what is to be described, by kind."""

    media: Mapping[str, np.ndarray | None] = field(default_factory=dict)


class Captions(Continuations):
    def __init__(self, package: Package, *, micro_batch: int, limit_s: float) -> None:
        task: Any = package.task
        self._task = task
        super().__init__(package, micro_batch=micro_batch, limit_s=limit_s)

    def items(self, texts: Sequence[Any], options: Mapping[str, Any]) -> list[Prompt]:
        """Raises Unanswerable for a row of text alone."""
        found: list[Prompt] = []
        for row, item in enumerate(self.package.encode(texts)):
            if all(array is None for array in item.media.values()):
                kinds = " or ".join(self._task.media)
                raise Unanswerable(row, f"has nothing that a text could be written for; send {kinds}", part=kinds)
            found += [self.prompt(item, options, turn) for turn in range(options["sequences"])]
        return found

    def prompt(self, item: Encoded, options: Mapping[str, Any], turn: int = 0) -> Prompt:
        ids = self._task.begun(item.ids).tolist()
        return Shown(ids, item.truncated, options["seed"] + turn, options, item.media)

    def _stops(self) -> list[int]:
        return [self._task.end_id]

    @property
    def _writer(self) -> Any:
        return self.package.model.writer

    def _asked(self, items: Sequence[Prompt]) -> dict[str, Any]:
        """The other towers' tokens, then texts padded on the left: the hole between them is seen by nobody."""
        import torch

        from models.inputs import Rows

        media = {kind: [getattr(item, "media", {}).get(kind) for item in items] for kind in self._task.media}
        inputs = self._task.given(Rows([item.ids for item in items], media=media), self.package.pad_id)
        for row, item in enumerate(items):
            for name in ("input_ids", "attention_mask"):
                inputs[name][row] = inputs[name][row].roll(inputs[name].shape[1] - len(item.ids))
        with torch.inference_mode():
            seen_BND, mask_BN = self.package.model.seen(**inputs)
        return {"inputs_embeds": seen_BND, "attention_mask": mask_BN}

    def _start(self, items: Sequence[Prompt]) -> int:
        return 0  # of embeddings `generate` gives back new tokens alone
