"""Answers of a tagger: a tag for each word, told by the word's first token as it was trained. Words are divided by white space, each
cleaned alone, so their offsets are those of the text as it was sent. Shapes: B rows, L tokens, C tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration import inference
from orchestration.answers.base import Answers

WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Word:
    """`start`, `end`: characters of the text. `token`: its first one's place among the ids."""

    text: str
    start: int
    end: int
    token: int


@dataclass(frozen=True)
class Worded:
    ids: list[int]
    words: list[Word]
    truncated: bool


class Tags(Answers):
    def items(self, texts: Sequence[str], options: Mapping[str, Any]) -> list[Worded]:
        found = [list(WORD.finditer(text)) for text in texts]
        cleaned = [self.package.clean([word.group() for word in words]) for words in found]
        framed = self.package.tokenizer.words(cleaned)
        return [
            Worded(
                row.ids.tolist(),
                [
                    Word(word.group(), word.start(), word.end(), first)
                    for word, first in zip(words, row.starts_W.tolist(), strict=True)
                    if first >= 0
                ],
                row.cut,
            )
            for words, row in zip(found, framed, strict=True)
        ]

    def compute(self, items: Sequence[Worded]) -> list[list[tuple[int, float]]]:
        """(tag, probability) of each word."""
        import torch

        from models.processing import collate

        found: list[list[tuple[int, float]]] = [[] for _ in items]
        with inference.torch_threads(self.package.threads), torch.inference_mode():
            for rows in inference.micro_batches([len(item.ids) for item in items], self.micro_batch):
                ids_BL, mask_BL = collate([items[row].ids for row in rows], self.package.pad_id)
                chance_BLC = self.package.forward(input_ids=ids_BL, attention_mask=mask_BL).softmax(-1)
                for row, chance_LC in zip(rows, chance_BLC, strict=True):
                    best_W = chance_LC[[word.token for word in items[row].words]].max(-1)
                    found[row] = list(zip(best_W.indices.tolist(), best_W.values.tolist(), strict=True))
        return found

    def payload(self, items: Sequence[Worded], found: Sequence[Any], options: Mapping[str, Any]) -> Any:
        return [
            {"words": [self._told(*pair) for pair in zip(item.words, tags, strict=True)], "truncated": item.truncated}
            for item, tags in zip(items, found, strict=True)
        ]

    def _told(self, word: Word, tag: tuple[int, float]) -> dict[str, Any]:
        number, chance = tag
        return {
            "word": word.text,
            "start": word.start,
            "end": word.end,
            "tag": self.package.labels[number],
            "probability": chance,
        }
