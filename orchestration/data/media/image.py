"""Still images with Pillow. Takes encoded bytes; gives uint8 (frames, size, size, 3). Used by `media` and, for GIF, by `video`.

The middle square is cut and scaled in one step, before transparency and orientation are applied to what is left, so a photo of
12 megapixels costs its decoding and little more. Memory at most 8 bytes a pixel (measured; 400 MB at 50 million)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from orchestration.data.config import ImageConfig
from orchestration.data.media import MediaError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # others start helpers (EPS: Ghostscript) or are not pictures
GAP = 2.0  # decode and pre-shrink to no less than so many times the wanted size: differs from the slow way by under one level
ORIENTATION = 0x0112  # EXIF
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # grey of 16 bits

warnings.filterwarnings(
    "ignore", module=r"PIL\."
)  # of damaged tags and large pictures: errors, or none of our business


def decode(data: bytes, config: ImageConfig) -> np.ndarray:
    """uint8 (frames, size, size, 3); of an animation the first picture. Raises MediaError."""
    with guarded("image"), opened(data, "image", config.max_pixels) as image:
        image.draft(None, (round(config.size * GAP),) * 2)  # JPEG: scaled down while decoding
        image.load()
        square = oriented(middle_square(image, config.size), orientation(image))
        return np.repeat(np.asarray(square)[None], config.frames, axis=0)


@contextmanager
def guarded(kind: str) -> Iterator[None]:
    """Whatever a decoder raises becomes MediaError: on damaged files Pillow raises some ten classes, struct.error among them."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        shown = re.sub(r"<_io\.BytesIO[^>]*>", "the bytes", str(error))  # an address would make reports differ
        raise MediaError(f"{kind} cannot be decoded", f"{type(error).__name__}: {shown}"[:200]) from None


def opened(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    """The image with its header read and nothing decoded. Raises MediaError above `max_pixels`."""
    Image.MAX_IMAGE_PIXELS = max_pixels  # also of the frames inside a file, which Pillow refuses above twice the number
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise too_large(kind, max_pixels, str(error)) from None
    except UnidentifiedImageError:
        raise MediaError(
            f"{kind} cannot be decoded", f"begins with {data[:8]!r}; {', '.join(FORMATS)} do not"
        ) from None
    if image.width * image.height > max_pixels:
        raise too_large(kind, max_pixels, f"{image.width} x {image.height}")
    return image


def too_large(kind: str, max_pixels: int, detail: str) -> MediaError:
    return MediaError(f"{kind} has more pixels than data.image.max_pixels={max_pixels}", detail)


def middle_square(image: Image.Image, size: int) -> Image.Image:
    """RGB, size x size: the shorter side scaled to `size`, the middle kept, transparency over white."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    square = _full(image).resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=GAP)
    if square.mode == "RGB":
        return square
    white = Image.new("RGBA", square.size, "white")
    return Image.alpha_composite(white, square).convert("RGB")


def _full(image: Image.Image) -> Image.Image:
    """As RGB, or RGBA where anything may be transparent."""
    if image.mode in DEEP:
        levels = np.asarray(image).astype(np.int32).clip(0, 0xFFFF) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 where there is none or the block is damaged. Read behind `load`: TIFF turns itself and drops it."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged block: any of Pillow's errors; the picture itself is fine
        return 1


def oriented(square: Image.Image, number: int) -> Image.Image:
    """A square turned as EXIF says: the middle square of a turned picture is the turned middle square."""
    if number == 1:
        return square
    square.getexif()[ORIENTATION] = number
    return ImageOps.exif_transpose(square)
