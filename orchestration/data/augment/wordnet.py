"""A table of safe English synonyms, made of a folder of WordNet database files. Takes the folder; gives words with their synonyms,
and classes of words of one part of speech and field of meaning. Called by `thesaurus`, on the driver, once a machine.

Safe means: a word is replaced only where one meaning makes up most of its use (by WordNet's counts of tagged text), only by
members of that meaning's synset that are themselves often meant so, and never where it negates, compares or glues a
sentence. Lemmas of several words (take place, motion picture) are words like the others."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.data.augment.inflect import KEPT, endings
from orchestration.data.augment.words import negates

MIN_SENSE_SHARE = 0.6  # of the word's use, for the meaning that is replaced
MIN_SYNONYM_SHARE = 0.3  # of the synonym's use, for the same meaning
MIN_CLASS_COUNT = 3  # uses in tagged text, for a word that stands in for others of its class
MAX_WORDS = 3  # of a lemma
MIN_CHARS = 3  # of a word and of a synonym

_ROMAN = re.compile(r"[ivxlc]+")
_WORD = re.compile(r"[a-z]+(_[a-z]+)*")
FILES = ("data.noun", "data.verb", "data.adj", "data.adv", "index.sense", "cntlist.rev", "lexnames")


@dataclass(frozen=True)
class _Synset:
    pos: str  # n, v, a, r
    field: str  # noun.animal, verb.motion ...: the lexicographers' file
    names: list[str]


def build(folder: Path) -> dict[str, Any]:
    """`words`: word -> [part of speech (n, v, a, r), synonyms], sorted. A word without synonyms is there only where it looks
    like an inflected form but has a meaning of its own (glasses), so that it is not taken for one. `classes`: field of meaning
    -> common words."""
    senses, synsets = _read(folder)
    # One is added to each count: a word with many untagged meanings is ambiguous, not unused.
    totals = {word: sum(count + 1 for count in found.values()) for word, found in senses.items()}
    table: dict[str, list[Any]] = {}
    classes: dict[str, list[str]] = defaultdict(list)
    for word, found in senses.items():
        if not _fits(word) and not (word.islower() and "_" not in word and len(word) >= MIN_CHARS):
            continue
        number, count = max(found.items(), key=lambda item: (item[1], -item[0]))
        synset = synsets[number]
        inflected = "_" not in word and any(base in senses for base, _ in endings(word))
        if inflected and (synset.pos != "a" or count < 2):
            if count:
                table[word] = [synset.pos, []]
            continue
        if word in KEPT or (count + 1) / totals[word] < MIN_SENSE_SHARE:
            continue
        shown = word.replace("_", " ")
        if _fits(word) and count >= MIN_CLASS_COUNT:
            classes[synset.field].append(shown)
        # Where WordNet's tagged text has the word, a synonym must occur in it too: else week becomes hebdomad.
        fits = [
            name.replace("_", " ")
            for name in synset.names
            if name != word
            and _fits(name)
            and senses[name][number] >= min(count, 1)
            and (senses[name][number] + 1) / totals[name] >= MIN_SYNONYM_SHARE
        ]
        if fits:
            table[shown] = [synset.pos, sorted(set(fits))]
    return {
        "words": dict(sorted(table.items())),
        "classes": {name: sorted(found) for name, found in sorted(classes.items())},
    }


def _fits(name: str) -> bool:
    simple = _WORD.fullmatch(name) and not _ROMAN.fullmatch(name) and name not in KEPT
    turns = any(negates(part) for part in name.split("_"))
    return bool(simple) and not turns and len(name) >= MIN_CHARS and name.count("_") < MAX_WORDS


def _read(folder: Path) -> tuple[dict[str, dict[int, int]], dict[int, _Synset]]:
    """Word -> {synset number: how often tagged}, and synset number -> synset, in file order."""
    counts = {key: int(count) for key, _, count in (line.split(" ") for line in _lines(folder / "cntlist.rev"))}
    senses: dict[str, dict[int, int]] = defaultdict(dict)
    synsets: dict[int, _Synset] = {}
    with _reader(folder) as reader:
        for number, synset in enumerate(reader.all_synsets()):
            pos = "a" if synset.pos() == "s" else synset.pos()
            synsets[number] = _Synset(pos, synset.lexname(), [lemma.name() for lemma in synset.lemmas()])
            for lemma in synset.lemmas():
                senses[lemma.name()][number] = counts.get(lemma.key(), 0)
    return dict(senses), synsets


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@contextlib.contextmanager
def _reader(folder: Path) -> Iterator[Any]:
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class English(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """The base class looks for a second WordNet, to map other languages; there is none."""

    nltk.data.path.insert(0, str(folder))  # nltk reads only below these folders
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "multilingual functions are not available"
            reader = English(str(folder), None)
        yield reader
    finally:
        nltk.data.path.remove(str(folder))
