"""What a tokenizer puts around texts, how much of each fits between, and which tokens its words and spans are. Takes a loaded
tokenizer.json, numbers of tokens, offsets; gives ids and places. Called by `tokenize` and `aligned`; encodes no text."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.errors import UserError


def frame(fast: Any, path: Path, texts: int) -> tuple[bytes, ...]:
    """Ids of the special tokens before, between and behind so many texts (int32, as bytes): one piece more than texts. Raises
    UserError where the tokenizer does more than that."""
    for sample in ("a", *(fast.id_to_token(i) or "" for i in range(min(1000, fast.get_vocab_size())))):
        full, plain = fast.encode(*[sample] * texts), fast.encode(sample, add_special_tokens=False)
        if plain.ids:
            break
    size, ids = len(plain.ids), full.ids
    content = [i for i, special in enumerate(full.special_tokens_mask) if not special]
    starts = content[::size] if size else [len(ids)] * texts
    ends = [0, *(start + size for start in starts)]
    pieces = [ids[end:start] for end, start in zip(ends, [*starts, len(ids)], strict=True)]
    again = pieces[0] + [number for piece in pieces[1:] for number in plain.ids + piece]
    ordered = not size or [full.sequence_ids[start] for start in starts] == list(range(texts))
    if len(content) != size * texts or ids != again or not ordered:
        where = "before and behind a text" if texts == 1 else "before, between and behind two texts"
        raise UserError(f"{path}: its post_processor does more than put special tokens {where}")
    return tuple(array("i", piece).tobytes() for piece in pieces)


def longest_first(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens stay of one text, or of two: the longer one loses first, and of two that are both too long each keeps half (the
    longer one the odd token; of equal ones the second), as in transformers."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    if sum(lengths) <= room:
        return list(lengths)
    short = min(min(lengths), room // 2)
    return [room - short, short] if lengths[0] > lengths[1] else [short, room - short]


def word_starts(part: slice, offsets_T2: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """First token of each word of a text (int64 W) of which the tokens `part` are left."""
    lengths_W = np.fromiter(map(len, words), np.int64, len(words))
    ends_W = np.cumsum(lengths_W + (lengths_W > 0)) - (lengths_W > 0)
    # the space before a word is the word's: some tokenizers have a token of its own for it, the word's first
    token_W = np.searchsorted(offsets_T2[:, 1], ends_W - lengths_W - 1, side="right")
    begins_T1 = np.append(offsets_T2[:, 0], np.iinfo(np.int64).max)
    there = np.flatnonzero((begins_T1[token_W] < ends_W) & (lengths_W > 0) & (token_W < part.stop - part.start))
    tokens, firsts = np.unique(token_W[there], return_index=True)
    starts_W = np.full(len(words), -1)
    starts_W[there[firsts]] = part.start + tokens
    return starts_W


def span_tokens(part: slice, offsets_T2: np.ndarray, span: tuple[int, int]) -> tuple[int, int] | None:
    """First and last token (both in it) of the characters `span` of a text of which the tokens `part` are left; None where some were
    cut away, or none shows the span."""
    first = int(np.searchsorted(offsets_T2[:, 1], span[0], side="right"))
    last = int(np.searchsorted(offsets_T2[:, 0], span[1], side="left")) - 1
    return (part.start + first, part.start + last) if first <= last < part.stop - part.start else None


def pad_id(fast: Any, folder: Path) -> int:
    """The id that tokenizer_config.json names; else that of a usual name; else 0, which the attention mask hides."""
    names = ["[PAD]", "<pad>", "<|endoftext|>"]
    path = folder / "tokenizer_config.json"
    if path.is_file():
        named = json.loads(path.read_text(encoding="utf-8")).get("pad_token")
        names.insert(0, named["content"] if isinstance(named, dict) else named)
    return next((i for name in names if name and (i := fast.token_to_id(name)) is not None), 0)
