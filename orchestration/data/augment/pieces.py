"""What a tokenizer's pieces are. Takes a folder with tokenizer.json; gives arrays over its vocabulary and where words start in rows of
ids. Called by `ids`. T tokens of all rows end to end, V pieces of the vocabulary."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.data.augment.batch import MIN_CJK_SHARE
from orchestration.errors import UserError

_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_BYTE_SPACE, _SPACE = "\u0120", "\u2581"  # how byte-level BPE and Unigram write a leading space
_APOSTROPHES, _ENDINGS = (
    ("'", "\u2019"),
    ("t", "s", "d", "m", "re", "ve", "ll"),
)  # don't, it's, he'd, I'm, we're, we've, we'll


class NeedsText(ValueError):
    """A spec or a tokenizer whose rows can only be changed as texts."""


class Pieces:
    def __init__(self, folder: Path) -> None:
        """Raises UserError where tokenizer.json is missing, NeedsText where its pieces do not show where a word starts."""
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                f"{path}: missing; a model folder needs tokenizer.json (transformers' fast tokenizer format)"
            )
        self._fast: Any = Tokenizer.from_file(str(path))
        self._fast.no_padding()
        self._fast.no_truncation()
        vocabulary: dict[str, int] = self._fast.get_vocab(with_added_tokens=True)
        pieces = [""] * (max(vocabulary.values()) + 1)
        for piece, number in vocabulary.items():
            pieces[number] = piece
        added = self._fast.get_added_tokens_decoder()
        self.special_V = np.zeros(len(pieces), bool)
        self.special_V[[number for number, token in added.items() if token.special]] = True
        self._space = _space(json.loads(path.read_text(encoding="utf-8")))
        if self._space is None:
            raise NeedsText(f"{path}: its pieces do not show where a word starts")
        inner = [not piece.startswith("##") if self._space == "" else piece.startswith(self._space) for piece in pieces]
        self.starts_V = np.array(inner)
        self.starts_V |= self.special_V
        texts = self._fast.decode_batch([[number] for number in range(len(pieces))], skip_special_tokens=False)
        self._has_letters_V = np.array([any(map(str.isalnum, text)) for text in texts]) & ~self.special_V
        self._chinese_V = np.array([bool(_CJK.search(text)) for text in texts])
        # Byte-level BPE writes the first word of a row without the space, unless it is set up to add one.
        self.first_differs = self._space == _BYTE_SPACE and self.encode("a", first=True) != self.encode(
            "a", first=False
        )
        if self._whole("a b") != self.encode("a", first=True) + self.encode("b", first=False):
            raise NeedsText(f"{path}: a word alone has other pieces than the same word behind another")
        self._apostrophe_V, self._ending_V = (np.isin(pieces, wanted) for wanted in (_APOSTROPHES, _ENDINGS))

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of one word; `first`: nothing stands before it."""
        return self._whole(text if first or self._space != _BYTE_SPACE else f" {text}")

    def _whole(self, text: str) -> list[int]:
        return self._fast.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """The text of one word."""
        text = self._fast.decode(ids, skip_special_tokens=False).strip()
        return text if self._space else text.replace(" ", "")  # WordPiece shows don ' t

    def chinese(self, values_T: np.ndarray, row_T: np.ndarray, rows: int) -> np.ndarray:
        """bool N: by the pieces that are known, since to many a vocabulary most of Chinese is not."""
        known_N = _count(row_T[~self.special_V[values_T]], rows)
        return _count(row_T[self._chinese_V[values_T]], rows) > MIN_CJK_SHARE * known_N

    def word_starts(self, values_T: np.ndarray, row_T: np.ndarray) -> np.ndarray:
        """Does a group start at this token? bool T. Marks at a word's end are groups of their own, as special tokens are."""
        starts_T = self.starts_V[values_T]
        starts_T[:1] = True
        starts_T[1:] |= (row_T[1:] != row_T[:-1]) | self.special_V[values_T[:-1]]
        if not self._space:
            return starts_T & ~self._contracted(values_T, row_T, starts_T)
        # film!" is film, !, " but don't stays whole: only what follows the last piece with letters is cut off.
        group_T = np.cumsum(starts_T) - 1
        places = np.arange(len(values_T))
        last_G = np.zeros(group_T[-1] + 1 if len(group_T) else 0, np.int64)
        lettered = self._has_letters_V[values_T]
        last_G[group_T[lettered]] = places[lettered]  # ascending, so the last one stays
        return starts_T | (places > last_G[group_T])

    def _contracted(self, values_T: np.ndarray, row_T: np.ndarray, starts_T: np.ndarray) -> np.ndarray:
        """Pieces that belong to the word before them: don ' t is a negation, and must neither lose its t nor go unseen. bool T."""
        marks = np.flatnonzero(self._apostrophe_V[values_T[1:-1]] & self._ending_V[values_T[2:]]) + 1
        marks = marks[self._has_letters_V[values_T[marks - 1]] & (row_T[marks - 1] == row_T[marks + 1])]
        follows = np.append(starts_T, True)[marks + 2]  # 'tis is no ending
        found_T = np.zeros(len(values_T), bool)
        found_T[marks[follows]] = found_T[marks[follows] + 1] = True
        return found_T


def _space(content: dict[str, Any]) -> str | None:
    """How a piece shows that a word starts; empty for WordPiece, where other pieces show that none does; None: it does not."""
    if content["model"].get("type") == "WordPiece":
        return ""
    parts = json.dumps([content.get("pre_tokenizer"), content.get("decoder"), content.get("normalizer")])
    return _BYTE_SPACE if "ByteLevel" in parts else _SPACE if "Metaspace" in parts or _SPACE in parts else None


def _count(row_T: np.ndarray, rows: int) -> np.ndarray:
    return np.bincount(row_T, minlength=rows)
