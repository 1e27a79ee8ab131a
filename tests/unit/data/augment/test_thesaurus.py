"""Tables of synonyms: the real WordNet, the form of Cilin, and tables of one's own. The table of WordNet is built once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.augment import Augmenter, stage_ops, thesaurus
from orchestration.data.augment.inflect import endings, inflect
from orchestration.data.augment.lexicon import replacements
from orchestration.data.catalog import local
from orchestration.data.config import AugmentConfig
from orchestration.errors import UserError
from orchestration.storage import Storage

GOLDEN = Path(__file__).parents[3] / "golden" / "synonyms.json"
CILIN = """Aa01A01= 人士 人物 人氏
Da18B06= 早餐 早饭
Ed03A01= 精彩 出色 不错
Ka01A01= 非常 十分
Bh07A14# 苹果 香蕉
Dk29D01= 电影 影片
Dk29D02= 影片 片子
Aa05E01@ 自己
"""
TABLE = {
    "film": ["n", ["movie", "motion picture"]],
    "buy": ["v", ["purchase"]],
    "take place": ["v", ["occur"]],
    "huge": ["a", ["vast"]],
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("storage")))


def augmenter(storage: Storage, **op: Any) -> Augmenter:
    config = AugmentConfig.model_validate({"ops": [op]})
    return Augmenter(config, labels=[], tables=stage_ops(config, storage), storage_url=storage.url, seed=1)


def change(found: Augmenter, text: str, draw: int = 1) -> str | None:
    return found.texts([text], [bytes(16)], [-1], [draw])[0]


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("film", ("movie", "motion picture")),
        ("films", ("movies", "motion pictures")),
        ("filmed", ()),  # of a noun only the plural
        ("buys", ("purchases",)),
        ("buying", ("purchasing",)),
        ("take place", ("occur",)),
        ("takes place", ("occurs",)),
        ("taking place", ("occurring",)),
        ("took place", ("occurred",)),
        ("taken place", ("occurred",)),
        ("huge", ("vast",)),
    ],
)
def test_synonyms_come_in_the_form_of_the_word(word: str, forms: tuple[str, ...]) -> None:
    assert replacements(word, TABLE) == forms


def test_wordnet_replaces_common_words_by_common_synonyms(storage: Storage) -> None:
    changed = change(
        augmenter(storage, op="synonyms", rate=1.0), "The movie was awful, but I want to buy two cars tonight."
    )
    words = changed.replace(",", "").rstrip(".").split()
    assert words[1] in ("film", "motion")
    assert "desire" in words
    assert "purchase" in words
    assert any(word in words for word in ("autos", "automobiles", "motorcars"))
    assert {"I", "but", "was"} <= set(words)  # grammar stays


def test_wordnet_replaces_phrases_in_their_form(storage: Storage) -> None:
    found = augmenter(storage, op="synonyms", rate=1.0, unit="phrase")
    results = {change(found, "It took place here.", draw) for draw in range(40)}
    assert "It happened here." in results
    assert "It occurred here." in results
    assert {change(found, "motion pictures", draw) for draw in range(20)} == {"films", "movies"}


def test_substitutes_are_of_the_same_field_of_meaning_and_form(storage: Storage) -> None:
    classes = thesaurus.load(storage.url, thesaurus.stage("catalog:wordnet", storage))["classes"]
    found = augmenter(storage, op="substitute", rate=0.01)
    for draw in range(40):
        changed = change(found, "dogs", draw)
        assert changed != "dogs"
        assert {base for base, ending in endings(changed) if ending == "s"} & set(classes["noun.animal"])


def test_words_that_turn_a_sentence_round_are_never_replaced(storage: Storage) -> None:
    text = "never not no nobody nothing hardly without few little less but like well very better"
    for op in ("synonyms", "substitute"):
        assert change(augmenter(storage, op=op, rate=1.0), text) is None


def test_a_staged_table_is_read_in_a_tenth_of_a_second(storage: Storage) -> None:
    rel = thesaurus.stage("catalog:wordnet", storage)
    times = []
    for _ in range(5):
        start = time.process_time()
        thesaurus.load.__wrapped__(storage.url, rel)
        times.append(time.process_time() - start)
    assert min(times) < 0.25  # of the processor: other work on the machine does not count; 0.03 to 0.05 on an idle one


def test_the_table_changes_only_with_its_version() -> None:
    """Built afresh, 10 s. If this fails, other synonyms than before come of the same WordNet: raise TABLE_VERSION, or caches and
    token stores of old tables would be taken for new ones, and put the digest into tests/golden/synonyms.json."""
    table = thesaurus.table_bytes(local("catalog:wordnet"))
    found = {"table_version": thesaurus.TABLE_VERSION, "sha256": hashlib.sha256(table).hexdigest()}
    assert json.loads(GOLDEN.read_text()) == found


def test_cilin_replaces_words_of_one_meaning_by_words_that_are_written(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "cilin.txt"
    path.write_text(CILIN, encoding="utf-8")
    words = thesaurus.build(path)["words"]
    assert words["早餐"] == ["", ["早饭"]]
    assert "电影" not in words  # its synonym has a second meaning
    assert "苹果" not in words  # related, no synonym
    assert "非常" not in words  # a word of grammar
    assert "不错" not in words["精彩"][1]  # negates by its form
    assert "人氏" not in words["人物"][1]  # rare
    found = augmenter(storage, op="synonyms", rate=1.0, thesaurus=str(path))
    assert change(found, "早餐很精彩。") == "早饭很出色。"
    assert change(found, "breakfast") is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("sets.tsv", "film\tmovie\nalone\n", r"sets\.tsv, line 2: 'alone' is one word"),
        ("cilin.txt", "Aa01A01= a b\nnonsense\n", r"cilin\.txt, line 2: 'nonsense' is no line of Cilin"),
    ],
)
def test_a_damaged_table_is_refused_by_line(
    storage: Storage, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        thesaurus.stage(str(tmp_path / name), storage)


def test_what_is_no_thesaurus_is_refused_by_name(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks data\.noun"):
        thesaurus.stage(str(tmp_path), storage)
    with pytest.raises(UserError, match="does not exist"):
        thesaurus.stage(str(tmp_path / "nothing.tsv"), storage)
    (tmp_path / "sets.tsv").write_text("a\tb\n", encoding="utf-8")
    with pytest.raises(UserError, match="part of speech"):
        thesaurus.stage(str(tmp_path / "sets.tsv"), storage, op="substitute")


@pytest.mark.parametrize(
    ("base", "ending", "form"),
    [
        ("stop", "ing", "stopping"),
        ("visit", "ed", "visited"),
        ("make", "ing", "making"),
        ("die", "ing", "dying"),
        ("agree", "ed", "agreed"),
        ("try", "ed", "tried"),
        ("try", "s", "tries"),
        ("box", "s", "boxes"),
        ("go", "ed", None),
        ("woman", "s", None),
        ("occur", "ing", "occurring"),
        ("program", "ing", None),  # doubles or not by a stress that spelling does not show
    ],
)
def test_regular_forms_are_made_and_irregular_ones_left(base: str, ending: str, form: str | None) -> None:
    assert inflect(base, ending) == form
    if form:
        assert (base, ending) in endings(form)
