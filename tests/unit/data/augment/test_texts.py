"""Text ops over batches, on a small table and on the real corpora of the catalogue."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data.augment import Augmenter, augmenter, draws, runner, stage_ops
from orchestration.data.augment.batch import language, parse
from orchestration.data.augment.words import Vocabulary
from orchestration.data.config import AugmentConfig
from orchestration.storage import Storage

SETS = """film\tmovie\tmotion picture
effort\tattempt\ttry
huge\tvast
buy\tpurchase
take place\toccur
电影\t影片
喜欢\t喜爱
"""
ENGLISH = [
    "The film was not good, but the effort is huge.",
    'He said: "A huge film!" (and left)',
    "Good. Film is art; a film, a huge effort.  Two spaces\nand a line.",
    "one",
    " buy - a film",
    "",
    "   ",
    "buy buy buy",
    "@film #film film's e-film &film; film2 http://film.org/film",
    "THE FILM AND A HUGE EFFORT (OF ART)",
]
CHINESE = ["我喜欢这部电影，但是没有意思。", "电影很好！！ 我喜欢 film 和电影"]
LIST_OPS = ["synonyms", "insert", "delete", "swap"]


def row_id(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "sets.tsv"
    path.write_text(SETS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chinese_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "chinese.tsv"
    path.write_text("电影\t影片\n喜欢\t喜爱\n", encoding="utf-8")
    return path


@pytest.fixture
def make(tmp_path: Path, table: Path) -> Any:
    def build(*ops: dict[str, Any], seed: int = 1, **more: Any) -> Augmenter:
        for op in ops:
            if op["op"] in ("synonyms", "insert", "substitute"):
                op.setdefault("thesaurus", str(table))
        config = AugmentConfig.model_validate({"ops": list(ops), **more})
        storage = Storage(str(tmp_path / "storage"))
        tables = stage_ops(config, storage)
        return Augmenter(config, labels=["neg", "pos"], tables=tables, storage_url=storage.url, seed=seed)

    return build


def run(augmenter: Augmenter, texts: list[str], draw: int = 1, label: int = 0) -> list[str | None]:
    count = len(texts)
    return augmenter.texts(texts, [row_id(i) for i in range(count)], [label] * count, [draw] * count)


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE])
def test_an_unchanged_batch_is_the_same_text_again(texts: list[str]) -> None:
    kind = language(texts[0])
    assert parse(texts, kind, Vocabulary()).texts() == texts


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a film", "a movie"),
        ("Film!", "Movie!"),
        ("A HUGE FILM", "A VAST MOVIE"),
        ("the Film Academy", None),  # a name
        ("Good. Film is art.", "Good. Movie is art."),
        ("Good.  Film is art.", "Good.  Movie is art."),
        ("Good.\nFilm is art.", "Good.\nMovie is art."),
        ('He said "Film!"', 'He said "Movie!"'),
        ("an effort", "an attempt"),  # 'a try' would need another article
        ("@film #film film's e-film &film; film2", None),
        ("It will take place here", None),  # phrases only with unit: phrase
    ],
)
def test_words_change_in_their_own_case_and_with_their_marks(make: Any, before: str, after: str | None) -> None:
    augmenter = make({"op": "synonyms", "rate": 1.0})
    results = {run(augmenter, [before], draw)[0] for draw in range(20)}
    assert after in {
        text and text.replace("otion picture", "ovie").replace("OTION PICTURE", "OVIE") for text in results
    }
    assert after is not None or results == {None}


def test_phrases_are_replaced_as_one_and_by_phrases(make: Any) -> None:
    augmenter = make({"op": "synonyms", "rate": 1.0, "unit": "phrase"})
    assert run(augmenter, ["It will take place here."]) == ["It will occur here."]
    assert run(augmenter, ["They take, place."]) == [None]  # a mark divides it
    assert "a motion picture" in {run(augmenter, ["a film"], draw)[0] for draw in range(20)}


@pytest.mark.parametrize(
    "op", [{"op": op, "unit": unit, "rate": 0.4} for op in LIST_OPS for unit in ("word", "phrase")]
)
def test_a_row_becomes_the_same_text_alone_and_in_any_batch(make: Any, op: dict[str, Any], chinese_table: Path) -> None:
    texts = (ENGLISH + CHINESE) * 6
    ids, labels, copies = [row_id(i) for i in range(len(texts))], [0] * len(texts), [1, 2] * len(texts)
    rules = {"filter": {"tries": 4, "min_kept": 0.3}}
    augmenter = make(dict(op), {"op": "swap"}, **rules)
    together = augmenter.texts(texts, ids, labels, copies[: len(texts)])
    other = make(dict(op), {"op": "swap"}, **rules)
    for i in reversed(range(len(texts))):
        assert other.texts([texts[i]], [ids[i]], [0], [copies[i]]) == [together[i]]
    assert sum(text is not None for text in together) > 3


def test_forgetting_words_changes_no_text(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"a huge film number{i} and an effort to buy word{i}" for i in range(300)]
    ops = [{"op": "synonyms", "rate": 0.5}, {"op": "swap"}]
    expected = run(make(*ops), texts)
    monkeypatch.setattr(runner, "MAX_CHUNKS", 40)
    monkeypatch.setattr(augmenter, "BATCH_CHARS", 500)
    small = make(*ops)
    assert run(small, texts) == expected
    assert len(small._runner.words) < 200  # of 609


def test_ops_in_a_row_give_what_they_give_one_by_one(make: Any) -> None:
    """A changed batch is what reading its texts again would give: no op sees traces of the one before."""
    texts = [text for text in ENGLISH if text.strip()]
    both = make({"op": "synonyms", "rate": 0.5, "unit": "phrase"}, {"op": "delete", "rate": 0.3})
    keys = draws.mix(draws.row_keys(1, [row_id(i) for i in range(len(texts))], [1] * len(texts)), 0)
    runner = both._runner
    words = runner.words
    batch = runner.run(0, parse(texts, "en", words), draws.mix(keys, 0), None)
    again = parse(batch.texts(), "en", words)
    chained = runner.run(1, batch, draws.mix(keys, 1), None).texts()
    assert chained == runner.run(1, again, draws.mix(keys, 1), None).texts()
    assert run(both, texts) == [new if new != old else None for new, old in zip(chained, texts, strict=True)]


def test_a_copy_is_a_function_of_seed_row_and_draw(make: Any) -> None:
    text = "film effort buy huge " * 10
    first = make({"op": "swap"}).texts([text], [row_id(0)], [0], [1])
    assert make({"op": "swap"}).texts([text], [row_id(0)], [0], [1]) == first
    assert make({"op": "swap"}, seed=2).texts([text], [row_id(0)], [0], [1]) != first
    assert make({"op": "swap"}).texts([text], [row_id(1)], [0], [1]) != first
    assert make({"op": "swap"}).texts([text], [row_id(0)], [0], [2]) != first


def test_the_rate_of_synonyms_is_the_share_of_known_words_that_change(make: Any) -> None:
    changed = run(make({"op": "synonyms", "rate": 0.25}), [" ".join(["huge"] * 4000)])[0]
    assert abs(changed.split().count("vast") / 4000 - 0.25) < 0.03


def test_a_low_rate_still_changes_one_word_where_one_can_be(make: Any) -> None:
    augmenter = make({"op": "synonyms", "rate": 1e-9})
    results = [run(augmenter, ["huge buy huge buy"], draw)[0] for draw in range(60)]
    assert all(
        sum(a != b for a, b in zip(text.split(), ["huge", "buy", "huge", "buy"], strict=True)) == 1 for text in results
    )
    assert len(set(results)) == 4
    assert run(augmenter, ["nothing known"]) == [None]


def test_insert_puts_in_as_many_synonyms_as_eda_does(make: Any) -> None:
    augmenter = make({"op": "insert", "rate": 0.3})
    texts = ["nothing huge here " + "x " * length + "end" for length in range(30)]
    for text, new in zip(texts, run(augmenter, texts), strict=True):
        words = text.split()
        assert len(new.split()) - len(words) == max(1, int(0.3 * len(words)))
        assert Counter(new.split()) - Counter(words) == Counter({"vast": len(new.split()) - len(words)})


def test_insert_at_a_sentence_start_keeps_its_capital_and_quote(make: Any) -> None:
    augmenter = make({"op": "insert", "rate": 0.01})
    results = {run(augmenter, ['"The huge one"'], draw)[0] for draw in range(60)}
    assert results == {'"Vast the huge one"', '"The vast huge one"', '"The huge vast one"'}


def test_delete_takes_each_word_with_its_probability_and_leaves_one(make: Any) -> None:
    augmenter = make({"op": "delete", "rate": 0.3})
    texts = ["a b c d e f g h i j"] * 3000
    kept = np.mean([len((new or old).split()) for new, old in zip(run(augmenter, texts), texts, strict=True)])
    assert abs(kept / 10 - 0.7) < 0.01
    assert set(run(make({"op": "delete", "rate": 1.0}), ["a b"] * 50)) == {"a", "b"}
    assert run(make({"op": "delete", "rate": 1.0}), ["alone"]) == [None]


def test_marks_survive_the_words_that_carried_them(make: Any) -> None:
    augmenter = make({"op": "delete", "rate": 0.5})
    seen = {run(augmenter, ['It is (very "nice") good, bad!'], draw)[0] for draw in range(300)} - {None}
    for text in seen:
        assert text.count("(") == text.count(")")
        assert text.count('"') % 2 == 0
        assert text.endswith("!")
        assert "()" not in text
        assert ",!" not in text
        assert text.lstrip('("')[0].isupper()
    assert "It is good, bad!" in seen


def test_swap_keeps_the_words_and_the_places_of_marks(make: Any) -> None:
    text = "The film (of a huge effort) was good, they said."
    for draw in range(50):
        new = run(make({"op": "swap", "rate": 0.3}), [text], draw)[0]
        strip = str.maketrans("", "", "().,")
        assert Counter(new.lower().translate(strip).split()) == Counter(text.lower().translate(strip).split())
        assert [mark for mark in new if mark in "().,"] == list("(),.")
        assert new[0].isupper()


def test_swap_exchanges_as_many_pairs_as_eda_does(make: Any) -> None:
    """n swaps of distinct places: with n=1 exactly two places differ."""
    words = [f"w{i}" for i in range(19)]
    for text in run(make({"op": "swap", "rate": 0.1}), [" ".join(words)] * 200):
        assert sum(a != b for a, b in zip(text.split(), words, strict=True)) == 2


def test_phrases_swap_between_marks_and_keep_them(make: Any) -> None:
    augmenter = make({"op": "swap", "unit": "phrase", "rate": 0.01})
    results = {run(augmenter, ["We came, we saw - it won."], draw)[0] for draw in range(40)}
    assert results == {"We saw, we came - it won.", "We came, it won - we saw."}
    assert run(augmenter, ["no marks here"]) == [None]


def test_deleted_phrases_are_runs_of_two_to_four_words_between_marks(make: Any) -> None:
    text = "a1 a2 a3 a4 a5 a6, b1, c1 c2 c3"
    lengths: Counter[int] = Counter()
    for draw in range(400):
        new = run(make({"op": "delete", "unit": "phrase", "rate": 0.2}), [text], draw)[0]
        if new is not None:
            assert "b1" in new
            gone = [word for word in text.replace(",", "").split() if word not in new.replace(",", "").split()]
            lengths[len(gone)] += 1
    assert {2, 3, 4} <= set(lengths)
    assert 1 not in lengths


def test_skipped_labels_and_words_stay(make: Any) -> None:
    augmenter = make({"op": "swap", "skip": {"labels": ["pos"], "words": ["left", "左"]}})
    assert run(augmenter, ["a b c"], label=0) != [None]
    assert run(augmenter, ["a b c"], label=1) == [None]
    assert run(augmenter, ["a Left, c", "a lefty c"])[0] is None
    assert run(augmenter, ["x y", "a lefty c"])[1] is not None
    assert run(augmenter, ["我在左边喜欢电影"]) == [None]


def test_the_filter_never_lets_a_negation_come_or_go(make: Any) -> None:
    texts = ["I do not like it", "I don't like it never", "we like nothing here"] * 30
    for unfiltered in (run(make({"op": "delete", "rate": 0.4}), texts),):
        assert any(text and "not" not in text for text in unfiltered[::3])
    kept = run(make({"op": "delete", "rate": 0.4}, filter={"min_kept": 0.2, "grammar": False, "tries": 10}), texts)
    for old, new in zip(texts, kept, strict=True):
        if new is not None:
            assert [word for word in new.lower().split() if word in ("not", "don't", "never", "nothing")] == [
                word for word in old.split() if word in ("not", "don't", "never", "nothing")
            ]
    assert sum(new is not None for new in kept) > 60


def test_the_filter_keeps_a_share_of_the_words_and_the_grammar(make: Any) -> None:
    text = "the good film was a huge success in an old house of art"
    augmenter = make({"op": "delete", "rate": 0.5}, filter={"min_kept": 0.6, "tries": 20})
    for draw in range(60):
        new = run(augmenter, [text], draw)[0]
        if new is None:
            continue
        words = new.lower().split()
        assert len(words) >= 0.6 * len(text.split())
        assert not any(a == b for a, b in itertools.pairwise(words))
        for word, after in zip(words, [*words[1:], ""], strict=True):
            assert word not in ("a", "an", "the") or (after and after not in ("a", "an", "the"))
            assert word != "a" or after[0] not in "aeiou"


def test_pick_one_gives_each_op_its_share_of_the_copies(make: Any) -> None:
    augmenter = make({"op": "delete", "rate": 0.99}, {"op": "swap"}, pick="one")
    changed = run(augmenter, ["a b c d e f g h i j"] * 1000)
    swapped = sum(text is not None and len(text.split()) == 10 for text in changed)
    assert abs(swapped / 1000 - 0.5) < 0.06


def test_chinese_words_change_by_a_chinese_table_and_english_ones_stay(make: Any, chinese_table: Path) -> None:
    augmenter = make({"op": "synonyms", "rate": 1.0, "thesaurus": str(chinese_table)})
    assert run(augmenter, ["我喜欢这部电影，很好。"]) == ["我喜爱这部影片，很好。"]
    assert run(augmenter, ["I like the film"]) == [None]
    assert run(make({"op": "synonyms", "rate": 1.0}), ["这是一个很好的地方 film"]) == [None]


def test_a_text_with_the_mark_between_rows_is_left_alone(make: Any) -> None:
    assert run(make({"op": "swap"}), ["a \0 b", "a b"])[0] is None
