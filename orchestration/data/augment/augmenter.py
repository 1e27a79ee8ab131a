"""Augmented copies of a training row. Takes a text, its row id, the copy's number and the `data.augment` ops; gives the
changed text. Called by `prepare` in workers. Every choice is a pure function of (seed, row id, copy, op, word position), so
a row's copies are the same whatever is read beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from orchestration.data import rng
from orchestration.data.augment import thesaurus as synonyms
from orchestration.data.config import AugmentConfig
from orchestration.data.augment.inflect import endings, inflect

Op = Callable[[str, int], str]  # text, key of (seed, row, copy, op) -> text

# Plain words only: no part of don't, well-made, @name, #tag, name@place, &amp; or a word with digits.
_WORD = re.compile(r"(?<![\w@#&'’./-])[A-Za-z]{3,}(?![\w@'’/-])")
_ONE_AT_LEAST = 1 << 40  # a counter that no word position reaches
_SENTENCE_END = ".!?:\"'“”‘’(\n"


def stage_ops(config: AugmentConfig | None, storage: Any) -> list[str]:
    """On the driver: put what the ops read into storage; one storage name an op."""
    return [synonyms.stage(op.thesaurus, storage) for op in config.ops] if config else []


def build_ops(config: AugmentConfig | None, tables: list[str], storage_url: str) -> list[Op]:
    """In a worker: the ops of the spec, ready to use. `tables` as `stage_ops` gave them."""
    ops = config.ops if config else []
    return [_synonyms_op(storage_url, rel, op.rate) for op, rel in zip(ops, tables, strict=True)]


def augment(text: str, ops: list[Op], *, seed: int, row_id: bytes, copy: int) -> str:
    """The text of augmented copy `copy` (from 1)."""
    for number, op in enumerate(ops):
        text = op(text, rng.key(seed, row_id, copy, number))
    return text


@lru_cache(maxsize=16)  # once a process: the word cache inside lives with it
def _synonyms_op(storage_url: str, rel: str, rate: float) -> Op:
    table = synonyms.load(storage_url, rel)
    known = lru_cache(maxsize=100_000)(lambda word: replacements(word, table))

    def op(text: str, key: int) -> str:
        return replace_words(text, key, rate, known)

    return op


def replace_words(text: str, key: int, rate: float, known: Callable[[str], tuple[str, ...]]) -> str:
    """Replace each word that `known` has synonyms for with probability `rate`, but one at least where there is one: a copy
    that changes nothing teaches nothing. Capitals stay as they were."""
    words = list(enumerate(_WORD.finditer(text)))
    struck = [word for word in words if rng.share(rng.mix(key, 2 * word[0])) < rate]
    changes = _changes(text, struck, key, known)
    if not changes:
        changes = _changes(text, words, key, known)
        if changes:
            changes = [changes[rng.mix(key, _ONE_AT_LEAST) % len(changes)]]
    parts: list[str] = []
    done = 0
    for start, end, chosen in changes:
        parts += [text[done:start], chosen]
        done = end
    return "".join([*parts, text[done:]])


def _changes(
    text: str, words: list[tuple[int, re.Match[str]]], key: int, known: Callable[[str], tuple[str, ...]]
) -> list[tuple[int, int, str]]:
    """(start, end, replacement) of those of the words that can be replaced."""
    found = []
    for position, match in words:
        options = known(match.group().lower())
        if options:
            before = text[: match.start()].rstrip(" ")
            chosen = _choose(match.group(), before, options, rng.mix(key, 2 * position + 1))
            if chosen:
                found.append((match.start(), match.end(), chosen))
    return found


def _choose(word: str, before: str, options: tuple[str, ...], number: int) -> str | None:
    """One synonym in the word's capitals; None for a name (a capital inside a sentence) or where none fits."""
    shouted = word.isupper()
    capital = word[0].isupper() and not shouted
    if not (word.islower() or shouted or word.istitle()) or (capital and before and before[-1] not in _SENTENCE_END):
        return None
    article = before.rpartition(" ")[2].lower()
    if article in ("a", "an"):  # keep the article right: an effort, an attempt
        options = tuple(option for option in options if (option[0] in "aeiou") == (article == "an"))
    if not options:
        return None
    chosen = options[number % len(options)]
    return chosen.upper() if shouted else chosen[0].upper() + chosen[1:] if capital else chosen


def replacements(word: str, table: dict[str, list[Any]]) -> tuple[str, ...]:
    """Synonyms of a lower-case word, in the word's own form: effort -> attempt, efforts -> attempts."""
    if word in table:
        return tuple(table[word][1])
    for base, ending in endings(word):
        pos, options = table.get(base, ("", []))
        if options and (pos == "v" or (pos == "n" and ending == "s")):
            return tuple(form for option in options if (form := _inflected(option, pos, ending)))
    return ()


def _inflected(phrase: str, pos: str, ending: str) -> str | None:
    """A verb phrase changes its first word (taking place), a noun phrase its last (motion pictures)."""
    words = phrase.split(" ")
    at = 0 if pos == "v" else -1
    form = inflect(words[at], ending)
    if form is None or (pos == "n" and " of " in phrase):
        return None
    words[at] = form
    return " ".join(words)
