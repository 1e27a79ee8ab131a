"""Tables of synonyms in storage. Takes what the spec names: `catalog:wordnet` or a folder of WordNet database files, `catalog:cilin` or a
file in its form, or a .tsv file with a set of synonyms a line; gives a sealed file in storage, made once, that every worker reads in
some 50 ms, where nltk's reader takes seconds and looks words up one by one. Called by `stage_ops` on the driver (`stage`) and by the
ops in workers (`load`).

A table is {language: en or zh, words: {word: [part of speech or "", [synonyms]]}, classes: {name: [words of one part of speech]}}.
The first letter of an English class is its part of speech."""

from __future__ import annotations

import fcntl
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestration.data.augment import cilin, wordnet
from orchestration.data.augment.batch import language
from orchestration.data.files import on_disk
from orchestration.errors import UserError
from orchestration.storage import Storage, cache_root, describe, digest

TABLE_VERSION = 2  # rises when another table comes of the same thesaurus


def stage(thesaurus: str, storage: Storage, *, op: str = "synonyms") -> str:
    """Put the table into storage, once. `thesaurus` may also be a folder in storage (`storage:REL`). Gives the sealed folder's name.

    Raises UserError where it is none of the known forms, or where `op` needs parts of speech that a .tsv file does not have.
    """
    source = _source(thesaurus, storage)
    if op == "substitute" and source.suffix == ".tsv":
        raise UserError(
            f"data.augment: {source} does not say which part of speech its words are, which substitute needs; use"
            " catalog:wordnet or catalog:cilin, or the op synonyms"
        )
    names = wordnet.FILES if source.is_dir() else (source.name,)
    folder = source if source.is_dir() else source.parent
    mark = digest([TABLE_VERSION, source.suffix, [describe(folder / name)["sha256"] for name in names]])
    rel = f"inputs/synonyms-{mark}"
    if storage.manifest(rel) is None:
        aside = storage.staging()
        (aside / "table.json").write_bytes(_cached(source, mark))
        storage.commit(rel, aside, {"made_of": str(thesaurus), "version": TABLE_VERSION})
    return rel


def _source(thesaurus: str, storage: Storage) -> Path:
    """A folder of WordNet files, or one file."""
    found = on_disk(thesaurus, storage)
    if found.is_dir():
        files = [path for path in sorted(found.iterdir()) if path.suffix in (".tsv", ".txt")]
        if len(files) == 1 and not (found / wordnet.FILES[0]).exists():
            return files[0]
        if missing := [name for name in wordnet.FILES if not (found / name).is_file()]:
            raise UserError(
                f"data.augment: thesaurus {found} lacks {', '.join(missing)}; give a folder of WordNet 3.0 database files"
            )
    elif not found.is_file():
        raise UserError(
            f"data.augment: thesaurus {found} does not exist; give a folder of WordNet 3.0 database files, a .tsv file with a set"
            " of synonyms a line, or catalog:wordnet, catalog:cilin"
        )
    return found


def _cached(source: Path, mark: str) -> bytes:
    """The table's bytes from the machine's cache, built first where they are not there (WordNet: about 10 s)."""
    cache = Storage(str(cache_root() / "synonyms"))
    Path(cache.path()).mkdir(parents=True, exist_ok=True)
    with open(cache.path(f".{mark}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not cache.exists(f"{mark}.json"):
            cache.write(f"{mark}.json", table_bytes(source))
        return cache.read(f"{mark}.json")


def table_bytes(source: Path) -> bytes:
    return json.dumps(build(source), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def build(source: Path) -> dict[str, Any]:
    if source.is_dir():
        return {"language": "en", **wordnet.build(source)}
    lines = _lines(source)
    if source.suffix == ".tsv":
        return _sets([line.split("\t") for line in lines if line.strip()], source)
    return {"language": "zh", **cilin.build(lines, source)}


def _lines(source: Path) -> list[str]:
    try:
        return source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.augment: thesaurus {source} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None


def _sets(sets: list[list[str]], source: Path) -> dict[str, Any]:
    """A user's own sets are taken as they are: a word in several has the synonyms of all."""
    words: dict[str, set[str]] = {}
    for number, found in enumerate(sets, start=1):
        members = [word.strip() for word in found if word.strip()]
        if len(members) < 2:
            raise UserError(
                f"data.augment: thesaurus {source}, line {number}: {found[0][:60]!r} is one word; a line is a set of synonyms"
                " with tabs between"
            )
        for word in members:
            words.setdefault(word.lower(), set()).update(member for member in members if member != word)
    return {
        "language": language("".join(words)),
        "words": {word: ["", sorted(found)] for word, found in sorted(words.items())},
        "classes": {},
    }


@lru_cache(maxsize=4)
def load(storage_url: str, rel: str) -> dict[str, Any]:
    """The staged table, read once a process."""
    return json.loads(Storage(storage_url).read(f"{rel}/table.json"))
