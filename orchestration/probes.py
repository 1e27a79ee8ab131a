"""The rows by which a package is verified: texts, and beside them pictures, sounds or series made here from numbers alone, encoded as a
client would send them, so that decoding is verified too. Takes what the model reads; gives rows, and their form in probe.json. Called by
the package and by what deploys it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STEPS = 24  # of a series


def rows(texts: Sequence[str], reads: Sequence[str], preprocessing: Mapping[str, Any]) -> list[Any]:
    """As many rows as texts; of several modalities each is missing once."""
    if preprocessing.get("pair"):
        return list(zip(texts, [*texts[1:], texts[0]], strict=True))
    if tuple(reads) == ("text",):
        return list(texts)
    found = []
    for number, text in enumerate(texts):
        made = {"text": text} | {kind: _MAKERS[kind](number, preprocessing[kind]) for kind in reads if kind != "text"}
        left_out = reads[number] if len(reads) > 1 and number < len(reads) else None
        found.append({kind: made[kind] for kind in reads if kind != left_out})
    return found


def written(probe: Sequence[Any]) -> dict[str, Any]:
    """JSON values: bytes as base64."""
    if all(isinstance(row, str | tuple) for row in probe):
        return {"texts": list(probe)}
    encoded = [
        {key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in row.items()}
        for row in probe
    ]
    return {"rows": encoded}


def read(told: Mapping[str, Any]) -> list[Any]:
    """What `written` wrote."""
    if "texts" in told:
        return [row if isinstance(row, str) else tuple(row) for row in told["texts"]]
    encoded = {"image", "audio"}
    return [
        {key: base64.b64decode(value) if key in encoded else value for key, value in row.items()}
        for row in told["rows"]
    ]


def video(pixels_FSS3: np.ndarray) -> bytes:
    """uint8 pixels as a Matroska file of FFV1, which loses nothing; the same bytes each time."""
    import av

    held = io.BytesIO()
    with av.open(held, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = pixels_FSS3.shape[1:3]
        stream.pix_fmt = "bgr0"
        for pixels_SS3 in pixels_FSS3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_SS3), format="rgb24")))
        container.mux(stream.encode())
    return held.getvalue()


def png(pixels_HW3: np.ndarray) -> bytes:
    """uint8 pixels as a PNG file."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(pixels_HW3).save(held, "PNG")
    return held.getvalue()


def wav(samples_T: np.ndarray, rate: int) -> bytes:
    """int16 mono samples as a WAV file."""
    import soundfile

    held = io.BytesIO()
    soundfile.write(held, samples_T, rate, format="WAV", subtype="PCM_16")
    return held.getvalue()


def _draw(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(number))


def _picture(number: int, values: Mapping[str, Any]) -> bytes:
    """Broad stripes and noise, higher than wide; of several frames a video."""
    height, width = 60, 40
    waves_HW1 = np.sin((1 + number) * np.add.outer(np.arange(height), 2 * np.arange(width)) / 20)[:, :, None]
    frames = int(values.get("frames", 1))
    noise_FHW3 = _draw(number).uniform(-60, 60, (frames, height, width, 3))
    pixels_FHW3 = (128 + 60 * waves_HW1 + noise_FHW3).clip(0, 255).astype(np.uint8)
    return png(pixels_FHW3[0]) if frames == 1 else video(pixels_FHW3)


def _sound(number: int, values: Mapping[str, Any]) -> bytes:
    """A tone in noise, of another length each time."""
    rate = int(values["rate"])
    time_T = np.arange(int(rate * (0.3 + 0.1 * number))) / rate
    wave_T = 0.4 * np.sin(2 * np.pi * 220 * (1 + number) * time_T) + _draw(number).normal(0, 0.05, len(time_T))
    return wav((wave_T.clip(-1, 1) * 32767).astype(np.int16), rate)


def _steps(number: int, values: Mapping[str, Any]) -> list[list[float]]:
    walk_TC = _draw(number).normal(0, 1 + number, (STEPS, int(values["columns"]))).cumsum(0)
    return walk_TC.round(4).tolist()  # type: ignore[no-any-return]


_MAKERS = {"image": _picture, "audio": _sound, "series": _steps}
