"""What an objective must know of a tokenizer. Takes a model folder; gives special token ids and, for each id, whether it goes on a
word. Reads JSON alone: neither transformers nor the tokenizers library. Shapes: V entries of the vocabulary."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.families import ModelError

USUAL = {
    "mask": ("[MASK]", "<mask>"),
    "pad": ("[PAD]", "<pad>", "<|endoftext|>"),
    "bos": ("<s>", "<|im_start|>", "<|endoftext|>", "[CLS]"),
    "eos": ("</s>", "<|im_end|>", "<|endoftext|>", "[SEP]"),
}


@dataclass(frozen=True)
class Vocabulary:
    """`special`: mask, pad, bos, eos -> id, where there is one. `special_ids`: of all special tokens. `continues_V`: the token goes on
    the word of the one before. `marks`: tokens that stand for a stretch that was taken out, <extra_id_0> and on; where there is none, those
    that BERT's vocabulary keeps free, [unused0] and on."""

    size: int
    special: dict[str, int]
    special_ids: np.ndarray
    continues_V: np.ndarray
    marks: np.ndarray

    def need(self, name: str, why: str) -> int:
        """Raises ModelError where the tokenizer has no such token."""
        if name not in self.special:
            raise ModelError(f"{why} needs a {name} token, and the tokenizer has none; choose one that has")
        return self.special[name]


def read(folder: Path) -> Vocabulary:
    """Raises ModelError naming the file where it is no tokenizer of the usual kinds."""
    path = Path(folder) / "tokenizer.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        pieces = _pieces(described["model"])
        added = described.get("added_tokens") or []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a tokenizer file ({error})") from None
    ids = {**pieces, **{token["content"]: token["id"] for token in added}}
    size = max(ids.values()) + 1
    special_ids = np.array(sorted(token["id"] for token in added if token.get("special")), np.int64)
    continues_V = np.zeros(size, bool)
    goes_on = _rule(described)
    for piece, number in pieces.items():
        continues_V[number] = goes_on(piece)
    continues_V[special_ids] = False
    return Vocabulary(size, _special(ids, Path(folder)), special_ids, continues_V, _marks(ids))


def _marks(ids: dict[str, int]) -> np.ndarray:
    for named in (re.compile(r"<extra_id_(\d+)>"), re.compile(r"\[unused(\d+)\]")):
        found = sorted((int(match[1]), number) for piece, number in ids.items() if (match := named.fullmatch(piece)))
        if found:
            return np.array([number for _, number in found], np.int64)
    return np.empty(0, np.int64)


def _pieces(model: dict[str, Any]) -> dict[str, int]:
    vocab = model["vocab"]
    return {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)


def _special(ids: dict[str, int], folder: Path) -> dict[str, int]:
    """tokenizer_config.json's own names first."""
    path, named = folder / "tokenizer_config.json", {}
    if path.is_file():
        named = json.loads(path.read_text(encoding="utf-8"))
    found = {}
    for name, usual in USUAL.items():
        own = named.get(f"{name}_token")
        own = own["content"] if isinstance(own, dict) else own
        number = next((ids[token] for token in (own, *usual) if token in ids), None)
        if number is not None:
            found[name] = number
    return found


def _rule(described: dict[str, Any]) -> Any:
    """WordPiece marks what goes on a word; byte-level BPE and Unigram mark what begins one."""
    model = described["model"]
    prefix = model.get("continuing_subword_prefix")
    if prefix:
        return lambda piece: piece.startswith(prefix)
    kind = json.dumps(described.get("pre_tokenizer")) + json.dumps(described.get("decoder"))
    begins = "Ġ" if "ByteLevel" in kind else "▁" if "Metaspace" in kind or model.get("type") == "Unigram" else None
    if begins is None:
        return lambda piece: False
    # A punctuation mark without the mark of a beginning is a word of its own.
    return lambda piece: not piece.startswith((begins, "Ċ")) and any(letter.isalnum() for letter in piece)
