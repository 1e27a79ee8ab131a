"""Reading a checkpoint, in whatever cut. Takes a sealed folder; gives whole named tensors, or a range of the elements of one. Files are
mapped into memory, so only the pages of what is asked for are read. Used by the loop on each rank, by export and by benchmarks.
It trusts the bytes: `find.verify` compares them with the manifest."""

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
    `shapes`: of each tensor that was trained, and of buffers."""

    def __init__(self, storage: Storage, rel: str) -> None:
        sealed = format.read_seal(storage, rel)
        if sealed is None:
            raise DamagedError(f"checkpoint {storage.path(rel)}: there is no sealed folder of that name")
        self.shown, self.sealed = storage.path(rel), sealed
        self.folder = storage.fetch(rel)
        held = format.parse_state(*self._read(sealed.meta["state"]))
        self.state: TrainState = held.train
        self.meta, self.shapes, self.steps, self.extra = held.meta, held.shapes, held.steps, held.extra
        parts = [format.parse_part(*self._read(format.part_file(rank))) for rank in range(sealed.meta["world"])]
        self._weights, self._moments = format.merge(parts, "weights"), format.merge(parts, "moments")
        if wrong := format.gaps(self._weights, self._moments, self.shapes, self.steps):
            raise DamagedError(f"checkpoint {self.shown}: {wrong}")
        self.frozen_rel: str | None = sealed.meta["frozen"]
        self._frozen_folder = storage.fetch(self.frozen_rel) if self.frozen_rel else None
        self._open: dict[Path, Any] = {}

    def weights(self) -> dict[str, Any]:
        """Every parameter and persistent buffer, whole: trained and frozen ones."""
        found = {tensor: self._whole(tensor, pieces) for tensor, pieces in self._weights.items()}
        if self._frozen_folder:
            handle = self._handle(self._frozen_folder / frozen.FILE)
            found |= {tensor: handle.get_tensor(tensor) for tensor in handle.keys() if tensor not in found}  # noqa: SIM118
        return found

    def moments(self) -> dict[str, Any]:
        """`{parameter}.exp_avg` and `{parameter}.exp_avg_sq`, whole."""
        return {tensor: self._whole(tensor, pieces) for tensor, pieces in self._moments.items()}

    def read(self, name: str, start: int, stop: int) -> Any:
        """Elements [start, stop) of the flattened tensor `name`, a trained weight or a moment. Raises KeyError."""
        pieces = self._moments.get(name) or self._weights[name]
        found = [self._slice(piece, start, stop) for piece in pieces if piece[2] < stop and piece[2] + piece[3] > start]
        if len(found) == 1:
            return found[0]
        import torch

        return torch.cat(found) if found else self._slice(pieces[0], start, start)

    def _whole(self, tensor: str, pieces: list[Piece]) -> Any:
        shape = format.shape_of(tensor, self.shapes)
        return self.read(tensor, 0, pieces[-1][2] + pieces[-1][3]).reshape(shape)

    def _slice(self, piece: Piece, start: int, stop: int) -> Any:
        file, key, first, numel = piece
        part = self._handle(self.folder / file).get_slice(key)
        return part[max(0, start - first) : max(0, min(numel, stop - first))]

    def _handle(self, path: Path) -> Any:
        from safetensors import SafetensorError, safe_open

        if path not in self._open:
            try:
                self._open[path] = safe_open(str(path), framework="pt")
            except (OSError, SafetensorError) as error:
                raise DamagedError(f"{path}: {error}") from None
        return self._open[path]

    def _read(self, file: str) -> tuple[bytes, str]:
        if file not in self.sealed.files:
            raise DamagedError(f"checkpoint {self.shown}: the manifest does not name {file}")
        try:
            return (self.folder / file).read_bytes(), f"{self.shown}/{file}"
        except FileNotFoundError:
            raise DamagedError(f"{self.shown}/{file}: missing") from None
