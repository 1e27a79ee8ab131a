"""Sets derived from others, on a few lines of the packages' own layout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import derived, links


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _rows(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*.parquet")
    return pq.read_table(path).to_pylist()


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    """Forty nouns in the layout of data.noun, each a kind of the one before; every tenth has a definition with a number in it."""
    lines = ["  1 a line of the licence"]
    for i in range(40):
        up = f" @ {i - 1:08} n 0000" if i else ""
        number = f"{i} " if i % 10 == 9 else ""
        lines.append(
            f"{i:08} 05 n 02 thing_{chr(97 + i % 26)}{chr(97 + i // 26)} 0 other 0 {int(bool(i)):03}{up}"
            f' | a {number}thing that comes after {"so " * (i % 7)}many things; "an example"  '
        )
    files = {
        f"p/text/en/wordnet/dict/data.noun{part + 1}": "\n".join(lines[part * 20 : part * 20 + 21]) for part in (0, 1)
    }
    return _tar(tmp_path / "wordnet.tar.gz", {name: content.encode() for name, content in files.items()})


def test_an_answer_stands_in_its_context_and_where_says_little(wordnet: Path, tmp_path: Path) -> None:
    derived.wordnet_questions([wordnet], tmp_path)
    rows = _rows(tmp_path)
    assert len(rows) == 2 * len({row["group"] for row in rows})
    for row in rows:
        assert row["context"][row["start"] :].startswith(row["answer"])
        assert len(row["context"].split(". ")) == derived.FACTS
        if row["answer"]:
            asked = row["question"].removeprefix("Which word is it: ").removeprefix("What is ").removesuffix("?")
            assert f"{asked} is {row['answer']}.".lower() in row["context"].lower() or (
                f"{row['answer']} is {asked}." in row["context"]
            )
    assert len({row["start"] for row in rows}) > 3


def test_each_kind_is_as_often_right_as_wrong(wordnet: Path, tmp_path: Path) -> None:
    derived.wordnet_kinds([wordnet], tmp_path)
    rows = _rows(tmp_path)
    assert len(rows) > 40
    assert [row["label"] for row in rows] == ["yes", "no"] * (len(rows) // 2)
    assert all(a["text"] == b["text"] and a["pair"] != b["pair"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert not any('"' in row["text"] or row["text"].count(".") > 1 for row in rows)


def test_a_word_is_spelled_and_its_first_sounds_are_kept(tmp_path: Path) -> None:
    held = 'export const dictionary = {\n  "\'em": "AH0 M",\n  "cab": "K AE1 B",\n  "read": "R EH1 D",\n  "read(2)": "R IY1 D"\n}\n'
    derived.pronunciations([_tar(tmp_path / "cmu.tgz", {"package/index.js": held.encode()})], tmp_path)
    assert _rows(tmp_path) == [
        {"word": "cab", "letters": "c a b", "sounds": "K AE B"},
        {"word": "read", "letters": "r e a d", "sounds": "R EH D"},
    ]


def test_letters_and_sounds_have_an_entry_each_and_come_back_as_they_were(tmp_path: Path) -> None:
    from orchestration.data.tokenize import Tokenizer

    held = 'export const dictionary = {\n  "cab": "K AE1 B",\n  "deed": "D IY1 D"\n}\n'
    derived.pronunciation_tokenizer([_tar(tmp_path / "cmu.tgz", {"package/index.js": held.encode()})], tmp_path)
    fast = Tokenizer(tmp_path, 8)
    assert fast.vocab_size == 3 + 5 + 5  # a b c d e; AE B D IY K
    (ids,) = fast.encode(["c a b"])
    assert ids[-1] == 1
    assert fast.library.decode(ids) == "c a b"
    assert fast.library.decode(fast.encode(["K AE B"])[0]) == "K AE B"


def test_sentences_that_follow_each_other_stand_in_one_row_alone(tmp_path: Path) -> None:
    text = "Call me by my own name. Some years ago I went to sea. Never mind. It was a damp November day.\nThen I went on board again. And so it all began."
    files = {
        "package/moby-dick/data/one.json": json.dumps({"text": text, "chapter": "1"}).encode(),
        "package/moby-dick/data/file_list.json": b'["one.txt"]',
        "package/other/data/two.json": b"{}",
    }
    derived.prose_pairs([_tar(tmp_path / "prose.tgz", files)], tmp_path)
    assert [(row["text"], row["pair"]) for row in _rows(tmp_path)] == [
        ("Call me by my own name.", "Some years ago I went to sea. Never mind."),
        ("It was a damp November day.", "Then I went on board again."),
    ]
    assert {row["document"] for row in _rows(tmp_path)} == {"moby-dick/one"}


def test_a_triple_has_one_direction_one_split_and_a_false_one_beside_it(wordnet: Path, tmp_path: Path) -> None:
    links.wordnet_facts([wordnet], tmp_path)
    facts = _rows(tmp_path)
    assert {(row["head"], row["relation"], row["tail"]) for row in facts} >= {("thing_ba", "hypernym", "thing_aa")}
    assert len(facts) == 39
    folder = tmp_path / "links"
    folder.mkdir()
    links.wordnet_links([wordnet], folder)
    of_split = {path.stem: pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")}
    for split, name in (("train", "facts"), ("validation", "facts-validation"), ("test", "facts-test")):
        alone = of_split.pop(name)
        assert [row["text"] for row in alone] == [row["text"] for row in of_split[split] if row["label"] == "true"]
    seen = [row["text"] for rows in of_split.values() for row in rows]
    assert len(set(seen)) == len(seen) == 78
    for split, rows in of_split.items():
        true = {row["text"] for row in rows if row["label"] == "true"}
        assert true == {
            " ".join(row[key] for key in ("head", "relation", "tail")).replace("_", " ")
            for row in facts
            if row["split"] == split
        }


def test_a_word_of_one_kind_is_asked_for_it(wordnet: Path, tmp_path: Path) -> None:
    links.wordnet_entities([wordnet], tmp_path)
    rows = _rows(tmp_path)
    assert 5 < len(rows) < 25  # a third of forty
    assert {row["kind"] for row in rows} == {"animal"}
    assert all(row["text"] == f"What kind of thing is {row['word']}?" for row in rows)
    assert all(row["word"].startswith("thing ") for row in rows)
