"""What stands beside the tokens of a row stays in step with them: pairs, words, spans, over four families of tokenizers, texts with and
without ASCII, and every length to which they may be cut. The judges are transformers and loops over characters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data import aligned
from orchestration.data.config import DataConfig
from orchestration.data.frame import longest_first
from orchestration.data.rng import mix
from orchestration.data.tokenize import Tokenizer
from orchestration.errors import UserError
from tests.tiny import TOKENIZERS, make_tokenizer

WORDS = (
    *(
        "Ada",
        "weaves",
        "patterns",
        "don't",
        "3.5%",
        "London,",
        "(engines)",
        "Café",
        "naïve",
        "Zürich",
        "東京",
        "北京です",
    ),
    *("e\u0301te\u0301", "ﬁn", "İstanbul", "ß", "😀", "👩‍👧", "x" * 30, "…", "—", "[SEP]", "</s>", "ñandú", "A", "a"),
)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return lambda kind: root / kind if (root / kind).exists() else make_tokenizer(root / kind, kind)


def _drawn(seed: int, most: int = 14) -> list[str]:
    count = mix(seed, 0) % most
    return [WORDS[mix(seed, place + 1) % len(WORDS)] for place in range(count)]


def _texts(seed: int, count: int) -> list[str]:
    return [" ".join(_drawn(mix(seed, i))) for i in range(count)]


def _config(folder: str = "x.jsonl", **more: Any) -> DataConfig:
    values = {"sources": [{"name": "s", "path": folder, **more.pop("source", {})}], **more}
    return DataConfig.model_validate(values)


# ------------------------------------------------------------------------------------------------ pairs


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("max_length", [6, 7, 12, 25, 400])
def test_ids_of_a_pair_equal_those_of_transformers(kind: str, max_length: int, make: Callable[[str], Path]) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(make(kind) / "tokenizer.json"))
    first, second = _texts(1, 120), _texts(2, 120)
    wanted = theirs(first, second, truncation=True, max_length=max_length)["input_ids"]
    rows = Tokenizer(make(kind), max_length).framed(first, second)
    assert [row.ids.tolist() for row in rows] == wanted
    whole = theirs(first, second)["input_ids"]
    assert [row.cut for row in rows] == [len(ids) > max_length for ids in whole]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_second_part_begins_where_the_tokenizer_says(kind: str, make: Callable[[str], Path]) -> None:
    tokenizer = Tokenizer(make(kind), 30)
    first, second = _texts(3, 80), _texts(4, 80)
    tokenizer.library.enable_truncation(30)
    judged = tokenizer.library.encode_batch(list(zip(first, second, strict=True)))
    tokenizer.library.no_truncation()
    for row, encoding in zip(tokenizer.framed(first, second), judged, strict=True):
        for number, part in enumerate(row.parts):
            places = [place for place, own in enumerate(encoding.sequence_ids) if own == number]
            assert places == list(range(part.start, part.stop))
        if kind == "bert":
            assert encoding.type_ids == [int(place >= row.parts[1].start) for place in range(len(row.ids))]


def test_pairs_of_the_real_tokenizer_equal_those_of_transformers(minilm: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(minilm)
    first, second = _texts(5, 200), _texts(6, 200)
    found = theirs(first, second, truncation=True, max_length=24)
    rows = Tokenizer(minilm, 24).framed(first, second)
    assert [row.ids.tolist() for row in rows] == found["input_ids"]
    types = [(np.arange(len(row.ids)) >= row.parts[1].start).astype(int).tolist() for row in rows]
    assert types == found["token_type_ids"]


def test_of_two_texts_the_longer_one_loses_first() -> None:
    for lengths, room, kept in [
        ((3, 9), 8, [3, 5]),
        ((9, 3), 8, [5, 3]),
        ((9, 9), 7, [3, 4]),
        ((10, 9), 7, [4, 3]),
        ((3, 3), 6, [3, 3]),
        ((0, 9), 4, [0, 4]),
        ((9,), 4, [4]),
    ]:
        assert longest_first(lengths, room) == kept


def test_a_template_that_exchanges_the_texts_is_refused(make: Callable[[str], Path], tmp_path: Path) -> None:
    described = json.loads((make("bert") / "tokenizer.json").read_text())
    pair = described["post_processor"]["pair"]
    described["post_processor"]["pair"] = [pair[0], pair[3], pair[2], pair[1], pair[4]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    tokenizer = Tokenizer(tmp_path, 9)
    assert len(tokenizer.framed(["Ada"])) == 1
    with pytest.raises(UserError, match="more than put special tokens before, between and behind two texts"):
        tokenizer.framed(["Ada"], ["London"])
    with pytest.raises(UserError, match=r"max_length=3 is filled by the tokenizer's special tokens"):
        Tokenizer(make("bert"), 3).framed(["Ada"], ["London"])


# ------------------------------------------------------------------------------------------------ words and tags


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("max_length", [5, 9, 16, 400])
def test_each_word_begins_at_its_first_token_and_cut_words_have_none(
    kind: str, max_length: int, make: Callable[[str], Path]
) -> None:
    tokenizer = Tokenizer(make(kind), max_length)
    rows = [_drawn(mix(7, i)) for i in range(150)]
    texts = [" ".join(words) for words in rows]
    assert [row.ids.tolist() for row in tokenizer.words(rows)] == tokenizer.encode(texts)
    for row, text, words in zip(tokenizer.words(rows), texts, rows, strict=True):
        offsets = tokenizer.library.encode(text, add_special_tokens=False).offsets
        assert row.starts_W is not None
        at, taken = 0, set[int]()
        for word, start in zip(words, row.starts_W.tolist(), strict=True):
            own = [i for i, (begin, end) in enumerate(offsets) if begin < at + len(word) and end > at - 1]
            own = own[:1] if own and own[0] not in taken else []
            taken |= set(own)
            kept = [row.parts[0].start + i for i in own if i < row.parts[0].stop - row.parts[0].start]
            assert [start] == (kept or [-1]), (text, word)
            at += len(word) + 1


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_tags_stand_where_those_who_split_into_words_put_them(kind: str, make: Callable[[str], Path]) -> None:
    """Where white space parts tokens anyway, as in transformers with is_split_into_words."""
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(make(kind) / "tokenizer.json"))
    rows = [[word for word in _drawn(mix(8, i)) if word not in ("[SEP]", "</s>")] or ["a"] for i in range(100)]
    found = theirs(rows, is_split_into_words=True, truncation=True, max_length=14)
    beside = {"words": rows, "tags": [[mix(9, i) % 3 for i in range(len(words))] for words in rows]}
    config = _config(source={"tags": "tags"}, tags=["O", "B", "I"], tokenize={"max_length": 14})
    texts = [" ".join(words) for words in rows]
    entries, columns, _ = aligned.encode(Tokenizer(make(kind), 14), texts, beside, config, None)
    wanted = []
    for row, tags in enumerate(beside["tags"]):
        numbers = found.word_ids(row)
        firsts = [place for place, word in enumerate(numbers) if word is not None and word not in numbers[:place]]
        wanted.append([tags[numbers[place]] if place in firsts else -100 for place in range(len(numbers))])
    values, offsets = columns["target_ids"]
    assert [part.tolist() for part in np.split(values, offsets[1:-1])] == wanted
    assert np.array_equal(offsets, entries.offsets_E1)
    assert np.concatenate(found["input_ids"]).tolist() == entries.values_T.tolist()
    assert entries.truncated == sum(len(theirs(words, is_split_into_words=True)["input_ids"]) > 14 for words in rows)


def test_a_word_of_which_cleaning_left_nothing_has_no_token_and_moves_no_other(make: Callable[[str], Path]) -> None:
    row = Tokenizer(make("bert"), 40).words([["", "Ada", "", "", "London", ""]])[0]
    without = Tokenizer(make("bert"), 40).words([["Ada", "London"]])[0]
    assert row.ids.tolist() == without.ids.tolist()
    assert row.starts_W is not None
    assert without.starts_W is not None
    assert row.starts_W.tolist() == [-1, without.starts_W[0], -1, -1, without.starts_W[1], -1]
    empty = Tokenizer(make("bert"), 40).words([[], [""]])
    assert [len(found.ids) for found in empty] == [2, 2]


# ------------------------------------------------------------------------------------------------ spans


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("max_length", [8, 15, 400])
def test_a_span_is_the_tokens_that_show_its_characters_or_none_where_one_is_cut(
    kind: str, pair: bool, max_length: int, make: Callable[[str], Path]
) -> None:
    tokenizer = Tokenizer(make(kind), max_length)
    contexts = [text for text in _texts(10, 150) if text]
    spans: list[Any] = []
    for i, text in enumerate(contexts):
        words = text.split(" ")
        first = mix(11, i) % len(words)
        last = first + mix(12, i) % (len(words) - first)
        begin = len(" ".join([*words[:first], ""]))
        spans.append((begin, begin + len(" ".join(words[first : last + 1]))) if mix(13, i) % 5 else None)
    questions = _texts(14, len(contexts))
    beside = {"pair": contexts, "span": spans} if pair else {"span": spans}
    source = {"span": {"text": "a", "start": "b"}} | ({"pair": "context"} if pair else {})
    config = _config(source=source, tokenize={"max_length": max_length})
    texts = questions if pair else contexts
    entries, columns, lost = aligned.encode(tokenizer, texts, beside, config, None)
    found = columns["target_ids"][0].reshape(-1, 2).tolist()
    rows = tokenizer.framed(texts, contexts) if pair else tokenizer.framed(texts)
    cut = 0
    for row, text, span, tokens in zip(rows, contexts, spans, found, strict=True):
        part = row.parts[-1]
        offsets = tokenizer.library.encode(text, add_special_tokens=False).offsets
        own = [i for i, (begin, end) in enumerate(offsets) if span and begin < span[1] and end > span[0]]
        whole = own and own[-1] < part.stop - part.start
        cut += bool(span and not whole)
        assert tokens == ([part.start + own[0], part.start + own[-1]] if whole else [0, 0])
    assert lost["answers cut away"] == cut
    assert (cut > 0) == (max_length < 400)
    if pair:
        assert columns["pair_at"].tolist() == [row.parts[1].start for row in rows]
    assert entries.values_T.tolist() == [number for row in rows for number in row.ids.tolist()]


# ------------------------------------------------------------------------------------------------ texts to write


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_target_has_its_special_tokens_and_a_length_of_its_own(kind: str, make: Callable[[str], Path]) -> None:
    tokenizer = Tokenizer(make(kind), 40)
    texts, targets = _texts(15, 60), [text or "a" for text in _texts(16, 60)]
    for length in (None, 7):
        config = _config(source={"target": "t"}, tokenize={"max_length": 40, "target_length": length})
        entries, columns, lost = aligned.encode(tokenizer, texts, {"target": targets}, config, None)
        values, offsets = columns["target_ids"]
        shorter = Tokenizer(make(kind), length or 40)
        assert [part.tolist() for part in np.split(values, offsets[1:-1])] == shorter.encode(targets)
        assert lost == {"targets cut to data.tokenize.target_length": shorter.truncated}
        assert entries.values_T.tolist() == [number for ids in tokenizer.encode(texts) for number in ids]


def test_rows_of_one_text_among_pairs_have_their_length_as_beginning_of_the_second(make: Callable[[str], Path]) -> None:
    values = [{"name": "one", "path": "a.jsonl"}, {"name": "two", "path": "b.jsonl", "pair": "p"}]
    config = DataConfig.model_validate({"sources": values})
    entries, columns, _ = aligned.encode(Tokenizer(make("bert"), 40), _texts(17, 20), {}, config, None)
    assert columns["pair_at"].tolist() == np.diff(entries.offsets_E1).tolist()
