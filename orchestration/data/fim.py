"""Fill in the middle (Bavarian et al., "Efficient Training of Language Models to Fill in the Middle", 2022): a text is cut at two
random characters and arranged prefix, suffix, middle (PSM), each behind its special token. Takes 64-bit keys; gives
parts and their order. Called by Tokenizer.entries; knows no tokenizer."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from orchestration.data.config import FimConfig
from orchestration.data.rng import mix, share
from orchestration.errors import UserError

ID_BYTES = 4


def sentinels(token_to_id: Callable[[str], int | None], config: FimConfig) -> tuple[bytes, bytes, bytes]:
    """int32 ids of the prefix, middle and suffix tokens, as bytes. Raises UserError for a token that the tokenizer lacks."""
    found = []
    for name in config.tokens:
        number = token_to_id(name)
        if number is None:
            raise UserError(
                f"data.tokenize.fim.tokens: the tokenizer has no token {name!r}; name its own tokens for prefix, middle and"
                " suffix, or train a tokenizer that has them"
            )
        found.append(array("i", [number]).tobytes())
    return found[0], found[1], found[2]


def draw(keys: Sequence[int] | None, row_E: np.ndarray, part_E: np.ndarray, rate: float) -> list[tuple[int, int]]:
    """(entry, its key) of the entries to arrange, `rate` of them all. Each entry's key comes of its row's key and its part.
    Raises ValueError without keys."""
    if keys is None:
        raise ValueError("fim draws from a key a text; keys is None")
    own = [mix(keys[row], part) for row, part in zip(row_E.tolist(), part_E.tolist(), strict=True)]
    return [(entry, key) for entry, key in enumerate(own) if share(mix(key, 0)) < rate]


def cut(text: str, key: int) -> tuple[str, str, str]:
    """Prefix, middle and suffix: two cuts, uniform over the len(text) + 1 places between characters; parts may be empty."""
    places = len(text) + 1
    first, second = sorted((mix(key, 1) % places, mix(key, 2) % places))
    return text[:first], text[first:second], text[second:]


def arrange(parts: tuple[bytes, bytes, bytes], marks: tuple[bytes, bytes, bytes], room: int) -> bytes:
    """Ids (as bytes) of prefix, middle, suffix in PSM order. `room` is in tokens, above 3. What does not fit is cut where the
    middle needs it least: the end of the suffix, then the start of the prefix, then the middle's end."""
    prefix, middle, suffix = parts
    spare = (room - len(marks)) * ID_BYTES
    middle = middle[:spare]
    spare -= len(middle)
    prefix = prefix[max(0, len(prefix) - spare) :]
    suffix = suffix[: spare - len(prefix)]
    return marks[0] + prefix + marks[2] + suffix + marks[1] + middle
