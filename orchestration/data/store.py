"""The token store: what `prepare` writes and training reads. A sealed folder of Arrow shards by split, mapped into memory,
never loaded. Called by training ranks, evaluation and the sweep. Knows nothing of Ray, models or how rows were made; `shards`
writes what is read here.

A split shows its entries in the order of a salted hash of their text, augmented copies and windows behind their row, so that its
first rows are a random subset of it: `split.head(600)`. A streamed store shows them in the order in which they were made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orchestration.data.shards import HEAD
from orchestration.errors import DamagedError, UserError
from orchestration.storage import Manifest, Storage

SPLITS = ("train", "validation", "test")
MEDIA: dict[str, Any] = {"image": np.uint8, "audio": np.int16, "series": np.float32}


class Split:
    """Rows 0 ... len-1 in hash order. Index arrays are positions in this order."""

    def __init__(
        self,
        name: str,
        batches: list[pa.RecordBatch],
        rows_N: np.ndarray,
        shapes: dict[str, tuple[int, ...]] | None = None,
        targets: Sequence[str] = (),
    ) -> None:
        """`rows_N`: the shown order, as rows of the shards laid end to end (int64). `shapes`: of one array of each kind of media.
        `targets`: columns of what rows teach beside their class."""
        self.name = name
        self._shapes = shapes or {}
        self._targets = targets
        self._batches = batches
        self._starts = np.cumsum([0, *(len(batch) for batch in batches)])
        self._rows_N = rows_N

    def __len__(self) -> int:
        return len(self._rows_N)

    @property
    def rows_N(self) -> np.ndarray:
        """Each entry's row of the shards laid end to end: the same in every part of the split."""
        return self._rows_N

    def _column(self, name: str, dtype: Any) -> np.ndarray:
        """A fixed-width column in shown order."""
        parts = [batch.column(name).to_numpy(zero_copy_only=True) for batch in self._batches]
        return np.concatenate([np.empty(0, dtype), *parts])[self._rows_N].astype(dtype)

    @cached_property
    def _ids(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return self._lists("input_ids")

    def _lists(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(offsets, values) of each record batch: views of the mapped file."""
        columns = [batch.column(name) for batch in self._batches]
        return [(column.offsets.to_numpy(), column.values.to_numpy()) for column in columns]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens a row (int32 N)."""
        parts = [np.diff(offsets) for offsets, _ in self._ids]
        return np.concatenate([np.empty(0, np.int32), *parts])[self._rows_N].astype(np.int32)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index a row (int64 N)."""
        return self._column("label", np.int64)

    @cached_property
    def values(self) -> np.ndarray:
        """Numeric target a row (float32 N). As of all targets: raises UserError where the store holds none."""
        self._need("value")
        return self._column("value", np.float32)

    @cached_property
    def heads(self) -> dict[str, np.ndarray]:
        """Head -> class index a row, -1 where it has none (int64 N)."""
        names = [name for name in self._targets if name.startswith(HEAD)] or self._need("labels of heads")
        return {name.removeprefix(HEAD): self._column(name, np.int64) for name in names}

    def pair_at(self, indices: Any) -> np.ndarray:
        """The first token of the second text: token type 1 from there (int32). A row of one text has its length there."""
        return self._pair_at_N[np.asarray(indices, dtype=np.int64)]

    @cached_property
    def _pair_at_N(self) -> np.ndarray:
        self._need("pair_at")
        return self._column("pair_at", np.int32)

    def targets(self, indices: Any) -> list[np.ndarray]:
        """Of each index the ids of the text to write, or a tag a token (-100: none), or first and last token of the answer ([0, 0]: none):
        int32 views of the mapped file."""
        ids = self._target_ids
        return [ids[b][1][ids[b][0][row] : ids[b][0][row + 1]] for b, row in self._locate(indices)]

    @cached_property
    def _target_ids(self) -> list[tuple[np.ndarray, np.ndarray]]:
        self._need("target_ids")
        return self._lists("target_ids")

    def withheld(self, indices: Any) -> list[np.ndarray]:
        """Of each index the numbers of the facts that the row may not be given (int32)."""
        held = self._withheld
        return [held[b][1][held[b][0][row] : held[b][0][row + 1]] for b, row in self._locate(indices)]

    @cached_property
    def _withheld(self) -> list[tuple[np.ndarray, np.ndarray]]:
        self._need("withheld")
        return self._lists("withheld")

    def _need(self, name: str) -> list[str]:
        if name not in self._targets:
            raise UserError(f"the store has no {name}; it has: {', '.join(self._targets) or 'classes alone'}")
        return [name]

    @cached_property
    def sources(self) -> np.ndarray:
        """Index into the spec's sources an entry (int16 N)."""
        return self._column("source", np.int16)

    @cached_property
    def folds(self) -> np.ndarray:
        """Fold an entry, -1 without folds (int8 N)."""
        return self._column("fold", np.int8)

    @cached_property
    def originals(self) -> np.ndarray:
        """True for the first entry of each row: no copy, no later window (bool N)."""
        return (self.copies == 0) & (self.parts == 0)

    @cached_property
    def parts(self) -> np.ndarray:
        """Number of the window of a long row an entry (int16 N)."""
        return self._column("part", np.int16)

    @cached_property
    def copies(self) -> np.ndarray:
        """0 for a row as it is, else the number of the augmented copy (int16 N)."""
        return self._column("copy", np.int16)

    @cached_property
    def row_ids(self) -> list[str]:
        """32 hex digits an entry; a copy has its row's id, a packed entry that of its first row."""
        found = [value.hex() for batch in self._batches for value in batch.column("row_id").to_pylist()]
        return [found[row] for row in self._rows_N.tolist()]

    def ids_of(self, indices: Any) -> list[bytes]:
        """Row id (16 bytes) of each index."""
        return [self._batches[b].column("row_id")[row].as_py() for b, row in self._locate(indices)]

    def names_of(self, indices: Any) -> list[tuple[bytes, int, int]]:
        """Row id, copy and window of each index: what tells an entry from all others, in any store of these rows."""
        rows = self.ids_of(indices), self.copies[indices].tolist(), self.parts[indices].tolist()
        return list(zip(*rows, strict=True))

    def _locate(self, indices: Any) -> list[tuple[int, int]]:
        """(record batch, row in it) of each index."""
        rows = self._rows_N[np.asarray(indices, dtype=np.int64)]
        batches = np.searchsorted(self._starts, rows, side="right") - 1
        return list(zip(batches.tolist(), (rows - self._starts[batches]).tolist(), strict=True))

    def input_ids(self, indices: Any) -> list[np.ndarray]:
        """Token ids of each index: int32 views of the mapped file, not to be written to."""
        ids = self._ids
        return [ids[b][1][ids[b][0][row] : ids[b][0][row + 1]] for b, row in self._locate(indices)]

    def texts(self, indices: Any) -> list[str]:
        return [self._batches[b].column("text")[row].as_py() for b, row in self._locate(indices)]

    def segments(self, indices: Any) -> list[list[int]]:
        """Tokens of each row inside a packed entry."""
        return [self._batches[b].column("segments")[row].as_py() for b, row in self._locate(indices)]

    def segment_rows(self, indices: Any) -> list[list[str]]:
        """Row ids (hex) inside a packed entry."""
        found = [self._batches[b].column("segment_rows")[row].as_py() for b, row in self._locate(indices)]
        return [[value.hex() for value in values] for values in found]

    def media(self, kind: str, indices: Any) -> list[np.ndarray | None]:
        """Images (uint8 frames x size x size x 3), audio (int16 samples) or series (float32 steps x columns) of each entry: views of
        the mapped file; None where it has none. Raises UserError where the store holds no such kind."""
        if kind not in self._shapes:
            raise UserError(f"the store has no {kind}; it has: {', '.join(self._shapes) or 'text alone'}")
        dtype, shape = MEDIA[kind], self._shapes[kind]
        found: list[np.ndarray | None] = []
        for b, row in self._locate(indices):
            column = self._batches[b].schema.get_field_index(kind)  # sources without it have no such column
            value: Any = self._batches[b].column(column)[row] if column >= 0 else None
            valid = value is not None and value.is_valid
            found.append(np.frombuffer(value.as_buffer(), dtype).reshape(shape) if valid else None)
        return found

    def head(self, rows: int | None) -> Split:
        """The first `rows` original rows with their copies: a random subset, the same for a given store. None: all."""
        if rows is None:
            return self
        starts = np.flatnonzero(self.originals)
        if rows > len(starts):
            raise UserError(
                f"{rows} rows are wanted of split {self.name!r}, which has {len(starts)}; ask for fewer or none"
            )
        end = len(self) if rows == len(starts) else int(starts[rows])
        return Split(self.name, self._batches, self._rows_N[:end], self._shapes, self._targets)

    def only(self, keep_N: np.ndarray) -> Split:
        """Those entries for which `keep_N` is True."""
        return Split(self.name, self._batches, self._rows_N[keep_N], self._shapes, self._targets)


class TokenStore:
    """A sealed store. `fingerprint`: its content address. `meta`: everything its manifest says. `labels`, `tags`, `heads` (by name):
    the classes, in the order of their numbers; `sources`: names, likewise."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = manifest.meta
        self.fingerprint: str = self.meta["address"]
        self.labels: list[str] = list(self.meta["labels"])
        spec = self.meta.get("spec", {})
        self.tags: list[str] = spec.get("tags", [])
        self.heads: dict[str, list[str]] = spec.get("heads", {})
        self.sources: list[str] = [source.get("name", "") for source in spec.get("sources", [])]
        self.report: dict[str, Any] = self.meta["report"]  # keys sorted by name, as JSON keeps them
        self.preprocessing: dict[str, Any] = self.meta["preprocessing"]
        self._splits: dict[str, Split] = {}

    @classmethod
    def open(cls, storage: Storage, rel: str) -> TokenStore:
        """Raises DamagedError where the store was never finished or a file is missing or has another size."""
        manifest = storage.manifest(rel)
        if manifest is None:
            raise DamagedError(f"{storage.path(rel)}: no finished token store; run `eagleray prepare SPEC`")
        folder = storage.fetch(rel, manifest)
        for name, wanted in manifest.files.items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != wanted["bytes"]:
                raise DamagedError(
                    f"{path}: {found} bytes, the manifest says {wanted['bytes']}; remove the folder, prepare again"
                )
        return cls(folder, manifest)

    @property
    def folds(self) -> int | None:
        """How many folds the rows outside the test split fall into; None without."""
        return self.meta["spec"]["split"]["folds"] if "spec" in self.meta else None

    @property
    def packed(self) -> bool:
        """Whether a row may be several texts side by side."""
        return bool(self.meta.get("spec", {}).get("tokenize", {}).get("pack"))

    @property
    def pairs(self) -> bool:
        """Whether a row may be two texts."""
        return "pair_at" in self.meta.get("targets", ())

    def split(self, name: str, fold: int | None = None) -> Split:
        """With folds, `validation` is the rows of one fold as they are, `train` all others with their copies.

        Raises UserError for another name than train, validation, test, and for a fold that is not there.
        """
        if name not in SPLITS:
            raise UserError(f"split {name!r}: allowed are {', '.join(SPLITS)}")
        if self.folds is None or name == "test":
            return self.whole(name)
        if fold is None or not 0 <= fold < self.folds:
            raise UserError(f"fold {fold}: the store has the folds 0 to {self.folds - 1}; set train.fold")
        whole = self.whole("train")
        held = whole.folds == fold
        return whole.only(~held if name == "train" else held & (whole.copies == 0))

    def whole(self, name: str) -> Split:
        """All entries of a split's shards, of every fold."""
        if name not in self._splits:
            part = self.meta["splits"][name]
            batches = [batch for shard in part["shards"] for batch in mapped(self.folder / shard)]
            order = self.folder / f"{name}.order.npy"
            rows_N = (
                np.load(order, mmap_mode="r", allow_pickle=False)
                if order.exists()
                else np.arange(sum(map(len, batches)))  # a streamed store
            )
            shapes = {kind: tuple(shape) for kind, shape in self.meta.get("shapes", {}).items()}
            self._splits[name] = Split(name, batches, rows_N, shapes, self.meta.get("targets", ()))
        return self._splits[name]


def mapped(path: Path) -> list[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except pa.ArrowInvalid as error:
        raise DamagedError(
            f"{path}: not a token store shard ({error}); remove the store's folder and prepare again"
        ) from None
