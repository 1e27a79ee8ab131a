"""The tagger: accuracy on documents it never saw, the same bytes for the same input, and what it says of a wrong
file."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration.data import catalog
from orchestration.data.augment import tagger as tagging
from orchestration.data.augment.tagger import Tagged, Tagger
from orchestration.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tenth document of the corpus, as its package has them."""
    folder = tmp_path_factory.mktemp("brown")
    documents: dict[str, list[str]] = {}
    for row in pq.read_table(catalog.local("catalog:brown")).to_pylist():
        pairs = zip(row["text"].split(" "), row["tags"].split(" "), strict=True)
        documents.setdefault(row["document"], []).append(" ".join(f"{word}/{tag}" for word, tag in pairs))
    for name in sorted(documents)[::10]:
        (folder / name).write_text("\n\n\t" + "\n\n\n\t".join(documents[name]), encoding="latin-1")
    (folder / "README").write_text("not a document", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def documents(folder: Path) -> list[list[Tagged]]:
    return [sentences for _, sentences in tagging.brown(folder)]


@pytest.fixture(scope="module")
def model(documents: list[list[Tagged]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on four in five of those documents: a thirteenth of the corpus or so."""
    path = tmp_path_factory.mktemp("model") / "tagger.json"
    path.write_bytes(tagging.train_bytes([s for at, document in enumerate(documents) if at % 5 for s in document]))
    return path


def test_nineteen_words_in_twenty_of_unseen_documents_get_their_tag(model: Path, documents: list[list[Tagged]]) -> None:
    tagger, right, total = Tagger.load(model), 0, 0
    for sentence in (s for document in documents[::5] for s in document):
        found = tagger.tag([word for word, _ in sentence])
        assert len(found) == len(sentence)
        right += sum(tag == want for tag, (_, want) in zip(found, sentence, strict=True))
        total += len(sentence)
    assert total > 15_000
    assert right / total >= 0.94  # 0.975 with nine tenths of the corpus


def test_the_same_sentences_give_the_same_bytes(documents: list[list[Tagged]]) -> None:
    few = documents[0]
    assert tagging.train_bytes(few) == tagging.train_bytes([list(sentence) for sentence in few])
    assert tagging.train_bytes(few) != tagging.train_bytes(few[:-40])


def test_contractions_of_the_corpus_are_split_as_the_text_is(tmp_path: Path) -> None:
    line = "He's/pps+bez sure/jj they/ppss don't/do* see/vb Ann's/np$ County/nn-tl ,/, can't/md* they/ppss ?/."
    (tmp_path / "ca01").write_text(line, encoding="latin-1")
    ((_, (sentence,)),) = tagging.brown(tmp_path)
    assert sentence == [
        ("He", "PPS"), ("'s", "BEZ"), ("sure", "JJ"), ("they", "PPSS"), ("do", "DO"), ("n't", "NOT"), ("see", "VB"),
        ("Ann", "NP"), ("'s", "POS"), ("County", "NP"), (",", ","), ("ca", "MD"), ("n't", "NOT"), ("they", "PPSS"),
        ("?", "."),
    ]  # fmt: skip
    text = "He's sure they don't see Ann's County, can't they?"
    assert [match.group() for match in tagging.TOKEN.finditer(text)] == [word for word, _ in sentence]


def test_the_trained_tagger_tells_noun_from_verb_and_past_from_participle() -> None:
    tagger = Tagger.load(catalog.local("catalog:english-tagger"))
    for wanted in (
        "They/PPSS plan/VB a/AT new/JJ park/NN ./.",
        "The/AT plan/NN has/HVZ failed/VBN ./.",
        "The/AT plan/NN failed/VBD ./.",
    ):
        words, tags = zip(*(pair.split("/") for pair in wanted.split(" ")), strict=True)
        assert tuple(tagger.tag(list(words))) == tags
    assert tagger.tag([]) == []
    assert [tagger.common(word) for word in ("Critics", "American", "Zyxwv")] == [True, False, None]


def test_tagging_is_fast_enough_to_read_a_corpus(model: Path, documents: list[list[Tagged]]) -> None:
    tagger = Tagger.load(model)
    sentences = [[word for word, _ in sentence] for sentence in documents[0]]
    best = min(_seconds(tagger, sentences) for _ in range(3))
    assert sum(map(len, sentences)) / best >= 10_000  # words a second on a busy machine; 50,000 on an idle one


def _seconds(tagger: Tagger, sentences: list[list[str]]) -> float:
    started = time.process_time()
    for sentence in sentences:
        tagger.tag(sentence)
    return time.process_time() - started


def test_the_model_is_small(model: Path) -> None:
    assert catalog.local("catalog:english-tagger").stat().st_size < 10_000_000
    assert sorted(json.loads(model.read_bytes())) == ["capital", "features", "likely", "steps", "tags"]


@pytest.mark.parametrize("content", [b"\x80\x04}q\x00.", b"[]", b'{"tags": ["NN"]}'])
def test_a_file_that_is_no_tagger_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.json").write_bytes(content)
    with pytest.raises(DataError, match=r"wrong\.json.*catalog:english-tagger"):
        Tagger.load(tmp_path / "wrong.json")


def test_a_folder_without_documents_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ca01"):
        tagging.train_from_brown(tmp_path)
