"""Pretraining of encoder-decoder models on plain text: stretches of it are taken out, and the model writes them. Two ways: each stretch
leaves a mark of its own, and the target is the marks with what stood there (T5, Raffel et al. 2020, section 3.1.4); or each leaves the
mask token, and the target is the whole text (BART, Lewis et al. 2020, text infilling, here without stretches of no token). Drawn from
the row's random numbers alone: the same for any number of workers, others in each epoch. Shapes: L tokens of a row, S stretches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models import tokens
from models.config import DenoisingConfig, ModelConfig
from models.families import ModelError
from models.tasks.base import Rows, Tensors
from models.tasks.seq2seq import Seq2Seq


class Denoising(Seq2Seq):
    columns = ()
    draws = 2  # where stretches end, and where they stand

    def __init__(self, config: ModelConfig, labels: Sequence[str], folder: Path) -> None:
        super().__init__(config, labels, folder)
        rule = config.denoising or DenoisingConfig()
        vocabulary = tokens.read(folder)
        self.rate, self.mean_length = rule.rate, rule.mean_length
        self._special_V = np.zeros(vocabulary.size, bool)
        self._special_V[vocabulary.special_ids] = True
        self.marks: np.ndarray | None = None
        if rule.style == "infilling":
            self.mask_id = vocabulary.need("mask", "model.denoising.style=infilling")
            return
        self.marks = vocabulary.marks
        if not len(self.marks):
            raise ModelError(
                f"model.denoising.style=sentinels needs marks like <extra_id_0> (or [unused0]), and the tokenizer of {folder} has none;"
                " choose one that has, or style: infilling"
            )

    def batch(self, rows: Rows, pad_id: int) -> tuple[Tensors, Tensors]:
        return self._batch(self._noised(rows), pad_id)

    def inputs(self, rows: Rows, pad_id: int) -> Tensors:
        return super().inputs(self._noised(rows), pad_id)

    def targets(self, rows: Rows) -> Tensors:
        return super().targets(self._noised(rows))

    def count(self, rows: Rows) -> int:
        return super().count(self._noised(rows))

    def _batch(self, noised: Rows, pad_id: int) -> tuple[Tensors, Tensors]:
        return Seq2Seq.inputs(self, noised, pad_id), Seq2Seq.targets(self, noised)

    def _noised(self, rows: Rows) -> Rows:
        """The rows with holes, and what is to be written as their targets."""
        assert rows.random is not None
        made = [self._holes(np.asarray(row, np.int64), drawn) for row, drawn in zip(rows.ids, rows.random, strict=True)]
        return replace(rows, ids=[seen for seen, _ in made], columns={"targets": [target for _, target in made]})

    def _holes(self, row: np.ndarray, random_2L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row as the encoder sees it, and the target. Special tokens stay, the last of them ends the target too."""
        plain_K = np.flatnonzero(~self._special_V[row])
        if len(plain_K) < 2:
            return row, row
        seen: list[np.ndarray] = []
        told: list[np.ndarray] = []
        last = 0
        for number, (start, end) in enumerate(self._stretches(len(plain_K), random_2L)):
            first, behind = int(plain_K[start]), int(plain_K[end - 1]) + 1
            mark = [self.mask_id] if self.marks is None else [self.marks[number % len(self.marks)]]
            seen += [row[last:first], np.array(mark)]
            told += [np.array(mark), row[first:behind]]
            last = behind
        tail = row[int(plain_K[-1]) + 1 :]
        target = row if self.marks is None else np.concatenate([*told, tail])
        return np.concatenate([*seen, row[last:]]), target

    def _stretches(self, count: int, random_2L: np.ndarray) -> list[tuple[int, int]]:
        """(first, behind the last) of the ordinary tokens that are taken out: `rate` of them, in stretches of `mean_length` on average, with
        one token between any two at least. Sizes and gaps are random parts of a sum, each way to cut it as likely as any other, as in T5,
        where however the text's end is always taken out."""
        gone = min(max(1, round(self.rate * count)), count - 1)
        wanted = max(1, min(round(gone / self.mean_length), gone, count - gone))
        sizes, gaps = _parts(gone, wanted, random_2L[0]), _parts(count - gone + 2, wanted + 1, random_2L[1])
        gaps[0] -= 1  # nothing need stand before the first and behind the last
        ends = np.cumsum(sizes + gaps[:-1])
        return list(zip((ends - sizes).tolist(), ends.tolist(), strict=True))


def _parts(total: int, count: int, random_L: np.ndarray) -> np.ndarray:
    """`total` as a sum of `count` numbers from 1."""
    cuts = np.sort(np.argsort(random_L[: total - 1], kind="stable")[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)
