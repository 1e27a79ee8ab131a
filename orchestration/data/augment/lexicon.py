"""What a thesaurus offers for each word of a vocabulary. Takes a table (see `thesaurus`); gives, for arrays of cores, where their
synonyms or their substitutes lie in one array of cores. Called by the ops. Each distinct word is looked up once a process.

Words change in their own form (efforts -> attempts, took place -> occurred) and in their own case."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from orchestration.data.augment.batch import Batch
from orchestration.data.augment.inflect import IRREGULAR_PAST, KEPT, endings, inflect
from orchestration.data.augment.verbs import conjugate
from orchestration.data.augment.words import AN, SPACED, UPPER, VOWEL, WORD, A, Column, Vocabulary

MAX_PHRASE = 3  # words
_ENDING_LETTERS = frozenset("sdg")  # of -s, -ed, -ing


class Options:
    """Core -> a range of cores: those that start with a consonant, then those with a vowel, so that an article keeps its form."""

    def __init__(self, words: Vocabulary, find: Callable[[int], tuple[int, int, int]]) -> None:
        self._words, self._find = words, find
        self._range_K3 = np.full((0, 3), -1, np.int32)  # first, first with a vowel, end; -1: not looked up

    def exists(self, core_T: np.ndarray) -> np.ndarray:
        """bool T."""
        cores = len(self._words.core_texts)
        if cores > len(self._range_K3):
            more = np.full((cores * 2 - len(self._range_K3), 3), -1, np.int32)
            self._range_K3 = np.concatenate([self._range_K3, more])
        end_T = self._range_K3[:, 2][core_T]
        unknown = np.flatnonzero(end_T < 0)
        if len(unknown):
            new = list(set(core_T[unknown].tolist()))
            self._range_K3[new] = [self._find(core) for core in new]
            end_T = self._range_K3[:, 2][core_T]
        return end_T > 0

    def ranges(self, core_C: np.ndarray) -> np.ndarray:
        """(C, 3); `exists` must hold for each."""
        return self._range_K3[core_C]


class Lexicon:
    """A table and a vocabulary. `phrases`: are lemmas of several words replaced too?"""

    def __init__(self, table: dict[str, Any], words: Vocabulary, *, phrases: bool) -> None:
        self.language: str = table["language"]
        self._table: dict[str, list[Any]] = table["words"]
        self._classes: dict[str, list[str]] = table["classes"]
        self._words, self._phrases = words, phrases
        self._column = Column(np.int32)
        self._column.append(0)  # no range may end at 0, which means none
        self._pools: dict[tuple[str, str, bool], tuple[int, int, int]] = {}
        self.synonyms = Options(words, self._synonyms_of)
        self.substitutes = Options(words, self._substitutes_of)

    @property
    def cores(self) -> np.ndarray:
        """What the ranges point into."""
        return self._column.array

    def fitting(self, options: Options, batch: Batch, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and end (int64 C) of the options that fit the article before each slot."""
        range_C3 = options.ranges(batch.core_T[slots]).astype(np.int64)
        first_C, middle_C, end_C = range_C3.T
        before = slots - 1
        flags_C = np.where(batch.joined()[slots], self._words.flags.array[batch.core_T[before]], 0)
        return np.where(flags_C & AN, middle_C, first_C), np.where(flags_C & A, middle_C, end_C)

    # ---------------------------------------------------------------- one word

    def _synonyms_of(self, core: int) -> tuple[int, int, int]:
        return self._store(core, lambda lower: replacements(lower, self._table))

    def _substitutes_of(self, core: int) -> tuple[int, int, int]:
        """All words of the word's class and form; one pool serves them all."""
        found = self._plain(core)
        if found is None:
            return 0, 0, 0
        lower, upper = found
        bases = [(lower, "")] if lower in self._class_of else forms(lower) if may_be_form(lower, self._class_of) else []
        for base, ending in bases:
            name = self._class_of.get(base)
            if name is not None:
                pool = (name, ending, upper)
                if pool not in self._pools:
                    self._pools[pool] = self._append(self._pool(name, ending), upper)
                return self._pools[pool]
        return 0, 0, 0

    def _pool(self, name: str, ending: str) -> Iterator[str]:
        for word in self._classes[name]:
            form = inflect_phrase(word, name[0], ending) if ending else word
            if form and (self._phrases or " " not in form):
                yield form

    @cached_property
    def _class_of(self) -> dict[str, str]:
        return {word: name for name, members in self._classes.items() for word in members}

    def _plain(self, core: int) -> tuple[str, bool] | None:
        """(lower case, shouted?) of a core that may be replaced: neither a name nor in mixed case."""
        text, flags = self._words.core_texts[core], self._words.flags[core]
        if not flags & WORD or (flags & SPACED and not self._phrases):
            return None
        lower = text.lower()
        return (lower, bool(flags & UPPER)) if flags & UPPER or text == lower else None

    def _store(self, core: int, find: Callable[[str], tuple[str, ...]]) -> tuple[int, int, int]:
        found = self._plain(core)
        options = find(found[0]) if found else ()
        return self._append(options, found[1]) if found and options else (0, 0, 0)

    def _append(self, options: Any, upper: bool) -> tuple[int, int, int]:
        options = [option.upper() if upper else option for option in options]
        cores = [self._words.cores[option] for option in options]
        vowels = [core for core in cores if self._words.flags[core] & VOWEL]
        consonants = [core for core in cores if not self._words.flags[core] & VOWEL]
        first = len(self._column)
        for core in consonants + vowels:
            self._column.append(core)
        return first, first + len(consonants), len(self._column)

    # ---------------------------------------------------------------- phrases

    @cached_property
    def _phrase_ends(self) -> tuple[set[str], set[str]]:
        """Words that a phrase of the table may start with, and those that may come next."""
        if self.language == "zh":
            cuts = [(word[:at], word[at:]) for word in self._table if len(word) > 2 for at in range(1, len(word))]
            return {head for head, _ in cuts}, {tail for _, tail in cuts}
        split = [phrase.split(" ") for phrase in self._table if " " in phrase]
        return {parts[0] for parts in split}, {parts[1] for parts in split}

    def known_phrase(self, text: str) -> bool:
        return bool(replacements(text, self._table)) or text in self._class_of

    def may_start(self, core: int) -> bool:
        text = self._words.core_texts[core].lower()
        return any(
            base in self._phrase_ends[0] for base in (text, *(base for base, _ in [*irregular(text), *forms(text)]))
        )

    def may_follow(self, core: int) -> bool:
        text = self._words.core_texts[core].lower()
        return any(base in self._phrase_ends[1] for base in (text, *(base for base, _ in forms(text))))


