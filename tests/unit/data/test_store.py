from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from orchestration.data.shards import Columns, write_shard
from orchestration.data.store import TokenStore
from orchestration.errors import DamagedError, UserError
from orchestration.storage import Storage


def _shard(path: Path, first: int, rows: int, copies: int = 0) -> None:
    """Row i has i + 1 tokens of value i; copy c of it has c tokens more."""
    entries = [(row, copy) for row in range(first, first + rows) for copy in range(copies + 1)]
    lengths = [row + 1 + copy for row, copy in entries]
    columns = Columns(
        row_ids=[row.to_bytes(16, "big") for row, _ in entries],
        copies=np.array([copy for _, copy in entries]),
        values_T=np.repeat([row for row, _ in entries], lengths),
        offsets_E1=np.cumsum([0, *lengths]),
        labels=np.array([row % 2 for row, _ in entries]),
        texts=[f"row {row} copy {copy}" for row, copy in entries],
    )
    write_shard(path, columns)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A store of two training shards (3 and 2 rows, one copy each), shown in reverse, and an empty test split."""
    storage = Storage(str(tmp_path / "storage"))
    folder = storage.staging()
    _shard(folder / "train-0.arrow", 0, 3, copies=1)
    _shard(folder / "train-1.arrow", 3, 2, copies=1)
    reverse = [entry for row in (4, 3, 2, 1, 0) for entry in (2 * row, 2 * row + 1)]
    np.save(folder / "train.order.npy", np.array(reverse))
    np.save(folder / "test.order.npy", np.array([], dtype=np.int64))
    splits = {"train": {"shards": ["train-0.arrow", "train-1.arrow"]}, "test": {"shards": []}}
    meta = {"address": "a" * 32, "labels": ["x", "y"], "report": {}, "preprocessing": {}, "splits": splits}
    storage.commit("stores/a", folder, meta)
    return storage


def test_rows_come_in_shown_order_with_copies_behind_their_row(storage: Storage) -> None:
    train = TokenStore.open(storage, "stores/a").split("train")
    assert len(train) == 10
    assert train.texts([0, 1, 9]) == ["row 4 copy 0", "row 4 copy 1", "row 0 copy 1"]
    assert train.lengths.tolist() == [5, 6, 4, 5, 3, 4, 2, 3, 1, 2]
    assert train.lengths.dtype == np.int32
    assert train.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    assert train.labels.dtype == np.int64
    assert train.copies.tolist() == [0, 1] * 5
    assert train.row_ids[0] == train.row_ids[1] == (4).to_bytes(16, "big").hex()


def test_token_ids_are_views_of_the_mapped_file(storage: Storage) -> None:
    train = TokenStore.open(storage, "stores/a").split("train")
    ids = train.input_ids(np.array([9, 2, 2]))
    assert [row.tolist() for row in ids] == [[0, 0], [3] * 4, [3] * 4]
    assert all(row.base is not None and not row.flags.writeable for row in ids)


def test_head_counts_original_rows_and_keeps_their_copies(storage: Storage) -> None:
    train = TokenStore.open(storage, "stores/a").split("train")
    assert train.head(None) is train
    part = train.head(2)
    assert len(part) == 4
    assert part.texts(range(4)) == ["row 4 copy 0", "row 4 copy 1", "row 3 copy 0", "row 3 copy 1"]
    assert part.lengths.tolist() == [5, 6, 4, 5]
    assert len(train.head(5)) == 10
    with pytest.raises(UserError, match="6 rows are wanted of split 'train', which has 5"):
        train.head(6)


def test_an_empty_split_has_no_rows(storage: Storage) -> None:
    test = TokenStore.open(storage, "stores/a").split("test")
    assert len(test) == 0
    assert test.lengths.tolist() == test.labels.tolist() == test.row_ids == test.input_ids([]) == test.texts([]) == []


def test_a_split_of_another_name_is_refused(storage: Storage) -> None:
    with pytest.raises(UserError, match="allowed are train, validation, test"):
        TokenStore.open(storage, "stores/a").split("dev")


def test_a_store_without_manifest_or_with_a_cut_shard_is_refused(storage: Storage) -> None:
    with pytest.raises(DamagedError, match="no finished token store"):
        TokenStore.open(storage, "stores/b")
    shard = Path(storage.path("stores/a/train-1.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(DamagedError, match=r"train-1\.arrow: \d+ bytes, the manifest says \d+"):
        TokenStore.open(storage, "stores/a")


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    _shard(tmp_path / "a", 0, 5)
    _shard(tmp_path / "b", 0, 5)
    _shard(tmp_path / "c", 1, 5)
    marks = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in "abc"]
    assert marks[0] == marks[1] != marks[2]
