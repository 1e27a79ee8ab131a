"""Answers of an encoder-decoder model: the text that it writes for each text that it reads, by transformers' own `generate`. Options, ends
and draws are those of `generate`; a text is cleaned and tokenised as training did, and too long ones lose their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.answers.generate import Continuations, Prompt
from orchestration.package import Package


class Outputs(Continuations):
    def __init__(self, package: Package, *, micro_batch: int, limit_s: float) -> None:
        # BART's configuration puts an end token in the last place there is room for; where that is depends on the texts beside.
        package.model.generation_config.forced_eos_token_id = None
        super().__init__(package, micro_batch=micro_batch, limit_s=limit_s)

    def items(self, texts: Sequence[str], options: Mapping[str, Any]) -> list[Prompt]:
        return [
            self.prompt(item.ids, options, truncated=item.truncated, turn=turn)
            for item in self.package.encode(texts)
            for turn in range(options["sequences"])
        ]

    def prompt(self, ids: list[int], options: Mapping[str, Any], *, truncated: bool = False, turn: int = 0) -> Prompt:
        return Prompt(ids, truncated, options["seed"] + turn, options)

    def _begin(self) -> dict[str, Any]:
        return {"decoder_start_token_id": self.package.task.start_id}  # type: ignore[attr-defined]

    def _asked(self, items: Sequence[Prompt]) -> dict[str, Any]:
        """Padded on the right, as in training."""
        from models.processing import collate

        ids_BL, mask_BL = collate([item.ids for item in items], self.package.pad_id)
        return {"inputs": ids_BL, "attention_mask": mask_BL}

    def _start(self, items: Sequence[Prompt]) -> int:
        return 1  # behind the token that the decoder begins with

    def _text(self, item: Prompt, new: list[int]) -> str:
        return str(self._library.decode(new))
