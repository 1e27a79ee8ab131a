"""Bytes of an image, video or sound -> the array the store keeps. Takes what a column holds (bytes, or the mapping with `bytes`
that the features of `datasets` are stored as) and the spec's part; called by `sources` in workers and by the endpoint, so
training and serving see the same numbers. Files are hostile until decoded: the header is judged before anything is allocated,
formats are recognised by their first bytes and no decoder outside the lists below is ever started. Knows nothing of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestration.data.config import AudioConfig, ImageConfig


class MediaError(Exception):
    """A value that cannot be decoded. `reason` is the same for all values of its kind (a counter's key), `detail` its own."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def content(value: Any, kind: str) -> bytes:
    """The encoded bytes in a column's value. Raises MediaError.

    A mapping that names a `path` alone is refused: a corpus must not choose which files of the machine are read.
    """
    if isinstance(value, dict):
        value = value.get("bytes")
        if value is None:
            raise MediaError(f"{kind} is not in the file", "a path without bytes")
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise MediaError(f"{kind} is not bytes", type(value).__name__)
    if not value:
        raise MediaError(f"{kind} is empty", "0 bytes")
    return bytes(value)


def decode_image(value: Any, config: ImageConfig) -> np.ndarray | None:
    """uint8 (frames, size, size, 3), RGB; None for None. A still image fills all frames; a video, or where there are several
    frames a GIF, gives its own; of other animations the first picture is taken. Raises MediaError."""
    from orchestration.data.media import image, video

    if value is None:
        return None
    data = content(value, "image")
    moving = video.container(data) or (config.frames > 1 and data.startswith(b"GIF8"))
    return (video if moving else image).decode(data, config)


def decode_video(value: Any, config: ImageConfig) -> np.ndarray | None:
    """uint8 (frames, size, size, 3), RGB, of MP4, MOV, WebM, Matroska, AVI or GIF; None for None. Raises MediaError."""
    from orchestration.data.media.video import decode

    return None if value is None else decode(content(value, "video"), config)


def decode_audio(value: Any, config: AudioConfig) -> tuple[np.ndarray | None, bool]:
    """(int16 samples, mono at config.rate; whether config.max_seconds cut them) of WAV, FLAC, Ogg or MP3; (None, False) for
    None. Raises MediaError."""
    from orchestration.data.media.audio import decode

    return (None, False) if value is None else decode(content(value, "audio"), config)
