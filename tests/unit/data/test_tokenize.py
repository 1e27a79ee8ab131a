from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Fast

from orchestration.data import chunks
from orchestration.data.catalog import local
from orchestration.data.config import TokenizeConfig
from orchestration.data.rng import mix
from orchestration.data.tokenize import Tokenizer, TooManyWindows
from orchestration.errors import UserError


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()


@pytest.fixture(scope="module")
def make(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a small tokenizer of one family, trained once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("tokenizer")
            FAMILIES[kind](texts[::60]).save(str(made[kind] / "tokenizer.json"))
        return made[kind]

    return get


def _trained(fast: Fast, trainer: Any, texts: list[str]) -> Fast:
    fast.train_from_iterator(iter(texts), trainer=trainer)
    return fast


def _byte_level(*cutters: Any, normalizer: Any = None, prefix: bool = False, regex: bool = True) -> Callable:
    def build(texts: list[str]) -> Fast:
        fast = Fast(models.BPE())
        fast.normalizer = normalizer
        last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
        fast.pre_tokenizer = pre_tokenizers.Sequence([*cutters, last]) if cutters else last
        fast.post_processor = processors.ByteLevel(trim_offsets=True)
        special = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, show_progress=False, special_tokens=special, initial_alphabet=alphabet
        )
        return _trained(fast, trainer, texts)

    return build


def _unigram(normalizer: Any, cutter: Any) -> Callable:
    def build(texts: list[str]) -> Fast:
        fast = Fast(models.Unigram())
        fast.normalizer, fast.pre_tokenizer = normalizer, cutter
        trainer = trainers.UnigramTrainer(
            vocab_size=400, show_progress=False, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>"
        )
        _trained(fast, trainer, texts)
        fast.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
        return fast

    return build


def _wordpiece(texts: list[str]) -> Fast:
    fast = Fast(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=False)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, show_progress=False, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    _trained(fast, trainer, texts)
    fast.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return fast


def _split(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


FAMILIES: dict[str, Callable[[list[str]], Fast]] = {
    "gpt2": _byte_level(),
    "gpt2, prefix space": _byte_level(prefix=True),
    "smollm2": _byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "llama3": _byte_level(_split(chunks.PATTERNS[0]), regex=False),
    "qwen2": _byte_level(_split(chunks.PATTERNS[1]), normalizer=normalizers.NFC(), regex=False),
    "byte level, nfkc": _byte_level(normalizer=normalizers.NFKC()),
    "metaspace, always": _unigram(normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="always")),
    "metaspace, first": _unigram(normalizers.Lowercase(), pre_tokenizers.Metaspace(prepend_scheme="first")),
    "metaspace, never": _unigram(None, pre_tokenizers.Metaspace(prepend_scheme="never")),
    "xlm-r": _unigram(
        normalizers.NFKC(), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    ),
    "cased wordpiece": _wordpiece,
}
ODD = (
    *"abzAZéñßİıſΣςж中文字アㄱ각0179½²٣Ⅻ.,;:!?'\"()[]{}<>|#@$%^&*-_+=~`/\\▁Ġ…—“”’¨´\u203e\ufdfa㎏ﬁ",
    *"\u0301\u0308\u0f71\u094d\u200b\u200c\u200d\ufeff\u00a0\u2009\u2028\u2029\u3000\u1680\u202f\x85\x0b\x0c\x1c\x1f",
    *"\x00\x01\x7f\ufffd\u0d4e\u0600\u3164\ufe0f\U0001f600\U0001f468\U0001f3fd\U00020000\ue000\U000e0041",
    *(
        "[SEP]",
        "[UNK]",
        "##",
        "##ing",
        "<s>",
        "<unk>",
        "<|endoftext|>",
        "<fim_prefix>",
        "<",
        "'s",
        "'LL",
        "don't",
        "e\u0301",
    ),
    *("the", "The", "film", "running", "12", "3.14", "http://t.co/x?y=1", "x" * 70, "ab" * 60, "東京都"),
)
GAPS = (" ",) * 12 + ("", "", "", "  ", "   ", "\n", "\n\n", "\t", " \n", "\n ", "\r\n", "    ")


def _fuzzed(seed: int, count: int) -> list[str]:
    """Strings of odd characters and words, with every kind of white space between, before and behind them."""

    def one(key: int) -> str:
        draw = iter(mix(key, i) for i in range(1000))
        parts = [
            part for _ in range(next(draw) % 14) for part in (ODD[next(draw) % len(ODD)], GAPS[next(draw) % len(GAPS)])
        ]
        return "".join([GAPS[next(draw) % len(GAPS)], *parts] if next(draw) % 4 == 0 else parts[:-1])

    return [one(mix(seed, i)) for i in range(count)]


