"""Synthetic corpora of any size for the tests of size and of killed processes. Takes a seed and how many rows; gives JSONL files whose
right counts are known: each word is one token, and which rows are copies or broken goes by their number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestration.data import rng

WORDS = (80, 160)  # a row, evenly spread
COPY_OF = 40  # every 50th row is the row 40 before it, in capitals
BROKEN_EVERY = 20_011  # a line that is not JSON
AT_ONCE = 20_000  # rows made at a time


@dataclass(frozen=True)
class Corpus:
    """`rows` lines in all, `copies` and `broken` of them; `tokens` of the distinct rows, their two special tokens included."""

    folder: Path
    bytes: int
    rows: int
    copies: int
    broken: int
    tokens: int


def whole_words(tokenizer: Path) -> list[str]:
    """Words that an uncased WordPiece tokenizer keeps whole."""
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted(word for word in vocabulary if word.isascii() and word.isalpha() and 4 <= len(word) <= 9)


def write(folder: Path, words: list[str], *, rows: int, files: int, seed: int) -> Corpus:
    """The same files for the same arguments, about 917 bytes a row."""
    folder.mkdir(parents=True)
    low, high = WORDS
    length_N = low + (rng.mix_array(rng.key(seed, "length"), np.arange(rows)) % np.uint64(high - low + 1)).astype(int)
    number_N = np.arange(rows)
    copied_N = (number_N % 50 == 49) & (number_N >= COPY_OF)
    broken_N = number_N % BROKEN_EVERY == BROKEN_EVERY - 1
    copied_N &= ~broken_N & ~broken_N[number_N - COPY_OF]
    per_file = -(-rows // files)
    for file in range(files):
        with open(folder / f"part-{file}.jsonl", "w", encoding="ascii") as handle:
            end = min(rows, (file + 1) * per_file)
            for start in range(file * per_file, end, AT_ONCE):
                for number in range(start, min(end, start + AT_ONCE)):
                    if broken_N[number]:
                        handle.write('{"text": \n')
                        continue
                    row = number - COPY_OF if copied_N[number] else number
                    text = _text(words, row, int(length_N[row]), seed)
                    handle.write(f'{{"text": "{text.upper() if copied_N[number] else text}"}}\n')
    alone_N = ~copied_N & ~broken_N
    return Corpus(
        folder,
        sum(path.stat().st_size for path in folder.iterdir()),
        rows,
        int(copied_N.sum()),
        int(broken_N.sum()),
        int((length_N[alone_N] + 2).sum()),
    )


def _text(words: list[str], row: int, length: int, seed: int) -> str:
    draws = rng.mix_array(rng.key(seed, row), np.arange(length)) % np.uint64(len(words))
    return " ".join([words[draw] for draw in draws.tolist()])
