"""Questions about the entities of graphs, as rows: is a triple true, what kind of thing is a word? Takes downloaded archives; fills a folder.
Called by the catalogue's fetch through its list; each function is the conversion of the entry it is named after.

Of link prediction a row is a triple in words. Beside each true one stands a false one of the same split: its tail (of every other triple its head) is another
one's that the relation has at that end, so that neither entity nor relation alone gives the answer away, and no split of the graph has
it; where a relation holds between nearly all of its ends none may be left. Splits are the graph's own; of a graph without, a hash of the triple's words, once relations that say another one backwards are gone: else
the answer to a question would stand in the training split, turned around."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestration.data.catalog import tables
from orchestration.data.catalog.unpack import TEXT_GROUP_ROWS, write_rows

SPLITS = ("train", "validation", "test")
HELD = 20  # of so many triples without a split of their own one is for validation, one for the test
BACKWARDS = {
    *("hyponym", "instance_hyponym", "member_meronym", "substance_meronym", "part_meronym"),
    *("member_of_topic", "member_of_region", "member_of_usage"),
}
FIRST_KIND = 4
# Files of nouns in WordNet's database, from that number on.
KINDS = "act animal artifact attribute body cognition communication event feeling food group location motive object person phenomenon plant"
KINDS += " possession process quantity relation shape state substance time"
COLUMNS = dict.fromkeys(("text", "label", "head", "relation", "tail"), "string")

Triple = tuple[str, str, str]


def umls_links(archives: list[Path], folder: Path) -> None:
    """-> train, validation and test.parquet: text, label (true, false), head, relation, tail; facts.parquet, facts-validation.parquet and
    facts-test.parquet: text of the true ones."""
    _write(tables.umls_triples(archives[0]), folder)


def wordnet_links(archives: list[Path], folder: Path) -> None:
    """As `umls_links`, of the triples of `wordnet_facts`."""
    _write(_facts(archives[0]), folder)


def wordnet_facts(archives: list[Path], folder: Path) -> None:
    """WordNet's graph between words, each pair of opposite relations once -> head, relation, tail, split."""
    columns = dict.fromkeys(("head", "relation", "tail", "split"), "string")
    write_rows(folder / "wordnet-facts.parquet", columns, _facts(archives[0]), TEXT_GROUP_ROWS)


def _facts(archive: Path) -> Iterator[tuple[str, str, str, str]]:
    """A set of synonyms is called by its first word, so two triples may become one; of a relation that goes both ways one direction stays."""
    kept: dict[Triple, None] = {}
    for head, relation, tail in sorted(tables.wordnet_triples(archive)):
        one, other = (name.rsplit(".", 2)[0].partition("(")[0] for name in (head, tail))
        if relation not in BACKWARDS and one != other and (other, relation, one) not in kept:
            kept[one, relation, other] = None
    for triple in kept:
        yield *triple, {0: "test", 1: "validation"}.get(_draw("split", *triple) % HELD, "train")


def _write(triples: Iterable[tuple[str, str, str, str]], folder: Path) -> None:
    every = list(triples)
    known = {triple[:3] for triple in every}
    ends: dict[tuple[str, int], list[str]] = {}
    for at in (0, 2):
        for relation in {triple[1] for triple in known}:
            ends[relation, at] = sorted({triple[at] for triple in known if triple[1] == relation})
    for split in SPLITS:
        facts = [(_row(triple[:3], "true")[0],) for triple in every if triple[3] == split]
        name = "facts" if split == "train" else f"facts-{split}"
        write_rows(folder / f"{name}.parquet", {"text": "string"}, facts, TEXT_GROUP_ROWS)
        rows = []
        for number, triple in enumerate(one[:3] for one in every if one[3] == split):
            rows.append(_row(triple, "true"))
            sides = (0, 2) if number % 2 else (2, 0)
            tries = (_wrong(triple, at, ends[triple[1], at], known) for at in sides)
            if wrong := next(filter(None, tries), None):
                known.add(wrong)  # no row comes twice
                rows.append(_row(wrong, "false"))
        write_rows(folder / f"{split}.parquet", COLUMNS, rows, TEXT_GROUP_ROWS)


def _wrong(triple: Triple, at: int, names: list[str], known: set[Triple]) -> Triple | None:
    """The triple with another end; None where each of them would be true."""
    start = _draw("wrong", *triple)
    for step in range(len(names)):
        name = names[(start + step) % len(names)]
        found = (name, *triple[1:]) if at == 0 else (*triple[:2], name)
        if found not in known and found[0] != found[2]:
            return found  # type: ignore[return-value]
    return None


def _row(triple: Triple, label: str) -> tuple[str, ...]:
    words = [name.replace("_", " ") for name in triple]
    return " ".join(words), label, *words


def _draw(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def wordnet_entities(archives: list[Path], folder: Path) -> None:
    """A third of the nouns that have one meaning, or meanings of one kind -> text (the question), word, kind (which of WordNet's files it is in).
    Those that a triple joins to the very word of their kind are left out: it would be the answer."""
    kinds: dict[str, set[int]] = {}
    for line in tables.wordnet_lines(archives[0]):
        _, file, part, _, word = line.split(" ", 5)[:5]
        if part == "n":
            kinds.setdefault(word, set()).add(int(file) - FIRST_KIND)
    names = KINDS.split()
    joined = {pair for head, _, tail, _ in _facts(archives[0]) for pair in ((head, tail), (tail, head))}
    rows = []
    for word, (kind, *others) in kinds.items():
        if not others and kind >= 0 and (word, names[kind]) not in joined and _draw("word", word) % 3 == 0:
            words = word.replace("_", " ")
            rows.append((f"What kind of thing is {words}?", words, names[kind]))
    columns = dict.fromkeys(("text", "word", "kind"), "string")
    write_rows(folder / "wordnet-entities.parquet", columns, rows, TEXT_GROUP_ROWS)
