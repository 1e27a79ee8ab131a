"""Facts beside a row: triples of a knowledge base, in words, found by the entities that the row names. Takes the base and the
`data.knowledge` part of the spec; gives the numbers of the facts for a text, and their words. Called by `entries` in workers, and by
the package with the same base: a row is told the same in training and in the endpoint. Pure: the facts of a text depend on it alone.

An entity is named where its words stand in the text, the longest name first; no stems, no other spellings. Of the facts with a named
entity those come first that have both ends named, then those whose relation is named, then those of entities with fewer facts (a base
of all words says much of "kind" and little of "pylorus"), then those that share more words with the row."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestration.data.config.knowledge import PLAIN, KnowledgeConfig
from orchestration.data.files import on_disk
from orchestration.errors import DataError, UserError
from orchestration.storage import Storage, digest

BASE = "knowledge.json"  # in storage and in a package: [[head, relation, tail], ...]
WORD = re.compile("[\u3400-\u9fff\uf900-\ufaff]|[^\\W_\u3400-\u9fff\uf900-\ufaff]+")  # an ideograph is a word
ENDINGS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json"}

Triple = tuple[str, str, str]
Words = tuple[str, ...]


class Told(NamedTuple):
    texts: list[str]
    beside: dict[str, list[Any]]
    withheld: list[list[int]]  # numbers of facts a row


class Knowledge:
    """`triples`: in the order in which facts that fit equally well are told."""

    def __init__(self, triples: Sequence[Triple], config: KnowledgeConfig) -> None:
        self.config = config
        self.texts = [_told(triple, config.templates) for triple in triples]
        self._ends = [(_words(_spaced(head)), _words(_spaced(tail))) for head, _, tail in triples]
        self._relations = [_signs(relation, config.templates) for _, relation, _ in triples]
        self._facts: dict[Words, list[int]] = defaultdict(list)
        for number, ends in enumerate(self._ends):
            for end in set(ends) - {()}:
                self._facts[end].append(number)
        self._longest = max(map(len, self._facts), default=0)

    def about(self, text: str, answer: str = "") -> tuple[list[int], list[int]]:
        """Numbers of the facts for a text, `most` at most; and of those withheld from it, which it states or which join it to its answer.
        `answer`: what it teaches, where that is known."""
        words = _words(text)
        named, answers = self._named(words), self._named(_words(answer))
        said = f" {' '.join(words)} "
        found, withheld = {}, []
        for number in {number for name in named for number in self._facts[name]}:
            head, tail = self._ends[number]
            both = head in named and tail in named
            related = any(f" {' '.join(sign)} " in said for sign in self._relations[number])
            if (both and related) or (head in named and tail in answers) or (tail in named and head in answers):
                withheld.append(number)
                continue
            known = min(len(self._facts[end]) for end in (head, tail) if end in named)
            found[number] = (-both, -related, known, -len(set(words).intersection(head + tail)), number)
        return sorted(found, key=found.__getitem__)[: self.config.most], sorted(withheld)

    def tell(self, texts: list[str], beside: dict[str, list[Any]], answers: Sequence[str] | None = None) -> Told:
        """Rows with their facts: behind the text, of a pair behind the second one; and behind the target. `beside`: what `targets` reads."""
        pairs: Sequence[str] = beside.get("pair", [""] * len(texts))
        found = [self.about(f"{a} {b}", c) for a, b, c in zip(texts, pairs, answers or [""] * len(texts), strict=True)]
        places = {"input": "pair" if "pair" in beside else "text", "output": "target"}
        told: dict[str, list[Any]] = {"text": texts, **beside}
        for name in {places[part] for part in self.config.into} & told.keys():
            told[name] = [self.behind(text, facts) for text, (facts, _) in zip(told[name], found, strict=True)]
        return Told(told.pop("text"), told, [withheld for _, withheld in found])

    def behind(self, text: str, facts: Iterable[int]) -> str:
        """The text with the facts behind it."""
        return " ".join([text, *(f"{self.texts[number]}." for number in facts)])

    def _named(self, words: Words) -> set[Words]:
        found, at = set(), 0
        while at < len(words):
            sizes = range(min(self._longest, len(words) - at), 0, -1)
            size = next((size for size in sizes if words[at : at + size] in self._facts), 0)
            if size:
                found.add(words[at : at + size])
            at += size or 1
        return found


def known(config: KnowledgeConfig, storage: Storage) -> Knowledge:
    """Straight from where the spec says."""
    return Knowledge(read(on_disk(config.path, storage)), config)


def stage(config: KnowledgeConfig, storage: Storage) -> str:
    """Put the triples that may be told into storage, once; the sealed folder's name. Raises UserError and DataError."""
    triples = read(on_disk(config.path, storage))
    rel = f"inputs/knowledge-{digest(triples)}"
    if storage.manifest(rel) is None:
        aside = storage.staging()
        (aside / BASE).write_text(json.dumps(triples, ensure_ascii=False), encoding="utf-8")
        storage.commit(rel, aside, {"made_of": config.path})
    return rel


