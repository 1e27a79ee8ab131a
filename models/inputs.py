"""Rows of the store to what a model takes, by what it reads: the same code in training, evaluation and the endpoint. Takes rows as plain
arrays and the model's folder, whose preprocessor_config.json says how pixels are scaled; gives tensors by the model's names. Called by
tasks. Knows neither store nor files of media. B rows, L tokens, S pixels a side, T samples or steps of the longest row, C columns."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.families import ModelError
from models.processing import collate

Tensors = dict[str, torch.Tensor]
Arrays = Sequence[np.ndarray | None]


@dataclass(frozen=True)
class Rows:
    """Some rows as the store has them. `ids`: token ids a row. `media`: kind -> an array a row, None where it has none. `columns`: those
    that the task asks for (`Task.columns`), by name. `random`: for a task that draws, uint64 numbers (`Task.draws`, L) a row, the same for
    a row and epoch everywhere. `segments`: lengths of the texts in each packed row. `pair_at`: of rows of two texts the first token of the
    second one. `withheld`: numbers of the facts that a row's memory may not give it. `lost`: for a model that loses parts of a row while it trains,
    a uint64 number for each modality (M,) a row, the same for a row and epoch everywhere."""

    ids: Sequence[Any]
    columns: dict[str, Any] = field(default_factory=dict)
    random: Sequence[np.ndarray] | None = None
    segments: Sequence[Sequence[int]] | None = None
    media: Mapping[str, Arrays] = field(default_factory=dict)
    pair_at: Sequence[int] | np.ndarray | None = None
    withheld: Sequence[Any] | None = None
    lost: Sequence[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Reader(ABC):
    """Of one modality. `folder`: the model's. `alone`: the model reads nothing else, so each row must have it; else a mask says which rows
    have it, and what stands in for the others is never looked at."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self.folder, self.alone = folder, alone

    @abstractmethod
    def __call__(self, rows: Rows, pad_id: int) -> Tensors:
        """Raises ModelError where a row lacks what the model cannot do without."""

    def _arrays(self, rows: Rows, kind: str) -> tuple[list[np.ndarray | None], list[np.ndarray]]:
        """A row's array or None; and those that are there."""
        found = list(rows.media[kind])
        there = [array for array in found if array is not None]
        if self.alone and len(there) < len(found):
            raise ModelError(
                f"{len(found) - len(there)} of {len(found)} rows have no {kind}, and the model reads nothing else"
            )
        return found, there


class Text(Reader):
    """Token ids. Beside other modalities `text_mask` (B,) is false for a row of special tokens alone: it had no text. A mask token is a word."""

    def __call__(self, rows: Rows, pad_id: int) -> Tensors:
        ids_BL, mask_BL = collate(rows.ids, pad_id)
        found = {"input_ids": ids_BL, "attention_mask": mask_BL}
        if not self.alone:
            ordinary = [not self._special.issuperset(np.asarray(row).tolist()) for row in rows.ids]
            found["text_mask"] = torch.tensor(ordinary)
            mask_BL[:, 0] = 1  # a row without any token would have nothing to attend to
        return found

    @cached_property
    def _special(self) -> frozenset[int]:
        from models import tokens

        vocabulary = tokens.read(self.folder)
        return frozenset(vocabulary.special_ids) - {vocabulary.special.get("mask")}


class Image(Reader):
    """`pixel_values` (B, 3, S, S), fp32; of rows of F frames (B, F, 3, S, S). They are scaled to 0..1, then by the mean and deviation of each colour with which the
    model was trained; beside other modalities `image_mask` (B,)."""

    def __call__(self, rows: Rows, pad_id: int) -> Tensors:
        found, there = self._arrays(rows, "image")
        if not there:  # as of a video, whose frames are not encoded where nothing is there
            size = self._side
            return {"pixel_values": torch.zeros(len(found), 1, 3, size, size), "image_mask": _there(found)}
        side = there[0].shape
        pixels_BFSS3 = np.stack([np.zeros(side, np.uint8) if array is None else array for array in found])
        scaled = self._processing(pixels_BFSS3.reshape(-1, *side[1:]))
        values = {"pixel_values": scaled if side[0] == 1 else scaled.view(len(found), side[0], *scaled.shape[1:])}
        return values if self.alone else values | {"image_mask": _there(found)}

    @cached_property
    def _processing(self) -> Pixels:
        return read_pixels(self.folder)

    @cached_property
    def _side(self) -> int:
        """Pixels a side that the encoder takes: what it has places for, or where it takes any those it was trained on."""
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        places = (config.get("towers") or {}).get("image", {}).get("image_size")
        return places if isinstance(places, int) else self._processing.size


