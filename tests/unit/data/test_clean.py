from __future__ import annotations

import pytest

from orchestration.data.clean import clean_text, match_text, refusal
from orchestration.data.config import CleanConfig


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  plain words \n", "plain words"),
        ("cafe\u0301", "caf\u00e9"),  # NFC puts letter and accent together
        ("line\r\nline\rline", "line\nline\nline"),
        ("a\x00b\x07c\ufeff", "abc"),
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


def test_lengths_outside_the_limits_are_refused_with_the_key_that_says_so() -> None:
    config = CleanConfig(min_chars=3, max_chars=5)
    assert refusal("ab", config) == "shorter than data.clean.min_chars=3"
    assert refusal("abcdef", config) == "longer than data.clean.max_chars=5"
    assert refusal("abc", config) is None


def test_texts_that_differ_in_case_width_and_white_space_match() -> None:
    assert match_text("Good  MOVIE\n") == match_text("good movie")
    assert match_text("\uff27ood\u3000stra\u00dfe") == match_text("GOOD STRASSE")
    assert match_text("good movie") != match_text("good movies")
