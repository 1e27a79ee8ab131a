"""Synonyms from the real WordNet: the table is built once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from orchestration.data.augment import augmenter as augment, thesaurus as synonyms
from orchestration.data.catalog import local
from orchestration.data.config import AugmentConfig
from orchestration.data.augment.inflect import endings, inflect
from orchestration.errors import UserError
from orchestration.storage import Storage

GOLDEN = Path(__file__).parents[3] / "golden" / "synonyms.json"
CONFIG = AugmentConfig.model_validate({"copies": 2, "ops": [{"op": "synonyms", "rate": 1.0}]})
TABLE = {
    "film": ["n", ["movie"]],
    "effort": ["n", ["attempt", "try"]],
    "buy": ["v", ["purchase"]],
    "huge": ["a", ["vast"]],
}


def _known(word: str) -> tuple[str, ...]:
    return augment.replacements(word, TABLE)


@pytest.fixture(scope="module")
def ops(tmp_path_factory: pytest.TempPathFactory) -> list[augment.Op]:
    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    return augment.build_ops(CONFIG, augment.stage_ops(CONFIG, storage), storage.url)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a film", "a movie"),
        ("Film!", "Movie!"),
        ("A HUGE FILM", "A VAST MOVIE"),
        ("two films, he buys and is buying", "two movies, he purchases and is purchasing"),
        ("the Film Academy", "the Film Academy"),  # a name
        ("Good. Film is art.", "Good. Movie is art."),  # a sentence starts
        ("an effort", "an attempt"),  # 'a try' would need another article
        ("@film #film film's e-film &film; film2", "@film #film film's e-film &film; film2"),
        ("filmed", "filmed"),  # of a noun only the plural
    ],
)
def test_words_change_in_their_own_form_and_capitals(before: str, after: str) -> None:
    assert augment.replace_words(before, key=5, rate=1.0, known=_known) == after


def test_the_rate_is_the_share_of_known_words_that_change() -> None:
    text = " ".join(["film"] * 4000)
    changed = augment.replace_words(text, key=1, rate=0.25, known=_known).split().count("movie")
    assert abs(changed / 4000 - 0.25) < 0.03


def test_a_low_rate_still_changes_one_word_where_one_can_be() -> None:
    changed = [augment.replace_words("film buy huge effort", key, 1e-9, _known) for key in range(50)]
    assert all(
        sum(a != b for a, b in zip(text.split(), ["film", "buy", "huge", "effort"], strict=True)) == 1
        for text in changed
    )
    assert len(set(changed)) >= 4
    assert augment.replace_words("nothing known", 1, 1e-9, _known) == "nothing known"


def test_a_copy_is_a_function_of_seed_row_and_copy_alone(ops: list[augment.Op]) -> None:
    config = AugmentConfig.model_validate({"copies": 1, "ops": [{"rate": 0.4}]})
    half = [lambda text, key: augment.replace_words(text, key, config.ops[0].rate, _known)]
    text = "film effort buy huge " * 10
    args = {"seed": 1, "row_id": b"row", "copy": 1}
    first = augment.augment(text, half, **args)
    assert first == augment.augment(text, half, **args)
    for change in ({"seed": 2}, {"row_id": b"other"}, {"copy": 2}):
        assert first != augment.augment(text, half, **{**args, **change})


def test_wordnet_replaces_common_words_by_common_synonyms(ops: list[augment.Op]) -> None:
    changed = ops[0]("The movie was awful, but I want to buy two cars tonight.", 3)
    words = changed.replace(",", "").rstrip(".").split()
    assert words[1] in ("film", "motion")
    assert "desire" in words
    assert "purchase" in words
    assert any(word in words for word in ("autos", "automobiles", "motorcars"))
    assert {"I", "but", "was"} <= set(words)  # grammar stays


def test_the_table_changes_only_with_its_version() -> None:
    """Built afresh, 8 s. If this fails, other synonyms than before come of the same WordNet: raise TABLE_VERSION, or caches and
    token stores of old tables would be taken for new ones, and put the digest into tests/golden/synonyms.json."""
    table = synonyms.table_bytes(local("catalog:wordnet"))
    found = {"table_version": synonyms.TABLE_VERSION, "sha256": hashlib.sha256(table).hexdigest()}
    assert json.loads(GOLDEN.read_text()) == found


def test_words_that_turn_a_sentence_round_are_never_replaced(ops: list[augment.Op]) -> None:
    text = "never not no nobody nothing hardly without few little less but like well very better"
    assert ops[0](text, 1) == text


def test_a_folder_without_database_files_is_refused_by_name(tmp_path: Path) -> None:
    config = AugmentConfig.model_validate({"ops": [{"thesaurus": str(tmp_path)}]})
    with pytest.raises(UserError, match=r"lacks data\.noun"):
        augment.stage_ops(config, Storage(str(tmp_path / "storage")))


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
        ("prefer", "ing", None),  # doubles or not by a stress that spelling does not show
    ],
)
def test_regular_forms_are_made_and_irregular_ones_left(base: str, ending: str, form: str | None) -> None:
    assert inflect(base, ending) == form
    if form:
        assert (base, ending) in endings(form)
