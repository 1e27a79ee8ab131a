from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import local
from orchestration.data.config import QualityConfig
from orchestration.data.quality import mean_word_chars, refusal, repeated_lines, repeated_ngrams, symbol_ratio, words

CHINESE = "这部电影真的很好看，我和我的家人都非常喜欢它，推荐给大家。"
THAI = "ภาพยนตร์เรื่องนี้ดีมากและน่าสนใจสำหรับทุกคนในครอบครัวของเรา"
HINDI = "यह फिल्म बहुत अच्छी है और मेरे परिवार को भी बहुत पसंद आई"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("#### ---- ==== some words", "above data.clean.quality.max_symbol_ratio=0.3"),
        ("buy now\nbuy now\nbuy now\nother words", "above data.clean.quality.max_repeated_lines=0.3"),
        ("12 44 98 1 word 77 3 5 6", "below data.clean.quality.min_alpha_words=0.6"),
        ("a b c d e f g h", "outside data.clean.quality.mean_word_chars=[1.5, 12.0]"),
        (
            "donaudampfschifffahrtsgesellschaft kapitaensmuetzenabzeichen",
            "outside data.clean.quality.mean_word_chars=[1.5, 12.0]",
        ),
        ("on and on and on and on and on and on", "above data.clean.quality.max_repeated_ngrams=0.3"),
        ("好看好看好看好看好看好看好看好看好看", "above data.clean.quality.max_repeated_ngrams=0.3"),
    ],
)
def test_a_row_that_breaks_a_rule_leaves_under_its_name(text: str, rule: str) -> None:
    assert refusal(text, QualityConfig()) == rule


@pytest.mark.parametrize(
    "text",
    [CHINESE, THAI, HINDI, "映画はとても面白かったです。", "이 영화는 정말 재미있었어요.", "A plain line, of words."],
)
def test_plain_sentences_of_any_script_stay(text: str) -> None:
    assert refusal(text, QualityConfig()) is None


def test_a_limit_of_the_spec_is_the_one_that_counts() -> None:
    text = "12 44 98 word"
    assert refusal(text, QualityConfig(min_alpha_words=0.25)) is None
    assert refusal(text, QualityConfig(min_alpha_words=0.5)) == "below data.clean.quality.min_alpha_words=0.5"


def test_characters_are_words_where_a_script_has_no_spaces() -> None:
    assert words("一部 good 电影!") == ["一", "部", "good", "电", "影", "!"]
    assert words("a plain line") == ["a", "plain", "line"]
    assert words("naïve café") == ["naïve", "café"]
    assert mean_word_chars(words(CHINESE)) is None
    assert mean_word_chars(words("two words 好")) == 4.0


def test_measures_are_the_shares_they_are_named_after() -> None:
    assert symbol_ratio("ab!?") == 0.5
    assert symbol_ratio("好看！？") == 0.5
    assert symbol_ratio("हिन्दी") == 0.0  # vowel signs are marks of their letters
    assert symbol_ratio("snake_é") == 1 / 7
    assert repeated_lines("a\nb\n\na\n a ") == 0.5
    assert repeated_ngrams(["a", "b", "c", "a", "b", "c", "x", "y"]) == 3 / 8
    assert repeated_ngrams([]) == 0.0
    assert symbol_ratio("") == 0.0


def test_few_real_rows_leave() -> None:
    texts = pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()
    left = [text for text in texts if refusal(text, QualityConfig())]
    assert 20 < len(left) < 0.005 * len(texts)
