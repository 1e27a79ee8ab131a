"""Numbers for words. Takes the pieces of texts between spaces; gives each distinct one a number, and what the ops must know of it
as arrays, so that a batch is worked on by numpy. Called by `batch` and `lexicon`. Numbers are private to a process and never reach
the output; draws do not depend on them.

A piece such as `"Film,` is a chunk: a core (`film`) in a form (opening marks `"`, closing marks `,`, a capital that belongs to the
place and not to the word). Ops move cores; forms stay, so brackets, quotes and sentences keep their marks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from orchestration.data.augment.chunker import Chunker
from orchestration.data.augment.inflect import KEPT

SENTENCE_END = ".!?:\"'“”‘’(\n。！？：…"
NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "nobody",
        "nothing",
        "nor",
        "neither",
        "nowhere",
        "cannot",
        "without",
        "hardly",
        "barely",
        "scarcely",
        "seldom",
        "rarely",
        "no-one",
        "non",
        "dont",
        "doesnt",
        "didnt",
        "isnt",
        "arent",
        "wasnt",
        "werent",
        "wont",
        "wouldnt",
        "cant",
        "couldnt",
        "shouldnt",
        "havent",
        "hasnt",
        "hadnt",
        "aint",
    ]
)
_NOT_CHINESE = re.compile("(?:[不没沒未勿莫毋]|别(?!人|墅|致|名)|(?<!是)非(?!常|洲)|无|無)")
_CHUNK = re.compile(
    r"""(?P<lead>["'“‘(\[{«<*_]*)(?P<core>.*?)(?P<trail>[.,!?;:…"'”’)\]}»>*_。，！？；：、]*)""", re.DOTALL
)
_ALWAYS_LOWER = frozenset(
    [
        "a",
        "an",
        "he",
        "she",
        "it",
        "we",
        "they",
        "my",
        "his",
        "no",
        "oh",
        "so",
        "if",
        "in",
        "on",
        "at",
        "by",
        "to",
        "of",
        "as",
        "or",
        "do",
        "be",
        "go",
    ]
)

_VOWELS, _ENDS = frozenset("aeiou"), frozenset(SENTENCE_END)

# Flags of a core.
WORD, TITLE, UPPER, AN, A, VOWEL, ENDS, NEGATES, SPACED, ARTICLE = (1 << bit for bit in range(10))
_ARTICLES = {"a": ARTICLE | A, "an": ARTICLE | AN, "the": ARTICLE}


class Column(list):  # type: ignore[type-arg]
    """A list that is an array too: `array` copies only what was appended since."""

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self._array = np.zeros(1024, dtype)
        self._copied = 0

    @property
    def array(self) -> np.ndarray:
        total = len(self)
        if total > self._copied:
            if total > len(self._array):
                self._array = np.concatenate([self._array, np.zeros(total, self._array.dtype)])
            self._array[self._copied : total] = self[self._copied :]
            self._copied = total
        return self._array[:total]

    def put(self, index: int, value: Any) -> None:
        self[index] = value
        self.array[index] = value


class Known(dict):  # type: ignore[type-arg]
    """A dictionary that makes what it is asked for, once."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> Any:
        self[key] = made = self._make(key)
        return made


class Vocabulary:
    """Chunks, cores and forms seen so far. Form 0 is bare; chunk 0 is the mark between rows."""

    MARK = "\0"

    def __init__(self, common: Callable[[str], bool] = KEPT.__contains__) -> None:
        """`common`: is this a word that loses its capital when it leaves the start of a sentence?"""
        self._common = common
        self.core_texts: list[str] = []
        self.flags = Column(np.uint16)
        self.form_texts: list[tuple[str, str, bool]] = []
        # Of a form: that of a word put before it (lead and capital), what remains, and what its marks mean.
        self.head, self.tail = Column(np.int32), Column(np.int32)
        self.opens, self.closes, self.begins, self.ends = (Column(np.bool_) for _ in range(4))
        self.pairing = Column(np.int64)
        self.chunk_texts = Column(np.object_)
        self.core_of, self.form_of = Column(np.int32), Column(np.int32)
        self.low_core_of, self.low_form_of = Column(np.int32), Column(np.int32)  # of a chunk that starts a sentence
        self.cores, self.forms, self.chunks = Known(self._core), Known(self._form), Known(self._chunk)
        self.shown: dict[int, str] = Known(lambda pair: self.render(pair >> 32, pair & 0xFFFFFFFF))
        self.parts: dict[int, list[int]] = Known(
            lambda core: [self.cores[part] for part in self.core_texts[core].split(" ")]
        )
        self.passed: dict[tuple[int, ...], tuple[int, int]] = {}  # see `marks`
        self.bare = self.forms[("", "", False)]
        self.mark = self.chunks[self.MARK]
        self.chunker = Chunker(self.chunks)

    def __len__(self) -> int:
        return len(self.chunk_texts)

    def render(self, core: int, form: int) -> str:
        lead, trail, capital = self.form_texts[form]
        text = self.core_texts[core]
        return f"{lead}{text[:1].upper() + text[1:] if capital else text}{trail}"

    # ---------------------------------------------------------------- numbering

    def _core(self, text: str) -> int:
        self.flags.append(core_flags(text))
        self.core_texts.append(text)
        return len(self.core_texts) - 1

    def _form(self, form: tuple[str, str, bool]) -> int:
        lead, trail, capital = form
        number = len(self.form_texts)
        self.form_texts.append(form)
        self.head.append(number if not trail else -1)
        self.tail.append(number if not lead and not capital else -1)
        self.opens.append(bool(lead))
        self.closes.append(bool(trail))
        self.begins.append(lead[-1:] in _ENDS)
        self.ends.append(trail[-1:] in _ENDS)
        self.pairing.append(_pairing(lead + trail))
        return number

    def heads(self, form_N: np.ndarray) -> np.ndarray:
        return self._derived(self.head, form_N, lambda lead, trail, capital: (lead, "", capital))

    def tails(self, form_N: np.ndarray) -> np.ndarray:
        return self._derived(self.tail, form_N, lambda lead, trail, capital: ("", trail, False))

    def around(self, head_N: np.ndarray, tail_N: np.ndarray) -> np.ndarray:
        """Forms with the opening marks and capital of one, the closing marks of another."""
        found = []
        for head, tail in zip(head_N.tolist(), tail_N.tolist(), strict=True):
            lead, _, capital = self.form_texts[head]
            found.append(self.forms[(lead, self.form_texts[tail][1], capital)])
        return np.array(found, np.int32)

    def _derived(self, column: Column, form_N: np.ndarray, derive: Callable[..., tuple[str, str, bool]]) -> np.ndarray:
        found_N = column.array[form_N]
        for form in set(form_N[found_N < 0].tolist()):
            number = self.forms[derive(*self.form_texts[form])]
            column.put(form, number)
        return column.array[form_N]

    def _chunk(self, text: str) -> int:
        lead, core_text, trail = split_chunk(text)
        low_core = core = self.cores[core_text]
        low_form = form = self.forms[(lead, trail, False)] if lead or trail else 0
        if self.flags[core] & TITLE:  # the capital stays with the place; a name keeps its own as well
            low_form = self.forms[(lead, trail, True)]
            lower = core_text.lower()
            if lower in _ALWAYS_LOWER or self._common(lower):
                low_core = self.cores[lower]
        self.chunk_texts.append(text)
        self.core_of.append(core)
        self.form_of.append(form)
        self.low_core_of.append(low_core)
        self.low_form_of.append(low_form)
        return len(self.chunk_texts) - 1


def core_flags(text: str) -> int:
    lower = text.lower()
    flags = _ARTICLES.get(lower, 0) | (VOWEL if lower[:1] in _VOWELS else 0)
    if text != lower:
        flags |= TITLE * (text[0].isupper() and text[1:] == lower[1:]) | UPPER * (len(text) > 1 and text.isupper())
    if text.isalnum() and text.isascii():
        return flags | WORD | (NEGATES if lower in NEGATIONS else 0)
    flags |= NEGATES if negates(lower) else 0
    flags |= (SPACED if " " in text else 0) | (WORD if any(map(str.isalnum, text)) else 0)
    return flags if flags & WORD or text[-1:] not in _ENDS else flags | ENDS


def split_chunk(text: str) -> tuple[str, str, str]:
    """Opening marks, core, closing marks. A chunk without letters or digits, a handle, a link or an entity is whole."""
    if text.isalnum():
        return "", text, ""
    found = _CHUNK.fullmatch(text)
    assert found is not None  # the pattern matches every text
    core = found["core"]
    if not any(map(str.isalnum, core)) or core.startswith(("&", "@", "#")) or "/" in core:
        return "", text, ""
    return found["lead"], core, found["trail"]


def negates(lower: str) -> bool:
    """Does this word, in lower case, turn a sentence round? English and Chinese."""
    if lower.isascii() or "’" in lower:
        return lower in NEGATIONS or lower.endswith(("n't", "n’t"))
    return bool(_NOT_CHINESE.search(lower))


_PAIRS = ("()", "[]", "{}", "“”", "«»")


def _pairing(marks: str) -> int:
    """A number of the brackets and quotes in marks; the sum over a row is the same where all are still there."""
    number = 0
    for pair in _PAIRS:
        number = number * 1024 + marks.count(pair[0]) - marks.count(pair[1])
    return number * 1024 + marks.count('"')
