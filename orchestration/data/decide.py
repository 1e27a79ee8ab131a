"""What becomes of each row. Takes the keys of all rows and the `data` part of the spec; gives a code a row (its split, or why it
left), its fold and how many augmented copies it gets. Called by `prepare` on the driver between the passes. Pure: depends on
the set of rows and the seed, not on files, workers or order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestration.data import split
from orchestration.data.config import DataConfig
from orchestration.data.keys import Keys
from orchestration.data.scan import Unit
from orchestration.data.store import SPLITS
from orchestration.errors import DataError

DUPLICATE, NEAR, BALANCED = 255, 254, 253
ANY = 255  # no split is given
LEFT = {
    DUPLICATE: "duplicate of a row that stays",
    NEAR: "near duplicate of a row that stays",
    BALANCED: "above the smallest class (data.balance: down)",
}


@dataclass(frozen=True)
class Decision:
    """`code_N`: uint8, a split's number or a key of LEFT. `fold_N`: int8, -1 without folds. `copies_N`: uint16, augmented (or
    repeated) copies of a training row. `conflicts`: duplicates with another label than the row that stays."""

    code_N: np.ndarray
    fold_N: np.ndarray
    copies_N: np.ndarray
    conflicts: int

    def unit(self, part: slice) -> dict[str, bytes]:
        """The part of one unit's rows, as `passes.write_unit` wants it."""
        return {
            "codes": self.code_N[part].tobytes(),
            "copies": self.copies_N[part].tobytes(),
            "folds": self.fold_N[part].tobytes(),
        }


def given(config: DataConfig, units: Sequence[Unit], bounds: np.ndarray) -> np.ndarray:
    """The split of each row whose source names it, ANY for others (uint8 N). `bounds`: where each unit's rows begin."""
    names = [config.sources[unit.source].split for unit in units]
    code_U = np.array([ANY if name is None else SPLITS.index(name) for name in names], np.uint8)
    return np.repeat(code_U, np.diff(bounds))


def decide(keys: Keys, config: DataConfig, seed: int, given_N: np.ndarray | None = None) -> Decision:
    """`given_N`: as `given` gives it; None: no source names its split. Raises DataError where no row is left, UserError where the spec's numbers do not fit the corpus."""
    if not len(keys):
        raise DataError(
            "no row is left to train on; the report's reasons: " + (", ".join(keys.left) or "the files are empty")
        )
    code_N = np.full(len(keys), split.TRAIN, np.uint8)
    conflicts = 0
    if config.clean.drop_duplicates:
        keep_N, conflicts = keys.duplicates()
        code_N[~keep_N] = DUPLICATE
    if config.clean.near_duplicates is not None:
        code_N[(code_N == split.TRAIN) & ~_near(keys, config)] = NEAR
    kept = np.flatnonzero(code_N == split.TRAIN)
    label_N = keys.column("label")
    fold_N = np.full(len(keys), -1, np.int8)
    if given_N is not None:
        named = kept[given_N[kept] != ANY]
        code_N[named], kept = given_N[named], kept[given_N[kept] == ANY]
    if len(kept):
        assigned = split.assign(keys.column("group")[kept], label_N[kept], config.split, seed)
        code_N[kept], fold_N[kept] = assigned.code_N, assigned.fold_N
    copies_N = _copies(code_N, label_N, keys, config, seed)
    return Decision(code_N, fold_N, copies_N, conflicts)


def _near(keys: Keys, config: DataConfig) -> np.ndarray:
    """keep_N over all rows; rows without features (of pictures, audio) stay."""
    from orchestration.data import near

    assert config.clean.near_duplicates is not None
    keep_N = np.ones(len(keys), bool)
    if keys.featured:
        rows = np.concatenate([np.arange(keys.bounds[unit], keys.bounds[unit + 1]) for unit in keys.featured])
        features = [keys.features(unit) for unit in keys.featured]
        keep_N[rows] = near.groups(features, keys.column("row_id")[rows], config.clean.near_duplicates).keep_N
    return keep_N


def _copies(code_N: np.ndarray, label_N: np.ndarray, keys: Keys, config: DataConfig, seed: int) -> np.ndarray:
    """Copies a row; with balance `down`, rows that leave get their code in place."""
    copies_N = np.zeros(len(code_N), np.uint16)
    stored = config.augment if config.augment and config.augment.when == "prepare" else None
    if not (config.balance or stored):
        return copies_N
    from orchestration.data.augment import loop

    train = np.flatnonzero(code_N == split.TRAIN)
    hash_N = split.salted(keys.column("row_id")[train], seed, "copies")
    if config.balance == "down":
        stays = loop.balanced_rows(label_N[train], hash_N)
        code_N[train[~stays]] = BALANCED
        train, hash_N = train[stays], hash_N[stays]
    if config.balance in ("up", "augment"):
        copies_N[train] = loop.balanced_copies(label_N[train], hash_N)
    elif stored and stored.until is not None:
        copies_N[train] = loop.wanted_copies(hash_N, stored.until)
    elif stored:
        copies_N[train] = stored.copies
    return copies_N
