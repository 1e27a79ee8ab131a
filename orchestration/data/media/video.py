"""Frames of a video with PyAV (FFmpeg). Takes encoded bytes; gives uint8 (frames, size, size, 3), evenly spaced. Used by `media`.

The container is named to FFmpeg by its first bytes: left to guess it would also take playlists, which name other files and
addresses to open. One thread, since every worker has its own core."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from orchestration.data.config import ImageConfig
from orchestration.data.media import MediaError
from orchestration.data.media.image import guarded, middle_square, opened, too_large

MAX_WORK = 5 * 10**10  # pixels decoded for one row: 13 minutes of 1080p; a few kB of still frames can claim hours
QUARTERS = {0: None, 90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


def decode(data: bytes, config: ImageConfig) -> np.ndarray:
    """uint8 (frames, size, size, 3): of `frames` equal stretches of the video the middle picture each. A video of fewer pictures
    shows some twice. Raises MediaError."""
    with guarded("video"):
        pictures = _gif(data, config) if data.startswith(b"GIF8") else _video(data, config)
        return np.stack([np.asarray(picture) for picture in pictures])


def places(count: int, frames: int) -> list[int]:
    """Which of `count` pictures are taken: the middle of each of `frames` equal stretches."""
    return [(2 * i + 1) * count // (2 * frames) for i in range(frames)]


def _gif(data: bytes, config: ImageConfig) -> Iterator[Image.Image]:
    with opened(data, "video", config.max_pixels) as image:
        count = getattr(image, "n_frames", 1)
        _check_work(count, image.width, image.height)
        for place in places(count, config.frames):
            image.seek(place)
            yield middle_square(image, config.size)


def _video(data: bytes, config: ImageConfig) -> Iterator[Image.Image]:
    count = _count(data, config)
    wanted = places(count, config.frames)
    with _open(data) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(config.max_pixels)}  # a stream may change its size on the way
        shown, frame = 0, None
        for frame in container.decode(stream):
            if shown == wanted[0]:
                picture = _picture(frame, config.size)
                while wanted and wanted[0] == shown:
                    wanted.pop(0)
                    yield picture
            if not wanted:
                return
            shown += 1
        if frame is None or shown * 2 < count:
            raise MediaError("video cannot be decoded", f"{shown} of {count} pictures")
        for (
            _
        ) in wanted:  # packets that show nothing were counted, such as VP8's hidden references: the last picture stays
            yield _picture(frame, config.size)


def _picture(frame: Any, size: int) -> Image.Image:
    """Turned as the container says (a telephone held upright)."""
    square = middle_square(frame.to_image(), size)
    turn = QUARTERS.get(frame.rotation % 360)
    return square if turn is None else square.transpose(turn)


def _count(data: bytes, config: ImageConfig) -> int:
    """Pictures in the video, by its packets: nothing is decoded. Raises MediaError for what would cost too much."""
    with _open(data) as container:
        if not container.streams.video:
            raise MediaError("video cannot be decoded", "no stream of pictures")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise MediaError("video cannot be decoded", "unknown codec")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > config.max_pixels:
            raise too_large("video", config.max_pixels, f"{width} x {height}")
        count = 0
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise MediaError("video cannot be decoded", f"truncated behind picture {count}")
            count += packet.size > 0 and not packet.is_discard
    if count == 0 or count * 2 < stream.frames:  # a header may count some that editing has hidden, but not the most
        raise MediaError("video cannot be decoded", f"{count} of {stream.frames} pictures")
    _check_work(count, width, height)
    return count


def _check_work(count: int, width: int, height: int) -> None:
    if count * width * height > MAX_WORK:
        raise MediaError("video is too long to be decoded", f"{count} pictures of {width} x {height}")


def _open(data: bytes) -> Any:
    import av

    form = container(data)
    if form is None:
        raise MediaError(
            "video cannot be decoded", f"not MP4, MOV, WebM, Matroska, AVI or GIF; begins with {data[:8]!r}"
        )
    if len(data) < _claimed(data, form):
        raise MediaError("video cannot be decoded", f"truncated: {len(data)} of {_claimed(data, form)} bytes")
    return av.open(io.BytesIO(data), format=form)


def _claimed(data: bytes, form: str) -> int:
    """Bytes that the header of an AVI or Matroska file says there are; FFmpeg plays what is left of one that was cut off. 0: it
    does not say, or as MP4 it is noticed while its parts are read."""
    if form == "avi":
        size = int.from_bytes(data[4:8], "little")
        return size + 8 if size < 0xFFFFFFFF else 0
    if form == "mp4":
        return 0
    header, at = _ebml_size(data, 4)
    if data[at + header : at + header + 4] != b"\x18\x53\x80\x67":  # Segment, which holds all the rest
        return 0
    size, at = _ebml_size(data, at + header + 4)
    return at + size


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """A size of RFC 8794 (4: its leading zero bits say how long it is) and where it ends; 0 for unknown, all of its bits one."""
    length = 9 - data[at].bit_length()
    mask = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length]) & mask
    return size if size < mask else 0, at + length


def container(data: bytes) -> str | None:
    """FFmpeg's name of what a file's first bytes say it is; None: no video (a GIF is told by `decode`)."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mp4"  # MOV too
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"  # WebM too
    return "avi" if data.startswith(b"RIFF") and data[8:12] == b"AVI " else None
