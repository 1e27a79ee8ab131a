"""Quality rules of one text. Takes a clean text and the `data.clean.quality` part of the spec; gives the rule it breaks.
Called by `clean.refusal`. Knows nothing of rows, files or labels.

Rules in the manner of Gopher (Rae et al. 2021, appendix A) and C4 (Raffel et al. 2020). Words are what white space divides; in
scripts written without spaces (`clean.SPACELESS`) each character counts as a word, for the words of an average text there
are not much longer than one or two, and no rule needs to know where they end."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from orchestration.data.clean import SPACELESS
from orchestration.data.config import QualityConfig

_RANGES = "".join(f"{chr(low)}-{chr(high)}" for low, high in SPACELESS)
_SPACELESS = re.compile(f"[{_RANGES}]")
_WORD = re.compile(rf"[{_RANGES}]|[^\s{_RANGES}]+")
_PLAIN = bytes(code for code in range(128) if chr(code).isalnum() or chr(code).isspace())
_SYMBOL = re.compile(r"[^\w\s]|_")
_LETTER = re.compile(r"[^\W\d_]")
NGRAM, NGRAM_SPACELESS = 3, 6  # words; two characters a word


def words(text: str) -> list[str]:
    """White space divides words; a character of a script without spaces is one."""
    return text.split() if text.isascii() or not _SPACELESS.search(text) else _WORD.findall(text)


def refusal(text: str, config: QualityConfig) -> str | None:
    """The first rule that the text breaks, as a key path with its limit; None where it breaks none."""
    return next(_broken(text, config), None)


def _broken(text: str, config: QualityConfig) -> Iterator[str]:
    rule = "data.clean.quality."
    if symbol_ratio(text) > config.max_symbol_ratio:
        yield f"above {rule}max_symbol_ratio={config.max_symbol_ratio}"
    if repeated_lines(text) > config.max_repeated_lines:
        yield f"above {rule}max_repeated_lines={config.max_repeated_lines}"
    found = words(text)
    if alpha_words(found) < config.min_alpha_words:
        yield f"below {rule}min_alpha_words={config.min_alpha_words}"
    low, high = config.mean_word_chars
    if (mean := mean_word_chars(found)) is not None and not low <= mean <= high:
        yield f"outside {rule}mean_word_chars=[{low}, {high}]"
    if repeated_ngrams(found) > config.max_repeated_ngrams:
        yield f"above {rule}max_repeated_ngrams={config.max_repeated_ngrams}"


def symbol_ratio(text: str) -> float:
    """Share of characters that are neither letter, digit nor white space. Marks that belong to a letter are none."""
    if not text:
        return 0.0
    if text.isascii():
        return len(text.encode().translate(None, _PLAIN)) / len(text)
    symbols = _SYMBOL.findall(text)
    return sum(unicodedata.category(symbol)[0] != "M" for symbol in symbols) / len(text)


def alpha_words(found: list[str]) -> float:
    """Share of words with a letter."""
    return sum(word.isalpha() or _LETTER.search(word) is not None for word in found) / len(found) if found else 1.0


def repeated_lines(text: str) -> float:
    """Share of lines, empty ones aside, that occur before in the text."""
    if "\n" not in text:
        return 0.0
    lines = [line for part in text.split("\n") if (line := part.strip())]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def repeated_ngrams(found: list[str]) -> float:
    """Share of words inside n-grams that occur before in the text: of three words, or of six characters where most words
    are characters."""
    lone = sum(map(_is_spaceless, found))
    size = NGRAM_SPACELESS if lone > len(found) / 2 else NGRAM
    grams = list(zip(*(found[shift:] for shift in range(size)), strict=False))
    if len(set(grams)) == len(grams):
        return 0.0
    seen: set[tuple[str, ...]] = set()
    inside: set[int] = set()
    for at, gram in enumerate(grams):
        if gram in seen:
            inside.update(range(at, at + size))
        seen.add(gram)
    return len(inside) / len(found)


def mean_word_chars(found: list[str]) -> float | None:
    """Mean length of the words that white space divides; None where most are characters of a script without spaces."""
    spaced = [word for word in found if not _is_spaceless(word)]
    if not found or len(spaced) * 2 < len(found):
        return None
    return sum(map(len, spaced)) / len(spaced)


def _is_spaceless(word: str) -> bool:
    return len(word) == 1 and not word.isascii() and _SPACELESS.match(word) is not None
