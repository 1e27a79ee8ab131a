"""What becomes of each row, as a table: decided from keys alone, the same for any cut into units."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.data import keys, split
from orchestration.data.config import DataConfig
from orchestration.data.decide import ANY, BALANCED, DUPLICATE, LEFT, NEAR, Decision, decide
from orchestration.data.keys import Keys
from orchestration.errors import DataError, UserError

ROWS = 900


def _digest(*parts: Any) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _keys(folder: Path, cuts: list[int]) -> Keys:
    """Rows 0 ... 899 in units that begin at `cuts`; each tenth has the text of the row before, every third the label 1."""
    folder.mkdir()
    found = Keys(folder, len(cuts))
    for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], ROWS], strict=True)):
        rows = range(start, end)
        texts = [_digest("text", row - (row % 10 == 9)) for row in rows]
        labels = [int(row % 3 == 0) for row in rows]
        packed = keys.pack([_digest("row", row) for row in rows], texts, texts, labels)
        found.add({"unit": number, "mark": "", "keys": packed, "features": b"", "left": json.dumps({})})
    return found.close()


@pytest.fixture
def all_keys(tmp_path: Path) -> Keys:
    return _keys(tmp_path / "keys", [0, 300, 700])


def _config(**more: Any) -> DataConfig:
    source = {"name": "s", "path": "x.jsonl", "label": {"column": "label"}}
    values = {"sources": [source], "labels": ["a", "b"], "split": {"validation": 100, "test": 0.2}, **more}
    return DataConfig.model_validate(values)


OPS = [{"op": "swap"}]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"balance": "down"},
        {"balance": "up"},
        {"augment": {"until": 2000, "ops": OPS}},
        {"split": {"test": 0.2, "folds": 5, "stratify": True}},
    ],
)
def test_the_decision_does_not_depend_on_how_rows_are_cut_into_units(
    all_keys: Keys, tmp_path: Path, more: dict[str, Any]
) -> None:
    config = _config(**more)
    first = decide(all_keys, config, 5)
    other = decide(_keys(tmp_path / "other", list(range(0, ROWS, 60))), config, 5)
    for name in ("code_N", "fold_N", "copies_N", "conflicts"):
        assert np.array_equal(getattr(first, name), getattr(other, name))
    assert not np.array_equal(first.code_N, decide(all_keys, config, 6).code_N)


def test_rows_whose_source_names_a_split_go_there_and_others_are_dealt_out(all_keys: Keys) -> None:
    given_N = np.full(len(all_keys), ANY, np.uint8)
    given_N[:500:2], given_N[1:500:2] = split.TEST, split.TRAIN
    plain, found = decide(all_keys, _config(), 5), decide(all_keys, _config(), 5, given_N)
    stays = plain.code_N != DUPLICATE
    assert (found.code_N[:500][stays[:500]] == given_N[:500][stays[:500]]).all()
    assert set(found.code_N[500:].tolist()) >= {split.TRAIN, split.VALIDATION, split.TEST}
    every = decide(all_keys, _config(), 5, np.full(len(all_keys), split.TRAIN, np.uint8))
    assert set(every.code_N.tolist()) == {split.TRAIN, DUPLICATE}


def test_every_row_has_a_split_or_a_reason(all_keys: Keys) -> None:
    found = decide(all_keys, _config(), 5)
    assert np.count_nonzero(found.code_N == DUPLICATE) == 90
    assert np.count_nonzero(found.code_N == split.VALIDATION) == 100
    assert set(found.code_N.tolist()) <= {*LEFT, split.TRAIN, split.VALIDATION, split.TEST}
    assert found.conflicts == 60  # rows 9, 19, 29 ...: of three in a row two have another label than the one before
    assert (found.fold_N == -1).all()
    assert not found.copies_N.any()


def test_without_dropping_duplicates_rows_of_one_text_share_a_split(all_keys: Keys) -> None:
    found = decide(all_keys, _config(clean={"drop_duplicates": False}), 5)
    assert not (found.code_N == DUPLICATE).any()
    assert (found.code_N[9::10] == found.code_N[8::10]).all()


@pytest.mark.parametrize("balance", ["up", "down", "augment"])
def test_balanced_classes_are_equally_large(all_keys: Keys, balance: str) -> None:
    more = {"augment": {"ops": OPS}} if balance == "augment" else {}
    plain, found = decide(all_keys, _config(), 5), decide(all_keys, _config(balance=balance, **more), 5)
    train = found.code_N == split.TRAIN
    label_N = all_keys.column("label")
    before = np.bincount(label_N[plain.code_N == split.TRAIN])
    after = np.bincount(label_N[train], weights=found.copies_N[train] + 1)
    assert after.tolist() == [before.min() if balance == "down" else before.max()] * 2
    assert np.count_nonzero(found.code_N == BALANCED) == (before.max() - before.min() if balance == "down" else 0)
    assert not found.copies_N[~train].any()
    other = plain.code_N != split.TRAIN
    assert (found.code_N[other] == plain.code_N[other]).all()


def test_wanted_rows_are_spread_evenly_and_never_taken_away(all_keys: Keys) -> None:
    rows = np.count_nonzero(decide(all_keys, _config(), 5).code_N == split.TRAIN)
    for until in (1, rows, rows + 1, 3 * rows + 7):
        found = decide(all_keys, _config(augment={"until": until, "ops": OPS}), 5)
        copies = found.copies_N[found.code_N == split.TRAIN]
        assert rows + copies.sum() == max(until, rows)
        assert copies.max() - copies.min() <= 1


def test_copies_of_each_epoch_are_not_stored(all_keys: Keys) -> None:
    assert not decide(all_keys, _config(augment={"when": "epoch", "ops": OPS}), 5).copies_N.any()
    stored = decide(all_keys, _config(augment={"copies": 3, "ops": OPS}), 5)
    assert set(stored.copies_N[stored.code_N == split.TRAIN].tolist()) == {3}


def test_folds_take_the_place_of_the_validation_split(all_keys: Keys) -> None:
    found = decide(all_keys, _config(split={"test": 0.2, "folds": 3}), 5)
    train = found.code_N == split.TRAIN
    assert not (found.code_N == split.VALIDATION).any()
    assert np.ptp(np.bincount(found.fold_N[train])) <= 1
    assert (found.fold_N[~train] == -1).all()


def test_the_part_of_a_unit_is_what_the_second_pass_reads(all_keys: Keys) -> None:
    found = decide(all_keys, _config(augment={"copies": 2, "ops": OPS}), 5)
    part = found.unit(slice(300, 700))
    assert np.frombuffer(part["codes"], np.uint8).tolist() == found.code_N[300:700].tolist()
    assert np.frombuffer(part["copies"], np.uint16).tolist() == found.copies_N[300:700].tolist()
    assert np.frombuffer(part["folds"], np.int8).tolist() == found.fold_N[300:700].tolist()
    assert isinstance(found, Decision)


def test_rows_without_features_are_nobodys_near_duplicate(all_keys: Keys) -> None:
    found = decide(all_keys, _config(clean={"near_duplicates": {}}), 5)  # as of pictures alone
    assert not (found.code_N == NEAR).any()


def test_an_empty_corpus_and_impossible_numbers_are_refused(all_keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.split.validation=1000, but only \d+ rows are there"):
        decide(all_keys, _config(split={"validation": 1000, "test": 0.2}), 5)
    (tmp_path / "none").mkdir()
    nothing = Keys(tmp_path / "none", 1)
    left = {"shorter than clean.min_chars": {"bad": False, "rows": 9, "examples": []}}
    nothing.add({"unit": 0, "mark": "", "keys": b"", "features": b"", "left": json.dumps(left)})
    with pytest.raises(DataError, match=r"no row is left to train on.*shorter than clean.min_chars"):
        decide(nothing.close(), _config(), 5)
