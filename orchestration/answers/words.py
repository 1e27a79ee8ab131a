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
        return [self._worded(text) for text in texts]

    def _worded(self, text: str) -> Worded:
        raw = list(WORD.finditer(text))
        cleaned = self.package.clean([word.group() for word in raw])
        kept = [(word, clean) for word, clean in zip(raw, cleaned, strict=True) if clean]
        (item,) = self.package.encode_clean([" ".join(clean for _, clean in kept)])
        firsts = self._firsts([clean for _, clean in kept], tokens=len(item.ids))
        words = [
            Word(word.group(), word.start(), word.end(), first)
            for (word, _), first in zip(kept, firsts, strict=True)
            if first is not None
        ]
        return Worded(item.ids, words, item.truncated)

    def _firsts(self, words: list[str], tokens: int) -> list[int | None]:
        """Place of each word's first token; None for a word that was cut away or has no token. A byte-level token may begin at the
        space before its word, so what counts is where it ends."""
        encoding = self.package.tokenizer.library.encode(" ".join(words))
        special = encoding.special_tokens_mask
        tail = special[::-1].index(0) if 0 in special else 0
        places = [(at, *encoding.offsets[at]) for at, is_special in enumerate(special) if not is_special]
        last = tokens - tail  # the cut keeps room for the special tokens behind
        found: list[int | None] = []
        start, turn = 0, 0
        for word in words:
            end = start + len(word)
            while turn < len(places) and places[turn][2] <= start:
                turn += 1
            inside = turn < len(places) and places[turn][1] < end and places[turn][0] < last
            found.append(places[turn][0] if inside else None)
            start = end + 1
        return found

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
