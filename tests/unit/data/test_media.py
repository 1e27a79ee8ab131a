"""Images, videos and sounds made here with Pillow, PyAV and soundfile, whole and broken, through the product's decoders."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestration.data import media
from orchestration.data.config import AudioConfig, ImageConfig

SMALL = ImageConfig(size=16)


def _encoded(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    to = io.BytesIO()
    image.save(to, form, **more)
    return to.getvalue()


def _photo(width: int = 300, height: int = 200) -> Image.Image:
    """Smooth colours that differ at every place, so a wrong crop, turn or scale shows."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def _reason(decode: Any, *args: Any) -> str:
    with pytest.raises(media.MediaError) as caught:
        decode(*args)
    assert "0x" not in caught.value.detail  # an address would make two reports of the same corpus differ
    return caught.value.reason


# ------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_each_format_gives_the_middle_square_at_the_wanted_size(form: str) -> None:
    got = media.decode_image(_encoded(_photo(), form), ImageConfig(size=64))
    assert got is not None
    assert got.shape == (1, 64, 64, 3)
    assert got.dtype == np.uint8
    expected = np.asarray(_photo().crop((50, 0, 250, 200)).resize((64, 64), Image.Resampling.BICUBIC), np.int16)
    assert np.abs(got[0] - expected).mean() < (6 if form == "GIF" else 1.5)  # a GIF has 256 colours


def test_a_large_jpeg_scaled_while_decoding_looks_like_the_slow_way() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    got = media.decode_image(_encoded(photo, "JPEG", quality=95), ImageConfig(size=64))
    assert got is not None
    expected = np.asarray(photo.crop((200, 0, 1400, 1200)).resize((64, 64), Image.Resampling.BICUBIC), np.int16)
    assert np.abs(got[0] - expected).mean() < 1.5


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_photo_is_set_upright(number: int, form: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = number
    data = _encoded(_photo(), form, exif=exif)
    got = media.decode_image(data, ImageConfig(size=32))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    plain = media.decode_image(_encoded(upright), ImageConfig(size=32))
    assert got is not None
    assert plain is not None
    assert np.abs(got.astype(int) - plain).mean() < 1.5
    assert got[0, 0, 0, 0] // 128 == plain[0, 0, 0, 0] // 128


def test_transparent_pixels_are_white_in_every_mode() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (10, 0, 20, 20))
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (10, 0, 20, 20))
    grey = Image.new("LA", (20, 20), (0, 0))
    grey.paste((64, 255), (10, 0, 20, 20))
    for data in (
        _encoded(clear),
        _encoded(clear, "WEBP", lossless=True),
        _encoded(palette, transparency=0),
        _encoded(palette, "GIF", transparency=0),
        _encoded(grey),
        _encoded(
            Image.fromarray(np.where(np.arange(20) < 10, 7, 64).astype(np.uint8)[None].repeat(20, 0)), transparency=7
        ),
    ):
        got = media.decode_image(data, SMALL)
        assert got is not None
        assert got[0, 8, 1].tolist() == [255, 255, 255]
        assert got[0, 8, 14].tolist() in ([0, 0, 255], [64, 64, 64])


def test_half_transparent_is_mixed_with_white() -> None:
    got = media.decode_image(_encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 128))), SMALL)
    assert got is not None
    assert abs(int(got[0, 8, 8, 0]) - 127) <= 1


def test_grey_of_sixteen_bits_keeps_its_upper_eight() -> None:
    deep = np.full((20, 20), 0x40FF, np.uint16)
    for form in ("PNG", "TIFF"):
        got = media.decode_image(_encoded(Image.fromarray(deep), form), SMALL)
        assert got is not None
        assert got[0, 8, 8].tolist() == [0x40] * 3


def test_cmyk_and_black_and_white_become_rgb() -> None:
    for form in ("JPEG", "TIFF"):
        got = media.decode_image(_encoded(Image.new("CMYK", (20, 20), (255, 0, 0, 0)), form), SMALL)
        assert got is not None
        assert np.abs(got[0, 8, 8].astype(int) - [0, 255, 255]).max() <= 3
    got = media.decode_image(_encoded(Image.new("1", (20, 20), 1)), SMALL)
    assert got is not None
    assert got.min() == 255