def forms(word: str) -> list[tuple[str, str]]:
    """(base, ending) that a word or phrase may be a form of; of a phrase the first word or the last may be inflected."""
    if word[-1:] not in _ENDING_LETTERS and " " not in word:
        return []
    if " " not in word:
        return endings(word)
    head, _, rest = word.partition(" ")
    front, _, last = word.rpartition(" ")
    found = [(f"{base} {rest}", ending) for base, ending in [*irregular(head), *endings(head)]]
    return found + [(f"{front} {base}", ending) for base, ending in endings(last) if ending == "s"]


@lru_cache(maxsize=1)
def _irregular_bases() -> dict[str, str]:
    verbs = {base: conjugate(base) for base in sorted(IRREGULAR_PAST)}
    return {form: base for base, verb in verbs.items() for form in (verb.past, verb.participle) if form != base}


def irregular(form: str) -> list[tuple[str, str]]:
    """took, taken -> take, ed. Past and participle alike, since only regular verbs replace them."""
    base = _irregular_bases().get(form)
    return [(base, "ed")] if base else []


def replacements(word: str, table: dict[str, list[Any]]) -> tuple[str, ...]:
    """Synonyms of a lower-case word or phrase, in its own form: effort -> attempt, efforts -> attempts."""
    if word in table:
        return tuple(table[word][1])
    if not may_be_form(word, table) or word in KEPT:
        return ()
    for base, ending in forms(word):
        pos, options = table.get(base, ("", []))
        if options and (pos == "v" or (pos == "n" and ending == "s")):
            return tuple(form for option in options if (form := inflect_phrase(option, pos, ending)))
    return ()


def may_be_form(word: str, known: Container[str]) -> bool:
    """Can `word` be a form of a known word or phrase? Quick: most words are not, and the exact answer takes ten times as long."""
    last = word[-1:]
    if " " in word:
        return True
    if last == "s":
        return word[:-1] in known or word[:-2] in known or word[:-3] + "y" in known
    if last == "d":
        return word[:-1] in known or word[:-2] in known or word[:-3] in known or word[:-3] + "y" in known
    if last == "g":
        stem = word[:-3]
        return stem in known or stem + "e" in known or stem[:-1] in known or stem[:-1] + "ie" in known
    return False


def inflect_phrase(phrase: str, pos: str, ending: str) -> str | None:
    """A verb phrase changes its first word (taking place), a noun phrase its last (motion pictures)."""
    if pos not in ("n", "v") or (pos == "n" and (ending != "s" or " of " in phrase)):
        return None
    words = phrase.split(" ")
    at = 0 if pos == "v" else -1
    form = inflect(words[at], ending)
    if form is None:
        return None
    words[at] = form
    return " ".join(words)
