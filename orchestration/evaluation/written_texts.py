"""Scores of texts that a model writes, and their baselines: exact match, ROUGE-L (Lin 2004) by rouge-score, BLEU (Papineni et al. 2002) by
sacrebleu, from 0 to 1. Takes an open package, a store and rows of a split. Called by `assess` for seq2seq. Texts are written greedily."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HAN = "\u3400-\u9fff"
WORD = re.compile(rf"[{HAN}]|[^\s{HAN}]+")  # a Chinese character is a word of its own


def _decoder(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).decode


def found(opened: Any, split: Any, rows: Sequence[int], micro_batch: int = 32) -> list[str]:
    """What the package writes for each row, as its endpoint would: at most as many tokens as the longest target of the split has."""
    from orchestration import answers
    from orchestration.answers.kinds import KINDS

    most = max(len(target) for target in split.targets(np.arange(len(split))))
    made: Any = answers.of(opened, micro_batch=micro_batch)
    options = {**KINDS["seq2seq"].read({"max_new_tokens": int(most)}), "seed": 0}
    told: list[str] = []
    for at in range(0, len(rows), micro_batch):
        ids = split.input_ids(np.asarray(rows[at : at + micro_batch]))
        told += [one["text"] for one in made.compute([made.prompt(row.tolist(), options) for row in ids])]
    return told


def wanted(folder: Path, split: Any, rows: Sequence[int]) -> list[str]:
    decode = _decoder(folder)
    return [decode(target.tolist()) for target in split.targets(np.asarray(rows))]


def scores(told: Sequence[str], meant: Sequence[str]) -> dict[str, float]:
    """`rouge_l` (F-measure, mean of rows), `bleu` (of all rows together), `exact_match`."""
    import sacrebleu

    tokenize = "zh" if any(re.search(f"[{HAN}]", text) for text in meant) else "13a"
    bleu = sacrebleu.corpus_bleu(list(told), [list(meant)], tokenize=tokenize).score / 100
    return {**{name: float(values_N.mean()) for name, values_N in by_row(told, meant).items()}, "bleu": float(bleu)}


def by_row(told: Sequence[str], meant: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each row, (N,), the scores that are means of rows."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer, pairs = RougeScorer(["rougeL"], tokenizer=_Words()), list(zip(told, meant, strict=True))
    rouge_N = [scorer.score(b, a)["rougeL"].fmeasure for a, b in pairs]
    return {"rouge_l": np.array(rouge_N), "exact_match": np.array([float(a.split() == b.split()) for a, b in pairs])}


class _Words:
    """rouge-score's own tokenizer drops all but Latin letters and digits."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


def baselines(folder: Path, train: Any, held: Any) -> dict[str, dict[str, float]]:
    """The text itself, and the most frequent target of the training rows."""
    decode, meant = _decoder(folder), wanted(folder, held, range(len(held)))
    copied = [decode(ids.tolist()) for ids in held.input_ids(np.arange(len(held)))]
    (often, _), *_ = Counter(wanted(folder, train, range(len(train)))).most_common(1)
    return {"copy_of_the_text": scores(copied, meant), "most_frequent_target": scores([often] * len(meant), meant)}
