"""What a request or a row of the store holds beside its text -> the arrays that the model's task reads, by the code that prepared the
training rows. Takes the `preprocessing` of a package; called by the package. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestration.answers.kinds import Unanswerable
from orchestration.data.config import AudioConfig, ImageConfig

MEDIA = ("image", "audio", "series")
Decode = Callable[[Any], np.ndarray]


def settings(media: Sequence[str], made_with: Mapping[str, Any], columns: int = 1) -> dict[str, Any]:
    """The part of preprocessing.json for these kinds of media. `made_with`: the `data` part of the spec behind a store."""
    kept = {"image": made_with["image"], "audio": made_with["audio"], "series": {"columns": columns}}
    return {kind: kept[kind] for kind in media}


class Decoder:
    """`decoder(row, number)` -> kind -> array. An array is taken as it is: a row of a store. Raises Unanswerable naming the row's number and
    what is wrong with which part."""

    def __init__(self, media: Sequence[str], preprocessing: Mapping[str, Any]) -> None:
        self._decode: dict[str, Decode] = {kind: _DECODERS[kind](preprocessing[kind]) for kind in media}

    def __call__(self, row: Mapping[str, Any], number: int) -> dict[str, np.ndarray | None]:
        return {kind: self._one(kind, row.get(kind), number) for kind in self._decode}

    def _one(self, kind: str, value: Any, number: int) -> np.ndarray | None:
        from orchestration.data.media import MediaError

        if value is None or isinstance(value, np.ndarray):
            return value
        try:
            return self._decode[kind](value)
        except MediaError as error:
            raise Unanswerable(number, str(error), part=kind) from None


def _image(values: Mapping[str, Any]) -> Decode:
    from orchestration.data.media import decode_image

    config = ImageConfig.model_validate(values)
    return lambda value: decode_image(value, config)  # type: ignore[return-value]


def _audio(values: Mapping[str, Any]) -> Decode:
    from orchestration.data.media import decode_audio

    config = AudioConfig.model_validate(values)
    return lambda value: decode_audio(value, config)[0]  # type: ignore[return-value]


def _series(values: Mapping[str, Any]) -> Decode:
    from orchestration.data.media import MediaError

    columns = int(values["columns"])

    def decode(value: Any) -> np.ndarray:
        try:
            found = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            raise MediaError("series is not a list of steps of numbers") from None
        found = found[:, None] if found.ndim == 1 else found
        if found.ndim != 2 or found.shape[1] != columns or not len(found) or not np.isfinite(found).all():
            raise MediaError(f"series needs steps of {columns} finite number(s) each", f"shape {found.shape}")
        return found

    return decode


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Decode]] = {"image": _image, "audio": _audio, "series": _series}
