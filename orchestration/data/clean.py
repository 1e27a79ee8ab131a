"""Cleaning of one text. Takes text and the `data.clean` part of the spec; gives the text as it is stored, and a reason
where a row must go. Called by `prepare` for each row and by the endpoint for each request: the same code trains and
serves. Knows nothing of rows, files or labels."""

from __future__ import annotations

import re
import unicodedata

from orchestration.data.config import CleanConfig

# C0 and C1 control characters except tab and newline, and the byte order mark: invisible, tokenizers differ on them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")


def clean_text(text: str, config: CleanConfig) -> str:
    """Unicode form as configured, line ends as newline, control characters and outer white space removed."""
    if text.isascii() and text.isprintable():
        return text.strip()  # nine rows in ten of English text: every Unicode form is the same
    if config.normalize != "none":
        text = unicodedata.normalize(config.normalize, text)
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def refusal(text: str, config: CleanConfig) -> str | None:
    """Why a cleaned text is dropped; None where it stays. Lengths are characters."""
    if len(text) < config.min_chars:
        return f"shorter than data.clean.min_chars={config.min_chars}"
    if len(text) > config.max_chars:
        return f"longer than data.clean.max_chars={config.max_chars}"
    return None


def match_text(text: str) -> str:
    """The form in which texts are compared and hashed for splits: NFKC, casefolded, white space collapsed."""
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())