def test_an_animated_gif_gives_its_frames_and_where_one_is_wanted_its_first_picture() -> None:
    one = media.decode_image(_gif(5), ImageConfig(size=16))
    assert one is not None
    assert one.shape == (1, 16, 16, 3)
    assert one[0, 8, 8, 0] < 10
    several = ImageConfig(size=16, frames=3)
    assert np.array_equal(media.decode_image(_gif(5), several), media.decode_video(_gif(5), several))


def test_a_picture_one_pixel_wide_is_still_a_square() -> None:
    got = media.decode_image(_encoded(Image.new("RGB", (1, 5000), (9, 8, 7))), SMALL)
    assert got is not None
    assert got[0, 3, 3].tolist() == [9, 8, 7]


def _png_header(width: int, height: int) -> bytes:
    """A well-formed PNG of some 100 bytes that claims to be huge."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (24_960, 24_960), (10_000, 5_001), (2**31 - 1, 2)])
def test_a_bomb_is_refused_by_its_header_without_being_decoded(width: int, height: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reason = _reason(media.decode_image, _png_header(width, height), ImageConfig())
    assert reason == "image has more pixels than data.image.max_pixels=50000000"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; decoded it would be gigabytes


def test_the_limit_is_the_specs_also_where_pillow_would_refuse() -> None:
    from orchestration.data.media.image import opened

    wide = _png_header(20_000, 10_000)  # 200 million pixels, above Pillow's own limit of 179 million
    assert opened(wide, "image", 200_000_000).size == (20_000, 10_000)
    assert "max_pixels=199999999" in _reason(media.decode_image, wide, ImageConfig(max_pixels=199_999_999))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_truncated_picture_is_refused_wherever_it_ends(form: str) -> None:
    data = _encoded(_photo(), form)
    for end in (10, 30, len(data) // 4, len(data) // 2, len(data) * 9 // 10):
        assert _reason(media.decode_image, data[:end], SMALL) == "image cannot be decoded"


def test_damaged_bytes_never_give_anything_but_a_picture_or_a_reason() -> None:
    draw = np.random.default_rng(7)
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        whole = np.frombuffer(_encoded(_photo(60, 40), form), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[draw.integers(0, len(whole), 4)] = draw.integers(0, 256, 4)
            try:
                got = media.decode_image(broken.tobytes(), SMALL)
            except media.MediaError:
                continue
            assert got is not None
            assert got.shape == (1, 16, 16, 3)


def test_what_is_no_picture_is_named_for_what_it_is() -> None:
    assert _reason(media.decode_image, b"just some text in a file named .png", SMALL) == "image cannot be decoded"
    assert (
        _reason(media.decode_image, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", SMALL)
        == "image cannot be decoded"
    )
    assert _reason(media.decode_image, b"", SMALL) == "image is empty"
    assert _reason(media.decode_image, "aGVsbG8=", SMALL) == "image is not bytes"
    assert _reason(media.decode_image, {"bytes": None, "path": "/etc/hostname"}, SMALL) == "image is not in the file"


def test_bytes_come_in_every_shape_that_columns_hold_them_in() -> None:
    data = _encoded(_photo())
    first = media.decode_image(data, SMALL)
    for value in (bytearray(data), memoryview(data), {"bytes": data, "path": "a.png"}):
        assert np.array_equal(media.decode_image(value, SMALL), first)
    assert media.decode_image(None, SMALL) is None
    assert media.decode_video(None, SMALL) is None
    assert media.decode_audio(None, AudioConfig()) == (None, False)


# ------------------------------------------------------------------------------------------------ video


def _levels(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), number * 255 // count, np.uint8) for number in range(count)]


def _gif(count: int) -> bytes:
    pictures = [Image.fromarray(level) for level in _levels(count)]
    return _encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:], duration=40)


def _video(folder: Path, form: str, codec: str, count: int = 40, **options: str) -> bytes:
    import av

    path = str(folder / "v.bin")
    with av.open(path, "w", format=form, options=options) as container:
        stream = container.add_stream(
            codec, rate=25, options={"auto-alt-ref": "1", "lag-in-frames": "16"} if codec == "libvpx" else {}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in _levels(count):
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
    got = media.decode_video(_gif(40), ImageConfig(size=16, frames=4))
    assert got is not None
    assert np.abs(got[:, 8, 8, 0].astype(int) - [number * 255 // 40 for number in (5, 15, 25, 35)]).max() <= 4


def test_a_video_in_a_column_of_images_gives_its_frames(tmp_path: Path) -> None:
    data, config = _video(tmp_path, "mp4", "libx264"), ImageConfig(size=16, frames=4)
    assert np.array_equal(media.decode_image(data, config), media.decode_video(data, config))


def test_a_short_video_shows_pictures_twice(tmp_path: Path) -> None:
    for data in (_gif(2), _video(tmp_path, "mp4", "libx264", count=2)):
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
    assert _reason(media.decode_video, data, SMALL.model_copy(update={"frames": 8})) == "video cannot be decoded"


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
        assert _reason(media.decode_video, data[:end], SMALL) == "video cannot be decoded"


def test_a_live_recording_of_unknown_size_is_read(tmp_path: Path) -> None:
    got = media.decode_video(_video(tmp_path, "matroska", "libx264", live="1"), ImageConfig(size=16, frames=4))
    assert got is not None
    assert len(got) == 4


def test_a_playlist_or_text_named_as_a_video_opens_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(_video(tmp_path, "mp4", "libx264"))
    for text in (f"ffconcat version 1.0\nfile {other}\n", f"#EXTM3U\n#EXTINF:1,\nfile://{other}\n", "just text"):
        assert _reason(media.decode_video, text.encode(), SMALL) == "video cannot be decoded"
    assert _reason(media.decode_video, b"", SMALL) == "video is empty"


def test_a_video_with_too_many_pixels_or_pictures_is_never_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.data.media import video

    data = _video(tmp_path, "mp4", "libx264")
    assert "max_pixels=3071" in _reason(media.decode_video, data, ImageConfig(max_pixels=64 * 48 - 1))
    assert "max_pixels=3071" in _reason(media.decode_video, _gif(3), ImageConfig(max_pixels=64 * 48 - 1))
    monkeypatch.setattr(video, "MAX_WORK", 64 * 48 * 39)
    assert _reason(media.decode_video, data, SMALL) == "video is too long to be decoded"
    assert _reason(media.decode_video, _gif(40), SMALL) == "video is too long to be decoded"


# ------------------------------------------------------------------------------------------------ audio


def _tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(np.arange(round(rate * seconds)) * 2 * np.pi * hertz / rate)).astype(np.float32)


def _sound(samples: np.ndarray, rate: int, form: str = "WAV", subtype: str | None = None) -> bytes:
    import soundfile

    to = io.BytesIO()
    soundfile.write(to, samples, rate, format=form, subtype=subtype)
    return to.getvalue()


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_each_format_gives_the_tone_at_the_wanted_rate(form: str) -> None:
    got, cut = media.decode_audio(_sound(_tone(44_100, 1.0), 44_100, form), AudioConfig(rate=16_000))
    assert got is not None
    assert got.dtype == np.int16
    assert abs(len(got) - 16_000) < 50
    assert not cut
    spectrum = np.abs(np.fft.rfft(got[:16_000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert abs(np.abs(got.astype(int)).max() - 16_384) < 1000


def test_samples_of_sixteen_bits_at_the_wanted_rate_come_out_bit_for_bit() -> None:
    samples = np.random.default_rng(3).integers(-32768, 32768, 5000).astype(np.int16)
    for form in ("WAV", "FLAC"):
        got, _ = media.decode_audio(_sound(samples, 16_000, form), AudioConfig(rate=16_000))
        assert np.array_equal(got, samples)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 44_101, 96_000])
def test_resampling_a_block_at_a_time_equals_the_whole(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.signal import resample_poly

    from orchestration.data.media import audio

    monkeypatch.setattr(audio, "BLOCK", 1000)
    samples = np.random.default_rng(4).normal(0, 0.2, 50_000).astype(np.float32)
    got, _ = media.decode_audio(_sound(samples, rate, subtype="FLOAT"), AudioConfig(rate=16_000, max_seconds=100))
    common = np.gcd(rate, 16_000)
    whole = resample_poly(samples, 16_000 // common, rate // common) * 32768
    assert got is not None
    assert len(got) == len(whole)
    assert np.abs(got - whole.clip(-32768, 32767)).max() <= 1


def test_channels_are_mixed_and_loud_values_clipped() -> None:
    both = np.stack([np.full(1000, 0.5, np.float32), np.full(1000, -0.25, np.float32)], axis=1)
    got, _ = media.decode_audio(_sound(both, 16_000, subtype="FLOAT"), AudioConfig())
    assert got is not None
    assert set(got.tolist()) == {4096}
    got, _ = media.decode_audio(_sound(np.full(100, 3.0, np.float32), 16_000, subtype="FLOAT"), AudioConfig())
    assert got is not None
    assert set(got.tolist()) == {32767}


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_long_sound_is_cut_and_says_so(form: str) -> None:
    data = _sound(_tone(22_050, 3.0), 22_050, form)
    got, cut = media.decode_audio(data, AudioConfig(rate=8_000, max_seconds=1.5))
    assert got is not None
    assert len(got) == 12_000
    assert cut
    assert media.decode_audio(data, AudioConfig(rate=8_000, max_seconds=4))[1] is False


def test_no_samples_and_no_numbers_are_refused() -> None:
    assert _reason(media.decode_audio, _sound(np.zeros(0, np.float32), 16_000), AudioConfig()) == "audio has no samples"
    for bad in (np.nan, np.inf):
        samples = _tone(16_000, 0.1)
        samples[700] = bad
        data = _sound(samples, 16_000, subtype="FLOAT")
        assert _reason(media.decode_audio, data, AudioConfig()) == "audio holds values that are no numbers"


def test_a_header_that_claims_what_is_not_there_costs_no_memory() -> None:
    data = bytearray(_sound(_tone(16_000, 0.5), 16_000))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 4_000_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _reason(media.decode_audio, bytes(data), AudioConfig(max_seconds=3600)) == "audio cannot be decoded"
    flac = bytearray(_sound(_tone(16_000, 0.5), 16_000, "FLAC"))
    flac[21] |= 0x0F  # STREAMINFO: number of samples, 36 bits
    flac[22:26] = b"\xff\xff\xff\xf0"
    assert _reason(media.decode_audio, bytes(flac), AudioConfig(max_seconds=3600)) == "audio cannot be decoded"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
    data[at : at + 4] = b"\xff" * 4  # a writer into a pipe cannot know the length: such a file is whole
    got, _ = media.decode_audio(bytes(data), AudioConfig())
    assert got is not None
    assert len(got) == 8000


def test_an_impossible_rate_and_other_formats_are_refused() -> None:
    data = bytearray(_sound(_tone(16_000, 0.5), 16_000))
    data[24:28] = struct.pack("<I", 2_000_000_000)
    assert _reason(media.decode_audio, bytes(data), AudioConfig()) == "audio cannot be decoded"
    assert (
        _reason(media.decode_audio, _sound(_tone(16_000, 0.5), 16_000, "AIFF"), AudioConfig())
        == "audio cannot be decoded"
    )


def test_truncated_or_foreign_bytes_are_refused() -> None:
    wav, flac = _sound(_tone(16_000, 0.5), 16_000), _sound(_tone(16_000, 0.5), 16_000, "FLAC")
    for data in (wav[: len(wav) // 2], flac[: len(flac) // 2], wav[:20], b"just text in a file named .wav", b"RIFF"):
        assert _reason(media.decode_audio, data, AudioConfig()) == "audio cannot be decoded"
    assert _reason(media.decode_audio, b"", AudioConfig()) == "audio is empty"
