"""Images made here with Pillow, whole and broken, through the product's decoder."""

from __future__ import annotations

import io
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from orchestration.data import media
from orchestration.data.config import AudioConfig, ImageConfig
from tests.media import SMALL, encoded, gif, reason


def _photo(width: int = 300, height: int = 200) -> Image.Image:
    """Smooth colours that differ at every place, so a wrong crop, turn or scale shows."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_each_format_gives_the_middle_square_at_the_wanted_size(form: str) -> None:
    got = media.decode_image(encoded(_photo(), form), ImageConfig(size=64))
    assert got is not None
    assert got.shape == (1, 64, 64, 3)
    assert got.dtype == np.uint8
    expected = np.asarray(_photo().crop((50, 0, 250, 200)).resize((64, 64), Image.Resampling.BICUBIC), np.int16)
    assert np.abs(got[0] - expected).mean() < (6 if form == "GIF" else 1.5)  # a GIF has 256 colours


def test_a_large_jpeg_scaled_while_decoding_looks_like_the_slow_way() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    got = media.decode_image(encoded(photo, "JPEG", quality=95), ImageConfig(size=64))
    assert got is not None
    expected = np.asarray(photo.crop((200, 0, 1400, 1200)).resize((64, 64), Image.Resampling.BICUBIC), np.int16)
    assert np.abs(got[0] - expected).mean() < 1.5


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_photo_is_set_upright(number: int, form: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = number
    data = encoded(_photo(), form, exif=exif)
    got = media.decode_image(data, ImageConfig(size=32))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    plain = media.decode_image(encoded(upright), ImageConfig(size=32))
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
        encoded(clear),
        encoded(clear, "WEBP", lossless=True),
        encoded(palette, transparency=0),
        encoded(palette, "GIF", transparency=0),
        encoded(grey),
        encoded(
            Image.fromarray(np.where(np.arange(20) < 10, 7, 64).astype(np.uint8)[None].repeat(20, 0)), transparency=7
        ),
    ):
        got = media.decode_image(data, SMALL)
        assert got is not None
        assert got[0, 8, 1].tolist() == [255, 255, 255]
        assert got[0, 8, 14].tolist() in ([0, 0, 255], [64, 64, 64])


def test_half_transparent_is_mixed_with_white() -> None:
    got = media.decode_image(encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 128))), SMALL)
    assert got is not None
    assert abs(int(got[0, 8, 8, 0]) - 127) <= 1


def test_grey_of_sixteen_bits_keeps_its_upper_eight() -> None:
    deep = np.full((20, 20), 0x40FF, np.uint16)
    for form in ("PNG", "TIFF"):
        got = media.decode_image(encoded(Image.fromarray(deep), form), SMALL)
        assert got is not None
        assert got[0, 8, 8].tolist() == [0x40] * 3


def test_cmyk_and_black_and_white_become_rgb() -> None:
    for form in ("JPEG", "TIFF"):
        got = media.decode_image(encoded(Image.new("CMYK", (20, 20), (255, 0, 0, 0)), form), SMALL)
        assert got is not None
        assert np.abs(got[0, 8, 8].astype(int) - [0, 255, 255]).max() <= 3
    got = media.decode_image(encoded(Image.new("1", (20, 20), 1)), SMALL)
    assert got is not None
    assert got.min() == 255


def test_an_animated_gif_gives_its_frames_and_where_one_is_wanted_its_first_picture() -> None:
    one = media.decode_image(gif(5), ImageConfig(size=16))
    assert one is not None
    assert one.shape == (1, 16, 16, 3)
    assert one[0, 8, 8, 0] < 10
    several = ImageConfig(size=16, frames=3)
    assert np.array_equal(media.decode_image(gif(5), several), media.decode_video(gif(5), several))


def test_a_picture_one_pixel_wide_is_still_a_square() -> None:
    got = media.decode_image(encoded(Image.new("RGB", (1, 5000), (9, 8, 7))), SMALL)
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
    found = reason(media.decode_image, _png_header(width, height), ImageConfig())
    assert found == "image has more pixels than data.image.max_pixels=50000000"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; decoded it would be gigabytes


def test_the_limit_is_the_specs_also_where_pillow_would_refuse() -> None:
    from orchestration.data.media.image import opened

    wide = _png_header(20_000, 10_000)  # 200 million pixels, above Pillow's own limit of 179 million
    assert opened(wide, "image", 200_000_000).size == (20_000, 10_000)
    assert "max_pixels=199999999" in reason(media.decode_image, wide, ImageConfig(max_pixels=199_999_999))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_truncated_picture_is_refused_wherever_it_ends(form: str) -> None:
    data = encoded(_photo(), form)
    for end in (10, 30, len(data) // 4, len(data) // 2, len(data) * 9 // 10):
        assert reason(media.decode_image, data[:end], SMALL) == "image cannot be decoded"


def test_damaged_bytes_never_give_anything_but_a_picture_or_a_reason() -> None:
    draw = np.random.default_rng(7)
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        whole = np.frombuffer(encoded(_photo(60, 40), form), np.uint8)
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
    assert reason(media.decode_image, b"just some text in a file named .png", SMALL) == "image cannot be decoded"
    assert (
        reason(media.decode_image, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", SMALL)
        == "image cannot be decoded"
    )
    assert reason(media.decode_image, b"", SMALL) == "image is empty"
    assert reason(media.decode_image, "aGVsbG8=", SMALL) == "image is not bytes"
    assert reason(media.decode_image, {"bytes": None, "path": "/etc/hostname"}, SMALL) == "image is not in the file"


def test_bytes_come_in_every_shape_that_columns_hold_them_in() -> None:
    data = encoded(_photo())
    first = media.decode_image(data, SMALL)
    for value in (bytearray(data), memoryview(data), {"bytes": data, "path": "a.png"}):
        assert np.array_equal(media.decode_image(value, SMALL), first)
    assert media.decode_image(None, SMALL) is None
    assert media.decode_video(None, SMALL) is None
    assert media.decode_audio(None, AudioConfig()) == (None, False)
