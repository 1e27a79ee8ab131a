"""A table of safe synonyms, made once from a folder of WordNet database files. Takes the folder; gives a sealed file in
storage that every worker reads in some 50 ms, where nltk's reader takes seconds and looks words up one by one. Called by
`prepare` on the driver (`stage`) and by `augment` in workers (`load`).

Safe means: a word is replaced only where one meaning makes up most of its use (by WordNet's counts of tagged text), only by
members of that meaning's synset that are themselves often meant so, and never where it negates, compares or glues a
sentence."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestration.data.augment.inflect import KEPT, endings
from orchestration.errors import UserError
from orchestration.storage import Storage, cache_root, describe, digest

TABLE_VERSION = 1  # rises when `build` gives another table
MIN_SENSE_SHARE = 0.6  # of the word's use, for the meaning that is replaced
MIN_SYNONYM_SHARE = 0.3  # of the synonym's use, for the same meaning
MAX_WORDS = 3  # of a synonym
MIN_CHARS = 3  # of a word and of a synonym

_ROMAN = re.compile(r"[ivxlc]+")
_WORD = re.compile(r"[a-z]+(_[a-z]+)*")
_FILES = ("data.noun", "data.verb", "data.adj", "data.adv", "index.sense", "cntlist.rev", "lexnames")


def stage(thesaurus: str, storage: Storage) -> str:
    """Put the table of `catalog:wordnet`, a folder or a folder in storage (`storage:REL`) into storage, once. Gives the sealed folder's name.

    Raises UserError where database files are missing.
    """
    from orchestration.data import catalog

    if thesaurus.startswith(catalog.PREFIX):
        folder = catalog.local(thesaurus)
    elif thesaurus.startswith("storage:"):
        folder = storage.fetch(thesaurus.removeprefix("storage:"))
    else:
        folder = Path(thesaurus)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"data.augment: thesaurus {folder} lacks {', '.join(missing)}; give a folder of WordNet 3.0 database files"
        )
    mark = digest([TABLE_VERSION, {name: describe(folder / name)["sha256"] for name in _FILES}])
    rel = f"inputs/synonyms-{mark}"
    if storage.manifest(rel) is None:
        aside = storage.staging()
        (aside / "table.json").write_bytes(_cached(folder, mark))
        storage.commit(rel, aside, {"made_of": str(thesaurus), "version": TABLE_VERSION})
    return rel


def _cached(folder: Path, mark: str) -> bytes:
    """The table's bytes from the machine's cache, built first where they are not there (about 10 s)."""
    cache = Storage(str(cache_root() / "synonyms"))
    Path(cache.path()).mkdir(parents=True, exist_ok=True)
    with open(cache.path(f".{mark}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not cache.exists(f"{mark}.json"):
            cache.write(f"{mark}.json", table_bytes(folder))
        return cache.read(f"{mark}.json")


def table_bytes(folder: Path) -> bytes:
    return json.dumps(build(folder), sort_keys=True, separators=(",", ":")).encode()


@lru_cache(maxsize=4)
def load(storage_url: str, rel: str) -> dict[str, list[Any]]:
    """The staged table, read once a process: word -> [part of speech, [synonyms]]; see `build`."""
    return json.loads(Storage(storage_url).read(f"{rel}/table.json"))


def build(folder: Path) -> dict[str, list[Any]]:
    """word -> [part of speech (n, v, a, r), synonyms], sorted. A word without synonyms is in the table only where it
    looks like an inflected form but has a meaning of its own (glasses), so that it is not taken for one."""
    senses, synsets = _read(folder)
    # One is added to each count: a word with many untagged meanings is ambiguous, not unused.
    totals = {word: sum(count + 1 for count in found.values()) for word, found in senses.items()}
    table: dict[str, list[Any]] = {}
    for word, found in senses.items():
        if "_" in word or len(word) < MIN_CHARS or not word.islower():
            continue
        synset, count = max(found.items(), key=lambda item: (item[1], -item[0]))
        pos, names = synsets[synset]
        inflected = any(base in senses for base, _ in endings(word))
        if inflected and (pos != "a" or count < 2):
            if count:
                table[word] = [pos, []]
            continue
        if word in KEPT or (count + 1) / totals[word] < MIN_SENSE_SHARE:
            continue
        # Where WordNet's tagged text has the word, a synonym must occur in it too: else week becomes hebdomad.
        fits = [
            name.replace("_", " ")
            for name in names
            if name != word
            and _fits(name)
            and senses[name][synset] >= min(count, 1)
            and (senses[name][synset] + 1) / totals[name] >= MIN_SYNONYM_SHARE
        ]
        if fits:
            table[word] = [pos, sorted(set(fits))]
    return dict(sorted(table.items()))


def _fits(name: str) -> bool:
    simple = _WORD.fullmatch(name) and not _ROMAN.fullmatch(name) and name not in KEPT
    return bool(simple) and len(name) >= MIN_CHARS and name.count("_") < MAX_WORDS


def _read(folder: Path) -> tuple[dict[str, dict[int, int]], dict[int, tuple[str, list[str]]]]:
    """Word -> {synset number: how often tagged}, and synset number -> (part of speech, lemma names), in file order."""
    counts = {key: int(count) for key, _, count in (line.split(" ") for line in _lines(folder / "cntlist.rev"))}
    senses: dict[str, dict[int, int]] = defaultdict(dict)
    synsets: dict[int, tuple[str, list[str]]] = {}
    with _reader(folder) as reader:
        for number, synset in enumerate(reader.all_synsets()):
            pos = "a" if synset.pos() == "s" else synset.pos()
            synsets[number] = (pos, [lemma.name() for lemma in synset.lemmas()])
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
