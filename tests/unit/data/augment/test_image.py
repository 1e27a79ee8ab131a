"""Pictures with known content through every op: what the op says happens, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestration.data.augment.image import build
from orchestration.data.config import ColourConfig, CropConfig, FlipConfig, RotateConfig
from orchestration.data.rng import key

OPS: list[Any] = [
    CropConfig(),
    RotateConfig(degrees=40),
    FlipConfig(rate=1.0),
    FlipConfig(rate=1.0, axis="vertical"),
    ColourConfig(),
]


def _smooth(frames: int = 1, height: int = 64, width: int = 64) -> np.ndarray:
    """Red grows to the right, green downwards, blue with the frame."""
    y, x = np.mgrid[0:height, 0:width]
    one = np.stack([40 + x * 160 // width, 40 + y * 160 // height, np.full_like(x, 90)], axis=-1)
    return np.stack([one + np.array([0, 0, 10 * frame]) for frame in range(frames)]).astype(np.uint8)


@pytest.mark.parametrize("op", OPS)
def test_the_same_key_gives_the_same_picture_and_others_differ(op: Any) -> None:
    change, picture = build(op), _smooth(2)
    before = picture.copy()
    picture.flags.writeable = False
    got = change(picture, 12345)
    assert got.shape == picture.shape
    assert got.dtype == np.uint8
    assert np.array_equal(got, build(op)(picture, 12345))
    assert np.array_equal(picture, before)
    different = {change(picture, key("t", number)).tobytes() for number in range(20)}
    assert len(different) == (1 if op.op == "flip" else 20)


@pytest.mark.parametrize("op", [*OPS[:4], ColourConfig(contrast=0.0)])
def test_all_frames_are_changed_alike(op: Any) -> None:
    clip = np.repeat(_smooth(), 4, axis=0)
    got = build(op)(clip, 77)
    assert (got == got[0]).all()
    assert np.array_equal(got[:1], build(op)(clip[:1], 77))


def test_a_crop_is_a_part_of_the_picture_of_the_area_asked_for() -> None:
    change = build(CropConfig(scale=[0.25, 0.64]))
    areas, lefts = [], []
    for number in range(300):
        got = change(_smooth(), key("crop", number))[0].astype(int)
        side = (got[32, 63, 0] - got[32, 0, 0]) / 160
        assert abs(side - (got[63, 32, 1] - got[0, 32, 1]) / 160) < 0.05  # as high as wide
        areas.append(side**2)
        lefts.append((got[32, 0, 0] - 40) / 160 / (1 - side))
    assert 0.2 < min(areas) < 0.3
    assert 0.57 < max(areas) < 0.7
    assert abs(np.mean(lefts) - 0.5) < 0.06  # from edge to edge
    assert min(lefts) < 0.08
    assert max(lefts) > 0.92


def test_the_whole_area_changes_nothing() -> None:
    assert np.array_equal(build(CropConfig(scale=[1.0, 1.0]))(_smooth(), 5), _smooth())


def test_a_rotation_turns_about_the_middle_by_at_most_its_degrees() -> None:
    change = build(RotateConfig(degrees=30))
    angles = []
    for number in range(300):
        got = change(_smooth(), key("turn", number))[0].astype(float)
        assert abs(got[31:33, 31:33, 0].mean() - 119) < 3
        right, down = got[32, 44, 0] - got[32, 20, 0], got[44, 32, 0] - got[20, 32, 0]
        angles.append(np.degrees(np.arctan2(down, right)))
        assert got[..., 0].min() >= 38  # edges repeat: nothing black comes in
        assert got[..., 2].min() == 90
    assert abs(np.mean(angles)) < 3
    assert 27 < max(angles) < 32
    assert -32 < min(angles) < -27


def test_a_quarter_turn_is_numpys() -> None:
    """Degrees such that the draw is a quarter: matrix, padding and half pixels are right, and a positive angle turns clockwise."""
    from orchestration.data.rng import mix, share

    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    for number in [number for number in range(40) if abs(2 * share(mix(number, 0)) - 1) > 0.5]:
        at = 2 * share(mix(number, 0)) - 1
        turned = np.rot90(picture, -1 if at > 0 else 1, axes=(1, 2))
        assert np.abs(build(RotateConfig(degrees=90 / abs(at)))(picture, number).astype(int) - turned).max() <= 1


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_a_flip_mirrors_at_its_rate(axis: Any) -> None:
    picture = _smooth(2)
    mirrored = picture[:, :, ::-1] if axis == "horizontal" else picture[:, ::-1]
    change = build(FlipConfig(rate=0.3, axis=axis))
    flips = [np.array_equal(change(picture, key("flip", number)), mirrored) for number in range(1000)]
    kept = [np.array_equal(change(picture, key("flip", number)), picture) for number in range(1000)]
    assert sum(flips) + sum(kept) == 1000
    assert abs(sum(flips) - 300) < 45  # three deviations


def test_brightness_contrast_and_saturation_do_what_pillow_does() -> None:
    from PIL import Image, ImageEnhance

    from orchestration.data.rng import mix, share

    picture = _smooth()
    for number, (name, enhance) in enumerate(
        {
            "brightness": ImageEnhance.Brightness,
            "contrast": ImageEnhance.Contrast,
            "saturation": ImageEnhance.Color,
        }.items()
    ):
        op = ColourConfig.model_validate({"brightness": 0, "contrast": 0, "saturation": 0} | {name: 0.5})
        for draw in range(20):
            factor = 0.5 + share(mix(key("colour", draw), number))
            expected = np.asarray(enhance(Image.fromarray(picture[0])).enhance(factor)).astype(int)
            assert np.abs(build(op)(picture, key("colour", draw))[0] - expected).max() <= 2
    whole = np.full((1, 8, 8, 3), 250, np.uint8)
    got = build(ColourConfig(brightness=1.0, contrast=0.0, saturation=0.0))
    assert {int(got(whole, key("clip", draw)).max()) for draw in range(50)} > {255}


def test_pictures_need_not_be_square() -> None:
    for op in OPS:
        assert build(op)(_smooth(1, 24, 40), 3).shape == (1, 24, 40, 3)


def test_stored_pictures_stay_the_same_from_version_to_version() -> None:
    """A difference here changes what stores hold: raise the stage's version with it."""
    import hashlib

    content = hashlib.sha256()
    for op in OPS:
        content.update(build(op)(_smooth(2), 42).tobytes())
    assert content.hexdigest()[:16] == "5aeaacb0b870297b"
