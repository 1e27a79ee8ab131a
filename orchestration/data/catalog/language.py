"""Thesauri, word lists and taggers of packages, in the files their readers want. Takes downloaded archives; fills a folder. Called
by the catalogue's fetch through its list; each function is the conversion of the entry it is named after."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

from orchestration.data.catalog.text import brown_documents
from orchestration.data.catalog.unpack import members, only


def wordnet(archives: list[Path], folder: Path) -> None:
    """The database files, as nltk's reader wants them: `data.noun` arrives in two halves, `cntlist.rev` (sense counts)
    is made from `index.sense`, and the lists of irregular forms, which the package lacks, stay empty."""
    where = "/text/en/wordnet/dict/"
    files = {name.partition(where)[2]: content for name, content in members(archives[0], lambda name: where in name)}
    halves = [files[f"data.noun{half}"].rstrip(b"\n") for half in (1, 2)]
    (folder / "data.noun").write_bytes(b"\n".join(halves) + b"\n")
    names = "data.adj data.adv data.verb index.adj index.adv index.noun index.verb index.sense lexnames LICENSE.txt"
    for name in names.split():
        (folder / name).write_bytes(files[name])
    counts = []
    for line in files["index.sense"].decode("utf-8").splitlines():
        key, _, number, count = line.split(" ")
        if count != "0":
            counts.append(f"{key} {number} {count}\n")
    (folder / "cntlist.rev").write_text("".join(counts), encoding="utf-8")
    for part in ("adj", "adv", "noun", "verb"):
        (folder / f"{part}.exc").write_bytes(b"")


def cilin(archives: list[Path], folder: Path) -> None:
    """A group of words a line, UTF-8: `Aa01A01= 人 士 人物`. A code that ends in = is of synonyms, # of related words, @ of one."""
    (folder / "cilin.txt").write_bytes(only(archives[0], "data/cilin_ex.txt"))


def nltk_data(archives: list[Path], folder: Path) -> None:
    """Plain text files under the paths that nltk looks for: `tokenizers/punkt_tab/LANGUAGE/*`, `corpora/stopwords/LANGUAGE`."""
    where = "llama_index/core/_static/nltk_cache/"
    parts = ("tokenizers/punkt_tab/", "corpora/stopwords/")
    for name, content in members(archives[0], lambda name: name.startswith(tuple(where + part for part in parts))):
        parent, _, file = name.removeprefix(where).rpartition("/")
        if ".." not in name.split("/"):
            (folder / parent).mkdir(parents=True, exist_ok=True)
            (folder / parent / file).write_bytes(content)


def english_tagger(archives: list[Path], folder: Path) -> None:
    """A tagger trained on the Brown corpus: one JSON file. About a minute on one core."""
    from orchestration.data.augment.tagger import train_from_brown

    with tempfile.TemporaryDirectory() as unpacked:
        for name, content in brown_documents(archives[0]):
            (Path(unpacked) / name).write_bytes(content)
        (folder / "english-tagger.json").write_bytes(train_from_brown(Path(unpacked)))


def tagger_version() -> int:
    """Changes with the code that trains the tagger, which is our own and so part of what the file is made from."""
    return zlib.crc32((Path(__file__).parents[1] / "augment" / "tagger.py").read_bytes())
