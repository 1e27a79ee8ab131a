from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, trainers

from orchestration.data import fim
from orchestration.data.config import FimConfig, TokenizeConfig
from orchestration.data.rng import key
from orchestration.data.tokenize import Entries, Tokenizer
from orchestration.errors import UserError

NAMES = ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"]
SOURCES = [json.__file__, json.decoder.__file__, json.encoder.__file__, json.scanner.__file__]
TEXTS = [text for path in SOURCES for text in Path(path).read_text(encoding="utf-8").split("\n\n") if text]
KEYS = [key("row", i) for i in range(len(TEXTS))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer, whose ids can be turned back into the very text."""
    path = tmp_path_factory.mktemp("tokenizer")
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, show_progress=False, special_tokens=["<|endoftext|>", *NAMES], initial_alphabet=alphabet
    )
    fast.train_from_iterator(iter(TEXTS), trainer=trainer)
    fast.save(str(path / "tokenizer.json"))
    return path


def _entries(folder: Path, texts: list[str], keys: list[int], max_length: int = 4096, **more: object) -> Entries:
    config = TokenizeConfig.model_validate({"max_length": max_length, "fim": {"rate": 1.0}, **more})
    return Tokenizer(folder, max_length).entries(texts, config, keys)


def _texts(folder: Path, entries: Entries) -> list[tuple[str, str, str]]:
    """Prefix, middle and suffix of each entry, read back from its ids."""
    fast = Fast.from_file(str(folder / "tokenizer.json"))
    vocabulary = {v: k for k, v in fast.get_vocab().items()}
    values = {chr(c): c for c in [*range(33, 127), *range(161, 173), *range(174, 256)]}
    rest = [b for b in range(256) if b not in values.values()]
    values |= {chr(256 + i): b for i, b in enumerate(rest)}  # GPT-2's letters for bytes
    marks = [fast.token_to_id(name) for name in NAMES]

    def text(ids: list[int]) -> str:
        return bytes(values[c] for i in ids for c in vocabulary[i]).decode("utf-8", errors="replace")

    found = []
    for row in np.split(entries.values_T, entries.offsets_E1[1:-1]):
        ids = row.tolist()
        before, after, middle = (ids.index(marks[i]) for i in (0, 2, 1))
        assert before == 0 < after < middle
        found.append((text(ids[1:after]), text(ids[middle + 1 :]), text(ids[after + 1 : middle])))
    return found


def test_prefix_middle_and_suffix_make_the_text_again(folder: Path) -> None:
    odd = ["", "x", "žluťoučký 東京 😀 kůň", " a  b \n"]
    found = _texts(folder, _entries(folder, [*TEXTS, *odd], [*KEYS, 1, 2, 3, 4]))
    assert ["".join(parts) for parts in found] == [*TEXTS, *odd]
    assert found == [fim.cut(text, fim.mix(k, 0)) for text, k in zip([*TEXTS, *odd], [*KEYS, 1, 2, 3, 4], strict=True)]


def test_cuts_are_spread_over_the_whole_text() -> None:
    text = "abcdefghij" * 100
    cuts = [fim.cut(text, key("cut", i)) for i in range(4000)]
    lengths = np.array([[len(part) for part in parts] for parts in cuts])
    assert np.abs(lengths.mean(0) - 1000 / 3).max() < 15  # two uniform cuts make three parts of equal mean
    assert lengths.min(0).max() < 5
    assert lengths.max(0).min() > 950
    assert {fim.cut("", 1), *(fim.cut("x", k) for k in range(50))} == {
        ("", "", ""),
        ("x", "", ""),
        ("", "x", ""),
        ("", "", "x"),
    }


def test_the_rate_is_the_share_of_rows_and_the_others_stay_as_they_are(folder: Path) -> None:
    keys = [key("rate", i) for i in range(1000)]
    texts = [TEXTS[i % 40] for i in range(1000)]
    tokenizer = Tokenizer(folder, 4096)
    some = tokenizer.entries(texts, TokenizeConfig(max_length=4096, fim=FimConfig(rate=0.3)), keys)
    none = tokenizer.entries(texts, TokenizeConfig(max_length=4096))
    changed = 0
    for e in range(1000):
        ours = some.values_T[some.offsets_E1[e] : some.offsets_E1[e + 1]]
        plain = none.values_T[none.offsets_E1[e] : none.offsets_E1[e + 1]]
        changed += not np.array_equal(ours, plain)
    assert 0.26 < changed / 1000 < 0.34


def test_an_entry_depends_on_its_text_and_key_alone(folder: Path) -> None:
    whole = _entries(folder, TEXTS, KEYS, 64, long="windows", stride=8)
    tokenizer = Tokenizer(folder, 64)
    config = TokenizeConfig(max_length=64, fim=FimConfig(rate=1.0), long="windows", stride=8)
    singles = [tokenizer.entries([t], config, [k]).values_T for t, k in zip(TEXTS[::-1], KEYS[::-1], strict=True)]
    assert np.array_equal(whole.values_T, np.concatenate(singles[::-1]))


@pytest.mark.parametrize("long", ["truncate", "windows"])
def test_long_rows_are_arranged_window_by_window_and_keep_their_middle(folder: Path, long: str) -> None:
    text = "\n\n".join(TEXTS)
    entries = _entries(folder, [text, "short"], [7, 8], 64, long=long)
    assert int(np.diff(entries.offsets_E1).max()) <= 64
    assert (len(entries) > 50) == (long == "windows")
    at = 0
    for prefix, middle, suffix in _texts(folder, entries)[:-1]:
        start = text.find(prefix + middle + suffix, at)
        assert start >= at or not prefix + middle + suffix  # side by side in the text
        assert start - at < 400
        at = max(at, start)
    assert entries.truncated == 1  # the three special tokens take the place of some of the text


def test_what_does_not_fit_is_cut_at_the_far_ends() -> None:
    marks = (b"PPPP", b"MMMM", b"SSSS")
    parts = (b"aaaabbbb", b"ccccdddd", b"eeeeffff")  # two tokens each
    assert fim.arrange(parts, marks, 9) == b"PPPPaaaabbbbSSSSeeeeffffMMMMccccdddd"
    assert fim.arrange(parts, marks, 8) == b"PPPPaaaabbbbSSSSeeeeMMMMccccdddd"
    assert fim.arrange(parts, marks, 6) == b"PPPPbbbbSSSSMMMMccccdddd"
    assert fim.arrange(parts, marks, 4) == b"PPPPSSSSMMMMcccc"


def test_a_tokenizer_without_the_special_tokens_is_refused_by_their_name(folder: Path, minilm: Path) -> None:
    with pytest.raises(UserError, match=r"data\.tokenize\.fim\.tokens: the tokenizer has no token '<fim_prefix>'"):
        _entries(minilm, ["a"], [1], 64)
    with pytest.raises(UserError, match=r"data\.tokenize\.max_length=3 leaves 3 tokens; fim needs 4"):
        _entries(folder, ["a"], [1], 3)
    with pytest.raises(ValueError, match="keys is None"):
        Tokenizer(folder, 64).entries(["a"], TokenizeConfig(fim=FimConfig()))
