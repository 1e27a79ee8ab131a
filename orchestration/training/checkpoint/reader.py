"""Reading a checkpoint, in whatever cut. Takes a sealed folder; gives whole named tensors, or a range of the elements of one. Files are
mapped into memory, so only the pages of what is asked for are read, and of an object store only the files that hold it are copied here.
Used by the loop on each rank, by export and by benchmarks. On a file system it trusts the bytes, which `find` has compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestration.errors import DamagedError
from orchestration.storage import Storage
from orchestration.training.checkpoint import format, frozen
from orchestration.training.checkpoint.format import Piece
from orchestration.training.state import TrainState


def open(storage: Storage, rel: str) -> Reader:
    """Raises DamagedError where the folder is not sealed or its parts do not make whole tensors."""
    return Reader(storage, rel)


class Reader:
    """`state`: TrainState. `meta`: the caller's. `steps`: updates behind the moments of each parameter. `extra`: the engine's numbers.
    `shapes`: of every trained weight, buffer and moment. Tensors that it gives lie in the mapped files: copy before changing them at length."""

    def __init__(self, storage: Storage, rel: str, *, verify: bool = False) -> None:
        sealed = format.read_seal(storage, rel)
        if sealed is None:
            raise DamagedError(f"checkpoint {storage.path(rel)}: there is no sealed folder of that name")
        self.storage, self.rel, self.sealed = storage, rel, sealed
        if verify:
            for file, wanted in sealed.files.items():
                storage.fetch_file(rel, file, wanted, verify=True)
        self.frozen_rel: str | None = sealed.meta["frozen"]
        held = format.parse_state(*self._read(sealed.meta["state"]))
        self.state: TrainState = held.train
        self.meta, self.shapes, self.steps, self.extra = held.meta, held.shapes, held.steps, held.extra
        parts = [format.parse_part(*self._read(format.part_file(rank))) for rank in range(sealed.meta["world"])]
        self._weights, self._moments = format.merge(parts, "weights"), format.merge(parts, "moments")
        if wrong := format.gaps(self._weights, self._moments, self.shapes, self.steps):
            raise DamagedError(f"checkpoint {storage.path(rel)}: {wrong}")
        self._open: dict[str, Any] = {}

    def weights(self) -> dict[str, Any]:
        """Every parameter and persistent buffer, whole: trained and frozen ones."""
        frozen_ones = self._frozen()
        still = {} if frozen_ones is None else {tensor: frozen_ones.get_tensor(tensor) for tensor in frozen_ones.keys()}  # noqa: SIM118
        return {**still, **{tensor: self._whole(tensor, pieces) for tensor, pieces in self._weights.items()}}

    def moments(self) -> dict[str, Any]:
        """What the optimizer keeps of each parameter, whole: `{parameter}.exp_avg` and the like; of SGD without momentum nothing."""
        return {tensor: self._whole(tensor, pieces) for tensor, pieces in self._moments.items()}

    def read(self, name: str, start: int, stop: int) -> Any:
        """Elements [start, stop) of the flattened tensor `name`: a weight, a buffer or a moment. Raises KeyError."""
        pieces = self._moments.get(name) or self._weights.get(name)
        if pieces is None:
            return self._of_frozen(name)[start:stop]
        found = [self._slice(piece, start, stop) for piece in pieces if piece[2] < stop and piece[2] + piece[3] > start]
        if len(found) == 1:
            return found[0]
        import torch

        return torch.cat(found) if found else self._slice(pieces[0], 0, 0)

    def _whole(self, tensor: str, pieces: list[Piece]) -> Any:
        return self.read(tensor, 0, pieces[-1][2] + pieces[-1][3]).reshape(self.shapes[tensor])

    def _slice(self, piece: Piece, start: int, stop: int) -> Any:
        file, key, first, numel = piece
        part = self._handle(file).get_slice(key)
        return part[max(0, start - first) : max(0, min(numel, stop - first))]

    def _of_frozen(self, name: str) -> Any:
        frozen_ones = self._frozen()
        if frozen_ones is None or name not in frozen_ones.keys():  # noqa: SIM118
            raise KeyError(f"checkpoint {self.storage.path(self.rel)} has no tensor {name}")
        return frozen_ones.get_tensor(name).reshape(-1)

    # ---------------------------------------------------------------------------------------------- files

    def _handle(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = _map(self._fetch(file))
        return self._open[file]

    def _frozen(self) -> Any:
        """None where nothing is frozen."""
        if self.frozen_rel and self.frozen_rel not in self._open:
            self._open[self.frozen_rel] = _map(frozen.fetch(self.storage, self.frozen_rel, verify=False))
        return self._open.get(self.frozen_rel or "")

    def _read(self, file: str) -> tuple[bytes, str]:
        try:
            return self._fetch(file).read_bytes(), f"{self.storage.path(self.rel)}/{file}"
        except FileNotFoundError:
            raise DamagedError(f"{self.storage.path(self.rel)}/{file}: missing") from None

    def _fetch(self, file: str) -> Path:
        if file not in self.sealed.files:
            raise DamagedError(f"checkpoint {self.storage.path(self.rel)}: its manifest does not name {file}")
        return self.storage.fetch_file(self.rel, file, self.sealed.files[file], verify=False)


def _map(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="pt")
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{path}: {error}") from None