def _plain_printable(seed: int, count: int) -> list[str]:
    """Single spaces and printable characters only: nothing here may send a text to the library."""
    odd = [part for part in ODD if part.isprintable() and not set(part) & set("<[ ")]
    return [" ".join(odd[mix(mix(seed, i), j) % len(odd)] for j in range(2 + i % 9)) for i in range(count)]


def _expected(folder: Path, texts: list[str], max_length: int) -> list[list[int]]:
    fast = Fast.from_file(str(folder / "tokenizer.json"))
    fast.no_padding()
    fast.enable_truncation(max_length)
    return [encoding.ids for encoding in fast.encode_batch(texts)]


def test_ids_equal_those_of_transformers_on_every_real_text(minilm: Path, texts: list[str]) -> None:
    from transformers import AutoTokenizer

    texts = [*texts, "", "naïve café 東京 😀", "word " * 500]
    theirs = AutoTokenizer.from_pretrained(minilm)
    ours = Tokenizer(minilm, 48)
    expected = theirs(texts, truncation=True, max_length=48)["input_ids"]
    assert ours.encode(texts) == expected
    assert ours.encode(texts) == expected  # now all chunks are known
    assert ours.pad_id == theirs.pad_token_id
    assert ours.vocab_size == len(theirs)
    entries = Tokenizer(minilm, 48).entries(texts, TokenizeConfig(max_length=48))
    assert np.array_equal(entries.values_T, np.concatenate(expected))
    assert entries.truncated == 2 * ours.truncated // 4 > 0


@pytest.mark.parametrize("kind", ["minilm", *FAMILIES])
def test_ids_equal_the_librarys_on_real_and_on_odd_texts(
    kind: str, minilm: Path, make: Callable[[str], Path], texts: list[str]
) -> None:
    folder = minilm if kind == "minilm" else make(kind)
    given = texts if kind in ("gpt2", "smollm2", "metaspace, first") else texts[::23]
    given = given + _fuzzed(11, 2000) + _plain_printable(5, 500)
    tokenizer = Tokenizer(folder, 4096)
    assert tokenizer._rule is not None
    for found, expected, text in zip(tokenizer.encode(given), _expected(folder, given, 4096), given, strict=True):
        assert found == expected, repr(text)


@pytest.mark.parametrize("kind", ["minilm", *FAMILIES])
def test_most_texts_need_not_go_through_the_library(
    kind: str, minilm: Path, make: Callable[[str], Path], texts: list[str]
) -> None:
    rule = Tokenizer(minilm if kind == "minilm" else make(kind), 64)._rule
    assert rule is not None
    assert sum(rule.split(text) is not None for text in texts[::10]) > 0.94 * len(texts[::10])  # 5% have double spaces
    assert all(rule.split(text) is not None for text in _plain_printable(3, 200))


@pytest.mark.parametrize("kind", ["gpt2", "smollm2"])
def test_source_code_with_indents_and_blank_lines_is_cut_by_runs_of_white_space(
    kind: str, make: Callable[[str], Path]
) -> None:
    code = [Path(path).read_text(encoding="utf-8") for path in (json.__file__, pytest.__file__, json.decoder.__file__)]
    lines = ["x = [1,  2,   3]\n\n\n    y =  4\n\t\t5 \n 6", "\n\n  a\n  \n 7", "1  2", "a \n\n b  \n", " 1", "  1 "]
    tokenizer = Tokenizer(make(kind), 10**6)
    assert tokenizer._rule is not None
    assert all(tokenizer._rule.split(text) is not None for text in [*code, *lines])
    assert tokenizer.encode(code + lines) == _expected(make(kind), code + lines, 10**6)


def test_a_tokenizer_with_a_part_that_is_not_on_the_lists_uses_the_library_alone(
    make: Callable[[str], Path], minilm: Path, texts: list[str], tmp_path: Path
) -> None:
    described = json.loads((make("gpt2") / "tokenizer.json").read_text())
    bert = json.loads((minilm / "tokenizer.json").read_text())
    added = bert["added_tokens"][0] | {"content": "film", "normalized": True, "special": False, "id": 30522}
    whole = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    digits = {"type": "Digits", "individual_digits": True}
    for changed in (
        described | {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
        described | {"normalizer": {"type": "StripAccents"}},
        described | {"pre_tokenizer": None},
        described | {"pre_tokenizer": whole},
        described | {"pre_tokenizer": {"type": "UnicodeScripts"}},
        described | {"pre_tokenizer": described["pre_tokenizer"] | {"use_regex": False}},
        described | {"pre_tokenizer": digits},
        described | {"model": described["model"] | {"dropout": 0.1}},
        bert | {"added_tokens": [*bert["added_tokens"], added]},
    ):
        assert chunks.rule(changed) is None
        assert changed["model"].get("dropout") is None or changed["model"]["dropout"] == 0.1
    (tmp_path / "tokenizer.json").write_text(json.dumps(described | {"normalizer": {"type": "StripAccents"}}))
    given = texts[:500] + _fuzzed(2, 500)
    assert Tokenizer(tmp_path, 512).encode(given) == _expected(tmp_path, given, 512)


def test_added_words_are_found_in_any_row(make: Callable[[str], Path], tmp_path: Path, texts: list[str]) -> None:
    fast = Fast.from_file(str(make("gpt2") / "tokenizer.json"))
    fast.add_tokens([AddedToken("film", rstrip=True), AddedToken("good movie"), AddedToken("  ")])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path, 512)
    assert tokenizer._rule is not None
    given = [*texts[::9], "a film", "films  film a good  movie", "good movie", "x  y"]
    assert tokenizer.encode(given) == _expected(tmp_path, given, 512)


