"""Scores of answers that are texts, over words in place of tokens, and their baselines. Takes an open package, a store and rows of a split;
gives the texts that the package answers with (`found`), those that people gave (`wanted`), and scores of one against the other. Called
by `assess` for spans.

Spans: exact match and F1 after SQuAD's normalisation (Rajpurkar et al. 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENDS = (".", "!", "?", "。", "！", "？")


def decoder(folder: Path) -> Any:
    """Token ids -> text, special tokens left out."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).decode


def found(opened: Any, split: Any, rows: Sequence[int], micro_batch: int = 32) -> list[str]:
    """What the package answers to each row, as its endpoint would."""
    from models.tasks.base import Rows
    from models.tasks.spans import best

    decode, told = decoder(opened.folder), []
    for at in range(0, len(rows), micro_batch):
        chosen = np.asarray(rows[at : at + micro_batch])
        ids = split.input_ids(chosen)
        batch = Rows(ids, pair_at=split.pair_at(chosen))
        logits = opened.forward(**opened.task.given(batch, opened.pad_id))
        spans, _ = best(logits, opened.task.places(batch)[1])
        told += [decode(row[first : last + 1].tolist()) for row, (first, last) in zip(ids, spans.tolist(), strict=True)]
    return told


def wanted(folder: Path, split: Any, rows: Sequence[int]) -> list[str]:
    decode, pairs = decoder(folder), zip(split.input_ids(rows), split.targets(rows), strict=True)
    return [decode(ids[first : last + 1].tolist()) for ids, (first, last) in pairs]


def scores(told: Sequence[str], meant: Sequence[str]) -> dict[str, float]:
    """`text_exact_match` and `text_f1`: other places with the same words are right too."""
    return {name: float(values_N.mean()) for name, values_N in by_row(told, meant).items()}


def by_row(told: Sequence[str], meant: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each row, (N,)."""
    pairs = [(_words(a), _words(b)) for a, b in zip(told, meant, strict=True)]
    exact_N, f1_N = [float(a == b) for a, b in pairs], [_f1(a, b) for a, b in pairs]
    return {"text_exact_match": np.array(exact_N), "text_f1": np.array(f1_N)}


def _words(text: str) -> list[str]:
    """Lower case, without punctuation and articles."""
    plain = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _f1(told: list[str], meant: list[str]) -> float:
    if not told or not meant:
        return float(told == meant)
    shared = sum((Counter(told) & Counter(meant)).values())
    return 2 * shared / (len(told) + len(meant))


def baselines(folder: Path, train: Any, held: Any) -> dict[str, dict[str, float]]:
    """Where answers stand on average, the context's first sentence, and the sentence that shares most words with the question."""
    every = np.arange(len(held))
    ids, starts, targets = held.input_ids(every), held.pair_at(every), np.stack(held.targets(every))
    ends = _ends(folder)
    guesses: dict[str, list[tuple[int, int]]] = {
        "mean_place": _mean_places(train, ids, starts),
        "first_sentence": [_sentences(row, at, ends)[0] for row, at in zip(ids, starts, strict=True)],
        "sentence_with_most_shared_words": [_shared(row, at, ends) for row, at in zip(ids, starts, strict=True)],
    }
    decode, meant = decoder(folder), wanted(folder, held, every.tolist())
    return {
        name: {
            **places(np.array(spans), targets),
            **scores([decode(row[a : b + 1].tolist()) for row, (a, b) in zip(ids, spans, strict=True)], meant),
        }
        for name, spans in guesses.items()
    }


def places(found_N2: np.ndarray, wanted_N2: np.ndarray) -> dict[str, float]:
    """Exact match and F1 over tokens, as `models.tasks.spans` tallies them."""
    shared_N = np.minimum(found_N2[:, 1], wanted_N2[:, 1]) - np.maximum(found_N2[:, 0], wanted_N2[:, 0]) + 1
    sizes_N = (found_N2[:, 1] - found_N2[:, 0]) + (wanted_N2[:, 1] - wanted_N2[:, 0]) + 2
    exact = (found_N2 == wanted_N2).all(1).mean()
    return {"exact_match": float(exact), "f1": float((2 * np.maximum(shared_N, 0) / sizes_N).mean())}


def _mean_places(train: Any, ids: Sequence[np.ndarray], starts: np.ndarray) -> list[tuple[int, int]]:
    """The mean first token of an answer, as a share of its context, and the mean number of tokens."""
    every = np.arange(len(train))
    spans_N2, at_N = np.stack(train.targets(every)), train.pair_at(every)
    there_N = spans_N2[:, 1] > 0
    share = ((spans_N2[:, 0] - at_N) / np.maximum(1, train.lengths - at_N))[there_N].mean() if there_N.any() else 0.0
    size = round(float((spans_N2[:, 1] - spans_N2[:, 0])[there_N].mean())) if there_N.any() else 0
    first = [at + int(share * (len(row) - at)) for row, at in zip(ids, starts.tolist(), strict=True)]
    return [(a, min(a + size, len(row) - 1)) for a, row in zip(first, ids, strict=True)]


def _ends(folder: Path) -> set[int]:
    """Tokens that end a sentence."""
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id
    return {number for mark in ENDS if (number := known(mark)) is not None}


def _sentences(row: np.ndarray, start: int, ends: set[int]) -> list[tuple[int, int]]:
    """First and last token of each sentence of the context, its full stop left out."""
    found, first = [], int(start)
    for at in range(int(start), len(row)):
        if int(row[at]) in ends and at > first:
            found.append((first, at - 1))
            first = at + 1
    return found or [(int(start), len(row) - 1)]


def _shared(row: np.ndarray, start: int, ends: set[int]) -> tuple[int, int]:
    asked = set(row[:start].tolist())
    return max(_sentences(row, start, ends), key=lambda span: len(asked & set(row[span[0] : span[1] + 1].tolist())))
