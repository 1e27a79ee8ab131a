"""Text -> token ids. Takes a model folder's tokenizer.json; gives lists of ids with the special tokens, truncated to
`max_length`. Called by `prepare` and by the endpoint: the same code trains and serves. Uses the `tokenizers` library
alone, since importing transformers costs a worker seconds; a test compares the ids with transformers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestration.errors import UserError

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")  # what the ids may depend on


class Tokenizer:
    """`pad_id` fills short rows of a batch; `truncated` counts the rows cut so far."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """Raises UserError where tokenizer.json is missing or cannot be read."""
        from tokenizers import Tokenizer as Fast

        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                f"{path}: missing; a model folder needs tokenizer.json (transformers' fast tokenizer format)"
            )
        try:
            self._fast: Any = Fast.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path}: not a tokenizer file: {error}") from None
        self._fast.no_padding()
        self._fast.enable_truncation(max_length)
        self.max_length = max_length
        self.vocab_size: int = self._fast.get_vocab_size(with_added_tokens=True)
        self.pad_id = _pad_id(self._fast, Path(folder))
        self.truncated = 0

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, special tokens counted in `max_length`."""
        encodings = self._fast.encode_batch_fast(texts)
        self.truncated += sum(1 for encoding in encodings if encoding.overflowing)
        return [encoding.ids for encoding in encodings]


def _pad_id(fast: Any, folder: Path) -> int:
    """The id that tokenizer_config.json names; else that of a usual name; else 0, which the attention mask hides."""
    names = ["[PAD]", "<pad>", "<|endoftext|>"]
    path = folder / "tokenizer_config.json"
    if path.is_file():
        named = json.loads(path.read_text(encoding="utf-8")).get("pad_token")
        names.insert(0, named["content"] if isinstance(named, dict) else named)
    return next((i for name in names if name and (i := fast.token_to_id(name)) is not None), 0)
