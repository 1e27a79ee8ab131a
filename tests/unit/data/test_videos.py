"""Videos made here with PyAV and Pillow, whole and broken, through the product's decoder."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from orchestration.data import media
from orchestration.data.config import ImageConfig
from tests.media import SMALL, gif, levels, reason


def _video(folder: Path, form: str, codec: str, count: int = 40, **options: str) -> bytes:
    import av

    path = str(folder / "v.bin")
    with av.open(path, "w", format=form, options=options) as container:
        stream = container.add_stream(
            codec, rate=25, options={"auto-alt-ref": "1", "lag-in-frames": "16"} if codec == "libvpx" else {}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(level, "rgb24")))
        container.mux(stream.encode())
    return Path(path).read_bytes()


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "mpeg4"),
        ("webm", "libvpx-vp9"),
        ("webm", "libvpx"),
        ("matroska", "libx264"),
        ("avi", "mpeg4"),
    ],
)
def test_frames_are_evenly_spaced_in_every_container(tmp_path: Path, form: str, codec: str) -> None:
    got = media.decode_video(_video(tmp_path, form, codec), ImageConfig(size=16, frames=4))
    assert got is not None
    assert got.shape == (4, 16, 16, 3)
    assert np.abs(got[:, 8, 8, 0].astype(int) - [number * 255 // 40 for number in (5, 15, 25, 35)]).max() <= 4


def test_an_animated_gif_is_a_video() -> None:
    got = media.decode_video(gif(40), ImageConfig(size=16, frames=4))
    assert got is not None
    assert np.abs(got[:, 8, 8, 0].astype(int) - [number * 255 // 40 for number in (5, 15, 25, 35)]).max() <= 4


def test_a_video_in_a_column_of_images_gives_its_frames(tmp_path: Path) -> None:
    data, config = _video(tmp_path, "mp4", "libx264"), ImageConfig(size=16, frames=4)
    assert np.array_equal(media.decode_image(data, config), media.decode_video(data, config))


def test_a_short_video_shows_pictures_twice(tmp_path: Path) -> None:
    for data in (gif(2), _video(tmp_path, "mp4", "libx264", count=2)):
        got = media.decode_video(data, ImageConfig(size=16, frames=4))
        assert got is not None
        assert np.array_equal(got[0], got[1])
        assert np.array_equal(got[2], got[3])
        assert got[2].mean() > got[1].mean() + 100


def test_a_video_taken_upright_is_set_upright(tmp_path: Path) -> None:
    import av

    halves = np.zeros((48, 64, 3), np.uint8)
    halves[:, 32:] = 255  # right half white: turned by a quarter clockwise, the lower half
    path = str(tmp_path / "v.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(halves, "rgb24")))
        container.mux(stream.encode())
    data = bytearray(Path(path).read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2: behind version, times, id, duration, layer and volume
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    got = media.decode_video(bytes(data), SMALL)
    assert got is not None
    assert got[0, 3].mean() < 20
    assert got[0, 12].mean() > 235


def test_packets_that_show_nothing_end_in_the_last_picture_and_too_many_in_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.data.media import video

    data = _video(tmp_path, "mp4", "libx264")
    monkeypatch.setattr(video, "_count", lambda data, config: 44)
    got = media.decode_video(data, ImageConfig(size=16, frames=8))
    assert got is not None
    assert abs(int(got[7, 8, 8, 0]) - 39 * 255 // 40) <= 4
    monkeypatch.setattr(video, "_count", lambda data, config: 81)
    assert reason(media.decode_video, data, SMALL.model_copy(update={"frames": 8})) == "video cannot be decoded"


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("mp4", "libx264", {}),
        ("mp4", "libx264", {"movflags": "faststart"}),
        ("avi", "mpeg4", {}),
        ("webm", "libvpx-vp9", {}),
        ("matroska", "libx264", {}),
    ],
)
def test_a_truncated_video_is_refused(tmp_path: Path, form: str, codec: str, options: dict[str, str]) -> None:
    data = _video(tmp_path, form, codec, **options)
    for end in (8, 40, len(data) // 4, len(data) // 2, len(data) * 9 // 10):
        assert reason(media.decode_video, data[:end], SMALL) == "video cannot be decoded"


def test_a_live_recording_of_unknown_size_is_read(tmp_path: Path) -> None:
    got = media.decode_video(_video(tmp_path, "matroska", "libx264", live="1"), ImageConfig(size=16, frames=4))
    assert got is not None
    assert len(got) == 4


def test_a_playlist_or_text_named_as_a_video_opens_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(_video(tmp_path, "mp4", "libx264"))
    for text in (f"ffconcat version 1.0\nfile {other}\n", f"#EXTM3U\n#EXTINF:1,\nfile://{other}\n", "just text"):
        assert reason(media.decode_video, text.encode(), SMALL) == "video cannot be decoded"
    assert reason(media.decode_video, b"", SMALL) == "video is empty"


def test_a_video_with_too_many_pixels_or_pictures_is_never_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.data.media import video

    data = _video(tmp_path, "mp4", "libx264")
    assert "max_pixels=3071" in reason(media.decode_video, data, ImageConfig(max_pixels=64 * 48 - 1))
    assert "max_pixels=3071" in reason(media.decode_video, gif(3), ImageConfig(max_pixels=64 * 48 - 1))
    monkeypatch.setattr(video, "MAX_WORK", 64 * 48 * 39)
    assert reason(media.decode_video, data, SMALL) == "video is too long to be decoded"
    assert reason(media.decode_video, gif(40), SMALL) == "video is too long to be decoded"
