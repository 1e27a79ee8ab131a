"""Cleaning of one text. Takes text and the `data.clean` part of the spec; gives the text as it is stored, and a reason
where a row must go. Called by `prepare` for each row and by the endpoint for each request: the same code trains and
serves (a request is cleaned, never refused). What a spec does not ask for is not imported. Knows nothing of rows, files or
labels."""

from __future__ import annotations

import re
import unicodedata

from orchestration.data.config import CleanConfig

# C0 and C1 control characters except tab and newline, and the byte order mark: invisible, tokenizers differ on them. Lone
# surrogates (half of a pair, from broken JSON escapes): no encoding can write them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")

# Scripts written without spaces between words: Thai and Lao, Tibetan, Myanmar, Khmer, kana, Chinese characters.
SPACELESS = (
    (0x0E00, 0x0EFF),
    (0x0F00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def clean_text(text: str, config: CleanConfig) -> str:
    """Markup and boilerplate removed where the spec says so; Unicode form as configured, line ends as newline, control
    characters and outer white space removed."""
    if config.markup and ("<" in text or "&" in text):
        from orchestration.data.markup import without_markup

        text = without_markup(text)
    if text.isascii() and text.isprintable():
        text = text.strip()  # nine rows in ten of English text: every Unicode form is the same
    else:
        if config.normalize != "none":
            text = unicodedata.normalize(config.normalize, text)
        text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if config.boilerplate:
        from orchestration.data.markup import without_boilerplate

        return without_boilerplate(text)
    return text


def refusal(text: str, config: CleanConfig) -> str | None:
    """Why a cleaned text is dropped, the same words for all rows of one rule; None where it stays. Cheap rules first."""
    if len(text) < config.min_chars:
        return f"shorter than data.clean.min_chars={config.min_chars}"
    if len(text) > config.max_chars:
        return f"longer than data.clean.max_chars={config.max_chars}"
    if config.min_words or config.quality or config.language:
        return _unfit(text, config)
    return None


def _unfit(text: str, config: CleanConfig) -> str | None:
    from orchestration.data import language, quality

    if config.min_words and len(quality.words(text)) < config.min_words:
        return f"fewer words than data.clean.min_words={config.min_words}"
    if config.quality and (broken := quality.refusal(text, config.quality)):
        return broken
    if config.language is None:
        return None
    code, probability = language.language_of(text)
    if code not in config.language.keep:
        return f"not in data.clean.language.keep=[{', '.join(config.language.keep)}]"
    if probability < config.language.min_probability:
        return f"less sure than data.clean.language.min_probability={config.language.min_probability}"
    return None


def match_text(text: str) -> str:
    """The form in which texts are compared and hashed for splits: NFKC, casefolded, white space collapsed."""
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())