def read(path: Path) -> list[Triple]:
    """Distinct triples of a file, in its order. Raises UserError for a file that is not there or not known, DataError for other columns."""
    kind = ENDINGS.get(path.suffix)
    if kind is None or not path.is_file():
        raise UserError(
            f"data.knowledge.path={path}: give a file that ends in {', '.join(ENDINGS)}, or a graph of the catalogue"
        )
    import pyarrow.dataset as ds
    from pyarrow import ArrowInvalid, csv

    tabs = csv.ParseOptions(delimiter="\t")
    form: Any = ds.CsvFileFormat(parse_options=tabs) if path.suffix == ".tsv" else kind
    try:
        table = ds.dataset(path, format=form).to_table()
    except ArrowInvalid as error:
        raise DataError(f"{path}: cannot be read as {kind}: {error}") from None
    if lost := {"head", "relation", "tail"} - set(table.column_names):
        raise DataError(f"{path}: no column {sorted(lost)[0]!r}; a knowledge base has head, relation, tail")
    rows = [row for row in table.to_pylist() if row.get("split", "train") == "train"]
    triples = dict.fromkeys(tuple(str(row[key]) for key in ("head", "relation", "tail")) for row in rows)
    if not triples:
        raise DataError(f"{path}: no triple that may be told; of a base with a column `split` those called train are")
    return list(triples)  # type: ignore[arg-type]


def load(folder: Path, config: KnowledgeConfig) -> Knowledge:
    """Of a folder with BASE."""
    return Knowledge([tuple(triple) for triple in json.loads((folder / BASE).read_text(encoding="utf-8"))], config)


_held: dict[tuple[str, str], Knowledge] = {}  # the newest: a process prepares one store at a time


def staged(storage_url: str, rel: str, config: KnowledgeConfig) -> Knowledge:
    """What `stage` put into storage, read once a process."""
    key = (f"{storage_url}/{rel}", config.model_dump_json())
    if key not in _held:
        _held.clear()
        _held[key] = load(Storage(storage_url).fetch(rel), config)
    return _held[key]


def _told(triple: Triple, templates: dict[str, str]) -> str:
    head, relation, tail = triple
    text = templates.get(relation, PLAIN)
    return text.format(head=_spaced(head), relation=_spaced(relation), tail=_spaced(tail))


def _signs(relation: str, templates: dict[str, str]) -> list[Words]:
    """Words that say the relation: its name, and what its template has between head and tail."""
    between = re.split(r"\{head\}|\{tail\}", templates.get(relation, ""))[1:2]
    return [words for words in map(_words, [_spaced(relation), *between]) if words]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _words(text: str) -> Words:
    return tuple(WORD.findall(text.lower()))
