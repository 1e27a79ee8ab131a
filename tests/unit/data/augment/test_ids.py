"""Ids to ids, on the real MiniLM tokenizer (WordPiece) and on byte-level BPE trained here."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data.augment import Augmenter, stage_ops
from orchestration.data.augment.ids import IdAugmenter
from orchestration.data.augment.pieces import NeedsText, Pieces
from orchestration.data.catalog import local
from orchestration.data.config import AugmentConfig
from orchestration.storage import Storage

TEXTS = [
    "the film was not good , but the unbelievable effort is huge .",
    "good . film is art ; a film , a huge effort",
    "one",
    "",
    "a huge huge unimaginable internationalization of films and efforts",
    "buy buy buy",
] * 5


def row_ids(count: int) -> list[bytes]:
    return [hashlib.blake2b(str(i).encode(), digest_size=16).digest() for i in range(count)]


@pytest.fixture(scope="module")
def wordpiece() -> Path:
    return local("catalog:minilm")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = ["film", "movie", "effort", "attempt", "good", "huge", "vast", "he", "said", "and", "was", "art"]
    corpus = [f"{a} {b}! The {a}, don't {b}." for a in words for b in words]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    folder = tmp_path_factory.mktemp("bpe")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("storage")))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "sets.tsv"
    path.write_text("film\tmovie\nfilms\tmovies\neffort\tattempt\nhuge\tvast\nbuy\tpurchase\n", encoding="utf-8")
    return path


class Rows:
    """Texts as ids, and back."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        from tokenizers import Tokenizer

        self.fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.fast.no_padding()
        self.fast.no_truncation()
        found = [encoding.ids for encoding in self.fast.encode_batch(texts)]
        self.values = np.concatenate([np.array(ids, np.int32) for ids in found])
        self.offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in found])])

    def lists(self, values: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
        return [values[a:b].tolist() for a, b in itertools.pairwise(offsets)]

    def texts(self, values: np.ndarray, offsets: np.ndarray) -> list[str]:
        return self.fast.decode_batch(self.lists(values, offsets))


def build(
    folder: Path, table: Path, storage: Storage, *ops: dict[str, Any], max_length: int = 64, **more: Any
) -> IdAugmenter:
    ops = tuple({**op, "thesaurus": str(table)} if op["op"] in ("synonyms", "insert") else op for op in ops)
    config = AugmentConfig.model_validate({"ops": list(ops), **more})
    tables = stage_ops(config, storage)
    return IdAugmenter(
        config, folder, labels=["a", "b"], tables=tables, storage_url=storage.url, seed=1, max_length=max_length
    )


def run(augmenter: IdAugmenter, rows: Rows, draw: int = 1) -> tuple[np.ndarray, np.ndarray]:
    count = len(rows.offsets) - 1
    return augmenter.ids(rows.values, rows.offsets, row_ids(count), [0] * count, [draw] * count)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@pytest.mark.parametrize("op", ["synonyms", "insert", "delete", "swap"])
def test_a_row_becomes_the_same_ids_alone_and_in_any_batch(
    op: str, kind: str, request: pytest.FixtureRequest, table: Path, storage: Storage
) -> None:
    folder = request.getfixturevalue(kind)
    rows = Rows(folder, TEXTS)
    ops = ({"op": op, "rate": 0.4}, {"op": "swap"})
    values, offsets = run(build(folder, table, storage, *ops, filter={"tries": 3}), rows)
    alone = build(folder, table, storage, *ops, filter={"tries": 3})
    together, before = rows.lists(values, offsets), rows.lists(rows.values, rows.offsets)
    for i in reversed(range(len(TEXTS))):
        one = alone.ids(
            np.array(before[i], np.int32), np.array([0, len(before[i])]), [row_ids(len(TEXTS))[i]], [0], [1]
        )
        assert one[0].tolist() == together[i]
    assert sum(a != b for a, b in zip(together, before, strict=True)) > 6


@pytest.mark.parametrize("op", ["synonyms", "insert", "delete", "swap"])
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_ids_change_as_their_texts_do(
    op: str, kind: str, request: pytest.FixtureRequest, table: Path, storage: Storage
) -> None:
    """The same laws and draws: where ids show all that texts do, they become the very same text."""
    folder = request.getfixturevalue(kind)
    plain = [text.replace(" ,", "").replace(" .", "").replace(" ;", "") for text in TEXTS if text]
    rows = Rows(folder, plain)
    ids = build(folder, table, storage, {"op": op, "rate": 0.3})
    texts = Augmenter(ids._runner.config, labels=[], tables=ids._runner._tables, storage_url=storage.url, seed=1)
    for draw in range(5):
        by_text = texts.texts(plain, row_ids(len(plain)), [0] * len(plain), [draw] * len(plain))
        by_ids = rows.texts(*run(ids, rows, draw))
        for old, text, decoded in zip(plain, by_text, by_ids, strict=True):
            assert decoded == (text or old)


def test_special_tokens_stay_where_they_are(wordpiece: Path, table: Path, storage: Storage) -> None:
    rows = Rows(wordpiece, TEXTS)
    ops = [{"op": op, "rate": 0.5} for op in ("synonyms", "insert", "swap", "delete")]
    augmenter = build(wordpiece, table, storage, *ops)
    for draw in range(4):
        for ids in rows.lists(*run(augmenter, rows, draw)):
            assert ids[0] == 101
            assert ids[-1] == 102
            assert Counter(ids)[101] == Counter(ids)[102] == 1


def test_words_move_with_all_their_pieces(wordpiece: Path, table: Path, storage: Storage) -> None:
    text = "a huge unimaginable internationalization of films"
    rows = Rows(wordpiece, [text])
    assert len(rows.values) > 8  # words of several pieces
    augmenter = build(wordpiece, table, storage, {"op": "swap", "rate": 0.4})
    for draw in range(20):
        found = rows.texts(*run(augmenter, rows, draw))[0]
        assert sorted(found.split()) == sorted(text.split())


def test_the_first_word_of_byte_level_rows_has_no_space_and_others_have(
    bpe: Path, table: Path, storage: Storage
) -> None:
    rows = Rows(bpe, ["film and art was good"])
    seen = set()
    augmenter = build(bpe, table, storage, {"op": "swap"})
    for draw in range(20):
        ids = rows.lists(*run(augmenter, rows, draw))[0]
        text = rows.fast.decode(ids)
        assert ids == rows.fast.encode(text).ids
        seen.add(text)
    assert len(seen) > 5


def test_rows_stay_within_max_length_and_keep_their_last_special_token(
    wordpiece: Path, table: Path, storage: Storage
) -> None:
    rows = Rows(wordpiece, ["huge " * 30, "huge film"])
    values, offsets = run(build(wordpiece, table, storage, {"op": "insert", "rate": 0.9}, max_length=40), rows)
    assert np.diff(offsets).tolist() == [40, 5]
    assert values[39] == 102


def test_a_row_that_nothing_can_change_stays_as_it_is(wordpiece: Path, table: Path, storage: Storage) -> None:
    rows = Rows(wordpiece, ["nothing known here", "", "这是电影"])
    values, offsets = run(build(wordpiece, table, storage, {"op": "synonyms", "rate": 1.0}), rows)
    assert values.tolist() == rows.values.tolist()
    assert offsets.tolist() == rows.offsets.tolist()


def test_rows_without_tokens_stay_without(bpe: Path, table: Path, storage: Storage) -> None:
    augmenter = build(bpe, table, storage, {"op": "synonyms"}, {"op": "swap"})
    ids = Rows(bpe, ["film and art"]).values[1:-1]
    values, offsets = augmenter.ids(ids, np.array([0, 0, len(ids), len(ids)]), row_ids(3), [0] * 3, [1] * 3)
    assert np.diff(offsets).tolist() == [0, len(ids), 0]
    assert values.tolist() != ids.tolist()
    assert augmenter.ids(ids[:0], np.array([0, 0]), row_ids(1), [0], [1])[1].tolist() == [0, 0]


def test_voice_is_refused_for_ids(wordpiece: Path) -> None:
    config = AugmentConfig.model_validate({"when": "epoch", "ops": [{"op": "voice"}]})
    with pytest.raises(NeedsText, match="voice"):
        IdAugmenter(config, wordpiece, labels=[], tables=[""], storage_url="", seed=1, max_length=64)


def _unusual(kind: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    if kind == "words":
        tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer
    scores = [("<unk>", 0.0), ("\u2581", -3.0), ("a", -1.0), ("\u2581b", -1.0), ("b", -2.0)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "says"), [("words", "do not show where a word starts"), ("never", "other pieces than the same word")]
)
def test_tokenizers_that_only_texts_can_be_changed_for_are_refused(kind: str, says: str, tmp_path: Path) -> None:
    _unusual(kind).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(NeedsText, match=says):
        Pieces(tmp_path)


CONTRACTED = "we ' re sure he doesn ' t like a film he hasn ' t seen , that ' s all i ' ll say ' t is so"


def test_a_contraction_moves_and_goes_as_one_word(wordpiece: Path, table: Path, storage: Storage) -> None:
    rows = Rows(wordpiece, [CONTRACTED])
    augmenter = build(wordpiece, table, storage, {"op": "swap", "rate": 0.4}, {"op": "delete", "rate": 0.2})
    wanted, kept = ["we ' re", "doesn ' t", "hasn ' t", "that ' s", "i ' ll"], Counter()
    for draw in range(40):
        found = f" {rows.texts(*run(augmenter, rows, draw))[0]} ".replace(",", " ,")
        whole = [f" {pair} " in found for pair in wanted]
        assert whole == [f" {pair.split()[0]} " in found for pair in wanted]
        kept.update(pair for pair, there in zip(wanted, whole, strict=True) if there)
    assert all(10 < kept[pair] < 40 for pair in wanted)


def test_a_negation_inside_a_contraction_is_kept_where_the_filter_says_so(
    wordpiece: Path, table: Path, storage: Storage
) -> None:
    rows = Rows(wordpiece, [CONTRACTED])
    ops = [{"op": "delete", "rate": 0.3}]
    for filtered in (None, {"min_kept": 0.0, "grammar": False, "tries": 40}):
        augmenter = build(wordpiece, table, storage, *ops, filter=filtered)
        found = [rows.texts(*run(augmenter, rows, draw))[0] for draw in range(30)]
        both = [text.count("n ' t") == 2 for text in found]
        assert all(both) == (filtered is not None)
        assert sum(text != CONTRACTED for text in found) > 20


def test_rows_are_skipped_by_the_words_of_their_texts(wordpiece: Path, table: Path, storage: Storage) -> None:
    """`can't` is three tokens, and a text may be longer than its tokens."""
    texts = ["he can't see a film of art", "he can see a film of art", "a film of art and so on"]
    rows = Rows(wordpiece, texts)
    augmenter = build(wordpiece, table, storage, {"op": "swap", "rate": 0.9, "skip": {"words": ["can't", "Cut"]}})
    texts[2] += " Cut"
    values, offsets = augmenter.ids(rows.values, rows.offsets, row_ids(3), [0] * 3, [1] * 3, texts)
    before = rows.lists(rows.values, rows.offsets)
    assert augmenter.reads_texts
    assert [a != b for a, b in zip(rows.lists(values, offsets), before, strict=True)] == [False, True, False]


def test_chinese_rows_stay_and_are_told(wordpiece: Path, table: Path, storage: Storage) -> None:
    rows = Rows(wordpiece, ["a huge film of art", "大电影的人中国不好看", "a film of 人 art"])
    augmenter = build(wordpiece, table, storage, {"op": "swap", "rate": 0.9}, {"op": "delete", "rate": 0.5})
    before = rows.lists(rows.values, rows.offsets)
    for draw in range(4):
        found = rows.lists(*run(augmenter, rows, draw))
        assert [a != b for a, b in zip(found, before, strict=True)] == [True, False, True]
    assert augmenter.chinese(rows.values, rows.offsets).tolist() == [False, True, False]
