"""Pictures made with Pillow, and why a decoder refuses what it is given."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestration.data import media
from orchestration.data.config import ImageConfig

SMALL = ImageConfig(size=16)


def encoded(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    to = io.BytesIO()
    image.save(to, form, **more)
    return to.getvalue()


def gif(count: int) -> bytes:
    """Pictures from black to white, evenly."""
    pictures = [Image.fromarray(level) for level in levels(count)]
    return encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:], duration=40)


def levels(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), number * 255 // count, np.uint8) for number in range(count)]


def reason(decode: Any, *args: Any) -> str:
    with pytest.raises(media.MediaError) as caught:
        decode(*args)
    assert "0x" not in caught.value.detail  # an address would make two reports of the same corpus differ
    return caught.value.reason
