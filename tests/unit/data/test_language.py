from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import local
from orchestration.data.language import known, language_of


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "All human beings are born free and equal in dignity and rights."),
        ("zh", "人人生而自由，在尊严和权利上一律平等。"),
        ("de", "Alle Menschen sind frei und gleich an Würde und Rechten geboren."),
        ("fr", "Tous les êtres humains naissent libres et égaux en dignité et en droits."),
        ("es", "Todos los seres humanos nacen libres e iguales en dignidad y derechos."),
        ("ru", "Все люди рождаются свободными и равными в своем достоинстве и правах."),
        ("ja", "すべての人間は、生まれながらにして自由であり、平等である。"),
        ("ko", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
        ("ar", "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق."),
        ("hi", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।"),
    ],
)
def test_sentences_are_recognised(code: str, text: str) -> None:
    found, probability = language_of(text)
    assert (found, probability > 0.9) == (code, True)
    assert language_of(text) == (found, probability)


def test_short_texts_are_recognised_too() -> None:
    texts = ["this phone is great", "很好看的电影", "Das ist sehr gut", "c'est très bien", "muy buena película"]
    assert [language_of(text)[0] for text in texts] == ["en", "zh", "de", "fr", "es"]


def test_nearly_all_real_english_rows_are_english() -> None:
    texts = pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()[::50]
    english = [probability >= 0.5 for code, probability in map(language_of, texts) if code == "en"]
    assert len(english) > 0.98 * len(texts)
    assert sum(english) > 0.94 * len(texts)


@pytest.mark.parametrize("text", ["", "12345 !!! 77", ":-)"])
def test_a_text_without_letters_is_of_no_sure_language(text: str) -> None:
    assert language_of(text)[1] < 0.1


def test_the_known_codes_are_those_of_the_model() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    assert set(known()) == {label for label in map(str, model.labels) if len(label) == 2}
    assert len(known()) == len(set(known()))


def test_a_very_long_row_is_judged_by_its_beginning() -> None:
    english = "All human beings are born free and equal in dignity and rights. "
    assert language_of(english * 100_000)[0] == "en"
