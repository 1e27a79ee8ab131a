"""Answers of a masked language model: which tokens could stand at each mask. Shapes: B rows, L tokens, V entries of the vocabulary, M
masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration import inference
from orchestration.answers.base import Answers
from orchestration.answers.facts import mask_token
from orchestration.package import Encoded, Package

HELD = "\ue000"  # stands for the mask while a text is cleaned: a mask like <mask> would go with the markup
FLOATS = 2**26  # of logits at once, 256 MB: B x L x V grows fast


@dataclass(frozen=True)
class Masked(Encoded):
    top: int = field(default=0, kw_only=True)


class Fills(Answers):
    def __init__(self, package: Package, *, micro_batch: int, limit_s: float) -> None:
        super().__init__(package, micro_batch=micro_batch, limit_s=limit_s)
        self._mask_token = mask_token(package.folder)
        self._mask_id: int = package.task.mask_id  # type: ignore[attr-defined]
        self._vocabulary = package.tokenizer.vocab_size

    def items(self, texts: Sequence[Any], options: Mapping[str, Any]) -> list[Masked]:
        """Texts, or rows with a text and media."""
        rows = [{"text": row} if isinstance(row, str) else row for row in texts]
        held = [row["text"].replace(HELD, "").replace(self._mask_token, HELD) for row in rows]
        cleaned = [text.replace(HELD, self._mask_token) for text in self.package.clean(held)]
        encoded = self.package.beside(self.package.encode_clean(cleaned), rows)
        return [Masked(item.ids, item.truncated, item.media, top=options["top"]) for item in encoded]

    def compute(self, items: Sequence[Masked]) -> list[list[list[dict[str, Any]]]]:
        import torch

        found: list[list[list[dict[str, Any]]]] = [[] for _ in items]
        lengths = [len(item.ids) for item in items]
        most = max(1, min(self.micro_batch, FLOATS // (max(lengths) * self._vocabulary)))
        with inference.torch_threads(self.package.threads), torch.inference_mode():
            for rows in inference.micro_batches(lengths, most):
                for row, logits_MV in zip(rows, self._at_masks([items[row] for row in rows]), strict=True):
                    found[row] = self._likeliest(logits_MV, items[row].top)
        return found

    def _at_masks(self, items: Sequence[Masked]) -> list[Any]:
        inputs = self.package.task.given(self.package.rows(items), self.package.pad_id)
        logits_BLV, ids_BL = self.package.forward(**inputs), inputs["input_ids"]
        return [logits_BLV[row][ids_BL[row] == self._mask_id] for row in range(len(items))]

    def _likeliest(self, logits_MV: Any, top: int) -> list[list[dict[str, Any]]]:
        if not len(logits_MV):
            return []
        chance_MK, ids_MK = logits_MV.softmax(-1).topk(min(top, logits_MV.shape[-1]))
        decode = self.package.tokenizer.library.decode
        return [
            [
                {"token": decode([number], skip_special_tokens=False).strip(), "probability": chance}
                for number, chance in zip(ids_K, chance_K, strict=True)
            ]
            for ids_K, chance_K in zip(ids_MK.tolist(), chance_MK.tolist(), strict=True)
        ]

    def payload(self, items: Sequence[Masked], found: Sequence[Any], options: Mapping[str, Any]) -> Any:
        return [{"masks": masks, "truncated": item.truncated} for item, masks in zip(items, found, strict=True)]