@dataclass(frozen=True)
class Pixels:
    """What preprocessor_config.json says of colours. `size`: pixels a side, for rows that have no picture."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int

    def __call__(self, pixels_BSS3: np.ndarray) -> torch.Tensor:
        """uint8 -> (B, 3, S, S), fp32."""
        scaled = torch.from_numpy(pixels_BSS3).permute(0, 3, 1, 2).float() * self.factor
        mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (self.mean, self.std))
        return ((scaled - mean) / std).contiguous()


def read_pixels(folder: Path) -> Pixels:
    """Raises ModelError for a folder without preprocessor_config.json, or one that says nothing of colours."""
    path = Path(folder) / "preprocessor_config.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rescaled = told.get("do_rescale", True)
        normal = told.get("do_normalize", True)
        found: Any = (told.get("do_center_crop", True) and told.get("crop_size")) or told.get("size") or {}
        size: dict[str, Any] = found if isinstance(found, dict) else {"height": found}  # a number in older folders
        return Pixels(
            factor=float(told.get("rescale_factor", 1 / 255)) if rescaled else 1.0,
            mean=tuple(map(float, told["image_mean"])) if normal else (0.0, 0.0, 0.0),
            std=tuple(map(float, told["image_std"])) if normal else (1.0, 1.0, 1.0),
            size=int(size.get("height", size.get("shortest_edge", 64))),
        )
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; a model that reads images needs it to scale colours") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: image_mean and image_std are not to be read ({error!r})") from None


class Audio(Reader):
    """`input_values` (B, T), int16 samples, zeros behind shorter rows; `audio_mask` (B, T), 1 for samples."""

    def __call__(self, rows: Rows, pad_id: int) -> Tensors:
        found, _ = self._arrays(rows, "audio")
        values_BT, mask_BT = _padded(found, np.int16, ())
        return {"input_values": values_BT, "audio_mask": mask_BT}


class Series(Reader):
    """`series` (B, T, C), fp32, zeros behind shorter rows; `series_mask` (B, T), 1 for steps."""

    def __call__(self, rows: Rows, pad_id: int) -> Tensors:
        found, there = self._arrays(rows, "series")
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        columns = there[0].shape[1] if there else int(config["towers"]["series"]["columns"])
        values_BTC, mask_BT = _padded(found, np.float32, (columns,))
        return {"series": values_BTC, "series_mask": mask_BT}


def _padded(found: Arrays, dtype: Any, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max([1, *(len(array) for array in found if array is not None)])
    values = np.zeros((len(found), longest, *shape), dtype)
    mask_BT = np.zeros((len(found), longest), np.int64)
    for i, array in enumerate(found):
        if array is not None:
            values[i, : len(array)] = array
            mask_BT[i, : len(array)] = 1
    return torch.from_numpy(values), torch.from_numpy(mask_BT)


def _there(found: Arrays) -> torch.Tensor:
    return torch.tensor([array is not None for array in found])


READERS: dict[str, type[Reader]] = {"text": Text, "image": Image, "audio": Audio, "series": Series}


def readers(reads: Sequence[str], folder: Path) -> list[Reader]:
    """One for each modality, in order."""
    return [READERS[name](folder, alone=len(reads) == 1) for name in reads]


def without(
    inputs: Tensors, reads: Sequence[str], random: Sequence[np.ndarray], rate: float, always: Sequence[str] = ()
) -> Tensors:
    """The same rows, where some of the modalities are missing: each with probability `rate`, by the row's own numbers (M,), never those of `always`
    and never the last one that a row has (modality dropout; ModDrop, Neverova et al. 2016, arXiv 1501.00102)."""
    masks = {name: inputs[f"{name}_mask"] for name in reads}
    there_BM = torch.stack([mask.bool().flatten(1).any(1) if mask.ndim > 1 else mask for mask in masks.values()], 1)
    draw_BM = torch.from_numpy((np.stack(list(random)) >> np.uint64(11)) / (1 << 53))
    for number, name in enumerate(reads):
        if name in always:
            draw_BM[:, number] = 1.0
    keep_BM = kept(there_BM, draw_BM, rate)
    found = {
        f"{name}_mask": mask * keep_BM[:, i].view(-1, *[1] * (mask.ndim - 1)).to(mask.dtype)
        for i, (name, mask) in enumerate(masks.items())
    }
    return {**inputs, **found}


def kept(present_BM: torch.Tensor, draw_BM: torch.Tensor, rate: float) -> torch.Tensor:
    """Which modalities of each row stay: those drawn at `rate` or above, and of those that a row has the one of the largest draw, which falls below
    only where all do."""
    draw_BM = draw_BM.masked_fill(~present_BM, -1.0)
    last_BM = torch.zeros_like(present_BM).scatter(1, draw_BM.argmax(1, keepdim=True), True)
    return (draw_BM >= rate) | last_BM
