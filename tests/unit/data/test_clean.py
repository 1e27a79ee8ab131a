from __future__ import annotations

import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import local
from orchestration.data.clean import clean_text, match_text, refusal
from orchestration.data.config import CleanConfig, LanguageConfig, QualityConfig


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  plain words \n", "plain words"),
        ("cafe\u0301", "caf\u00e9"),  # NFC puts letter and accent together
        ("line\r\nline\rline", "line\nline\nline"),
        ("a\x00b\x07c\ufeff", "abc"),
        ("half \ud83d of a pair", "half  of a pair"),
        ("tab\tstays", "tab\tstays"),
        ("\u2460 \ufb01n", "\u2460 \ufb01n"),  # NFC leaves what NFKC would change
    ],
)
def test_a_text_is_normalised_and_freed_of_control_characters(raw: str, clean: str) -> None:
    assert clean_text(raw, CleanConfig()) == clean
    assert clean_text(clean, CleanConfig()) == clean  # the endpoint may clean a clean text again


def test_nfkc_is_the_users_choice() -> None:
    assert clean_text("\u2460 \ufb01n", CleanConfig(normalize="NFKC")) == "1 fin"
    assert clean_text("cafe\u0301", CleanConfig(normalize="none")) == "cafe\u0301"


def test_markup_and_boilerplate_leave_only_where_the_spec_says_so() -> None:
    page = "<nav>Home | About | Contact</nav>\r\n<p>Good &amp; cheap</p><p>\u00a9 2024 Acme</p>"
    assert clean_text(page, CleanConfig()) == page.replace("\r\n", "\n")
    assert clean_text(page, CleanConfig(markup=True)) == "Home | About | Contact\nGood & cheap\n\u00a9 2024 Acme"
    assert clean_text(page, CleanConfig(markup=True, boilerplate=True)) == "Good & cheap"


def test_control_characters_that_entities_stand_for_leave_too() -> None:
    assert clean_text("a&#7;b&#13;c", CleanConfig(markup=True)) == "a\x07b\rc".replace("\x07", "").replace("\r", "\n")


def test_lengths_outside_the_limits_are_refused_with_the_key_that_says_so() -> None:
    config = CleanConfig(min_chars=3, max_chars=5)
    assert refusal("ab", config) == "shorter than data.clean.min_chars=3"
    assert refusal("abcdef", config) == "longer than data.clean.max_chars=5"
    assert refusal("abc", config) is None


def test_words_are_counted_in_any_script() -> None:
    config = CleanConfig(min_words=4)
    assert refusal("three short words", config) == "fewer words than data.clean.min_words=4"
    assert refusal("now it is four", config) is None
    assert refusal("\u5f88\u597d\u770b", config) == "fewer words than data.clean.min_words=4"
    assert refusal("\u771f\u7684\u5f88\u597d\u770b", config) is None


def test_rows_in_other_languages_and_unsure_ones_leave_by_different_names() -> None:
    config = CleanConfig(language=LanguageConfig(keep=["en", "zh"], min_probability=0.5))
    assert refusal("This is a plain sentence in English.", config) is None
    assert refusal("这是一个普通的中文句子。", config) is None
    german = "Das ist ein ganz gewöhnlicher deutscher Satz."
    assert refusal(german, config) == "not in data.clean.language.keep=[en, zh]"
    sure = CleanConfig(language=LanguageConfig(keep=["en"], min_probability=1.0))
    assert (
        refusal("This is a plain sentence in English.", sure)
        == "less sure than data.clean.language.min_probability=1.0"
    )


def test_a_broken_quality_rule_is_the_reason() -> None:
    config = CleanConfig(quality=QualityConfig())
    assert refusal("!!! ??? ...", config) == "above data.clean.quality.max_symbol_ratio=0.3"
    assert refusal("plain words", config) is None


def test_reasons_never_hold_the_rows_own_value() -> None:
    texts = pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()[::20]
    config = CleanConfig(min_words=3, quality=QualityConfig(), language=LanguageConfig(keep=["en"]), max_chars=150)
    reasons = {refusal(text, config) for text in texts}
    assert 4 <= len(reasons) <= 10  # counted by the reason, so there are as many as rules


def test_a_plain_spec_imports_nothing_it_does_not_use() -> None:
    code = (
        "import sys; from orchestration.data.clean import clean_text, refusal; from orchestration.data.config import CleanConfig\n"
        "c = CleanConfig(); clean_text('a <b>b</b>', c); refusal('a', c)\n"
        "heavy = {'numpy', 'html', 'orchestration.data.markup', 'orchestration.data.quality', 'orchestration.data.language'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_texts_that_differ_in_case_width_and_white_space_match() -> None:
    assert match_text("Good  MOVIE\n") == match_text("good movie")
    assert match_text("\uff27ood\u3000stra\u00dfe") == match_text("GOOD STRASSE")
    assert match_text("good movie") != match_text("good movies")