def test_forgetting_all_chunks_changes_no_ids(minilm: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Tokenizer(minilm, 64).encode(texts[:2000])
    monkeypatch.setattr("orchestration.data.tokenize.MAX_CHUNKS", 50)
    monkeypatch.setattr("orchestration.data.tokenize.BLOCK", 100)
    monkeypatch.setattr("orchestration.data.tokenize.MAX_CHUNK_CHARS", 9)
    tokenizer = Tokenizer(minilm, 64)
    assert [row for at in range(0, 2000, 77) for row in tokenizer.encode(texts[at : min(at + 77, 2000)])] == expected
    assert len(tokenizer._known) < 3000


def test_longer_texts_are_cut_with_their_end_token_and_counted(minilm: Path) -> None:
    tokenizer = Tokenizer(minilm, 8)
    ids = tokenizer.encode(["one two three four five six", "one two three four five six seven", "short"])
    assert [len(row) for row in ids] == [8, 8, 3]
    assert tokenizer.truncated == 1
    assert ids[0][-1] == ids[1][-1]  # [SEP]


@pytest.mark.parametrize(("max_length", "stride"), [(16, 0), (16, 5), (33, 16), (8, 4)])
def test_windows_equal_those_of_transformers(minilm: Path, texts: list[str], max_length: int, stride: int) -> None:
    from transformers import AutoTokenizer

    given = [*texts[::40], "", "one two three four five six", "word " * 300]
    theirs = AutoTokenizer.from_pretrained(minilm)(
        given, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True
    )
    config = TokenizeConfig(max_length=max_length, long="windows", stride=stride)
    found = Tokenizer(minilm, max_length).entries(given, config)
    assert [row.tolist() for row in np.split(found.values_T, found.offsets_E1[1:-1])] == theirs["input_ids"]
    assert found.row_E.tolist() == theirs["overflow_to_sample_mapping"]
    assert found.truncated == 0
    firsts = np.flatnonzero(found.part_E == 0)
    assert np.array_equal(found.row_E[firsts], np.arange(len(given)))
    assert all(np.array_equal(run, np.arange(len(run))) for run in np.split(found.part_E, firsts[1:]))


def test_entries_do_not_depend_on_the_batch(minilm: Path, texts: list[str]) -> None:
    config = TokenizeConfig(max_length=24, long="windows", stride=3)
    whole = Tokenizer(minilm, 24).entries(texts[:300], config)
    tokenizer = Tokenizer(minilm, 24)
    singles = [tokenizer.entries([text], config) for text in reversed(texts[:300])]
    assert np.array_equal(whole.values_T, np.concatenate([one.values_T for one in reversed(singles)]))
    none = tokenizer.entries([], config)
    assert (len(none), none.values_T.size, none.offsets_E1.tolist()) == (0, 0, [0])


def test_what_max_length_has_no_room_for_is_refused_by_key(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(minilm, 4)
    with pytest.raises(UserError, match=r"data\.tokenize\.stride=2: a window of max_length=4 holds 2 tokens"):
        tokenizer.entries(["a"], TokenizeConfig(max_length=4, long="windows", stride=2))
    with pytest.raises(UserError, match=r"data\.tokenize\.max_length=2 is filled"):
        tokenizer.entries(["a"], TokenizeConfig(max_length=2))
    monkeypatch.setattr("orchestration.data.tokenize.MAX_WINDOWS", 5)
    with pytest.raises(TooManyWindows, match=r"makes 6 windows, above 5; raise data\.tokenize") as raised:
        tokenizer.entries(["a", "a " * 12], TokenizeConfig(max_length=4, long="windows"))
    assert raised.value.text == 1


def test_a_folder_without_a_usable_tokenizer_is_refused_by_name(tmp_path: Path, minilm: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: missing"):
        Tokenizer(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer file"):
        Tokenizer(tmp_path, 8)
    described = json.loads((minilm / "tokenizer.json").read_text())
    described["post_processor"]["single"] *= 2
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"post_processor does more than put special tokens"):
        Tokenizer(tmp_path, 8)
