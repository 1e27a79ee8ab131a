"""What the peer scripts of `data` share: files, cleaning, shingles. Runs in the peers' environment; imports nothing of Eagleray."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any


def read(path: str) -> Any:
    with open(path, encoding="utf-8") as handle:
        return json.load(handle)


def write(path: str, value: Any) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(value, handle)


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")


def clean(text: str) -> str:
    """Unicode form NFC, line ends as newline, control characters and outer white space removed: the cleaning of all sides."""
    text = unicodedata.normalize("NFC", text)
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def stays(text: str) -> bool:
    return 1 <= len(text) <= 20_000


def shingles(text: str, size: int = 5) -> set[str]:
    """Runs of so many characters of the text in lower case with single spaces; a shorter text is one shingle."""
    folded = " ".join(text.lower().split())
    return {folded[start : start + size] for start in range(max(1, len(folded) - size + 1))}
