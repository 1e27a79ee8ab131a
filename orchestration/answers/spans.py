"""Answers of a span model: where in a context the answer to a question stands. Shapes: B rows, L tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestration import inference
from orchestration.answers.base import Answers


@dataclass(frozen=True)
class Asked:
    """`sent`: the context as it came; `context`: as the model reads it; `offsets_T2`: characters of its tokens, the first of which is
    token `pair_at` of the row."""

    ids: list[int]
    pair_at: int
    sent: str
    context: str
    offsets_T2: np.ndarray
    truncated: bool
    most: int


@dataclass(frozen=True)
class Found:
    """Tokens of the row, both in it; (0, 0) for no answer. `probability`: of both ends."""

    first: int
    last: int
    probability: float


class Extracts(Answers):
    def items(self, texts: Sequence[tuple[str, str]], options: Mapping[str, Any]) -> list[Asked]:
        questions, contexts = (self.package.clean(part) for part in zip(*texts, strict=True))
        framed = self.package.tokenizer.framed(questions, contexts)
        offsets = self.package.tokenizer.offsets(contexts)
        rows = zip(framed, texts, contexts, offsets, strict=True)
        return [
            Asked(row.ids.tolist(), row.parts[1].start, sent, context, there, row.cut, options["max_answer_tokens"])
            for row, (_, sent), context, there in rows
        ]

    def compute(self, items: Sequence[Asked]) -> list[Found]:
        import torch

        found: dict[int, Found] = {}
        with inference.torch_threads(self.package.threads), torch.inference_mode():
            for rows in inference.micro_batches([len(item.ids) for item in items], self.micro_batch):
                found.update(zip(rows, self._pass([items[row] for row in rows]), strict=True))
        return [found[row] for row in range(len(items))]

    def _pass(self, items: Sequence[Asked]) -> list[Found]:
        from models.tasks.base import Rows
        from models.tasks.spans import best

        package = self.package
        rows = Rows([np.array(item.ids) for item in items], pair_at=[item.pair_at for item in items])
        there_BL, open_BL = package.task.places(rows)  # type: ignore[attr-defined]
        logits_BL2 = package.forward(**package.task.given(rows, package.pad_id))
        chance_BL2 = logits_BL2.masked_fill(~there_BL[:, :, None], float("-inf")).softmax(1)
        found = []
        for row, item in enumerate(items):
            span_12, _ = best(logits_BL2[row : row + 1], open_BL[row : row + 1], item.most)
            first, last = span_12[0].tolist()
            found.append(Found(first, last, float(chance_BL2[row, first, 0] * chance_BL2[row, last, 1])))
        return found

    def payload(self, items: Sequence[Asked], found: Sequence[Found], options: Mapping[str, Any]) -> Any:
        return [
            {**told(item, one), "probability": one.probability, "truncated": item.truncated}
            for item, one in zip(items, found, strict=True)
        ]


def told(item: Asked, found: Found) -> dict[str, Any]:
    """The answer's words and their place in the context that was sent; of a context that cleaning changed the nearest place with the same
    words, and none where there is no such place."""
    if found.last < item.pair_at:
        return {"answer": None, "start": None, "end": None}
    start, end = item.offsets_T2[found.first - item.pair_at, 0], item.offsets_T2[found.last - item.pair_at, 1]
    words = item.context[start:end]
    answer = words.strip()
    at = int(start) + len(words) - len(words.lstrip())
    if item.sent != item.context:
        places = item.sent.find(answer, at), item.sent.rfind(answer, 0, at + len(answer))
        near = min((place for place in places if place >= 0), key=lambda place: abs(place - at), default=None)
        return {"answer": answer, "start": near, "end": None if near is None else near + len(answer)}
    return {"answer": answer, "start": at, "end": at + len(answer)}
