"""Tones and series with known content through every op: what the op says happens, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestration.data.augment.audio import build, white_noise
from orchestration.data.config import FrequencyMaskConfig, NoiseConfig, TimeMaskConfig
from orchestration.data.rng import key

RATE = 16_000


def _tone(seconds: float = 1.0) -> np.ndarray:
    return np.rint(6000 * np.sin(np.arange(int(RATE * seconds)) * 2 * np.pi * 440 / RATE)).astype(np.int16)


def _series(steps: int = 2000) -> np.ndarray:
    at = np.arange(steps)
    return np.stack([np.sin(at / 10), 1000 + 50 * np.cos(at / 7), np.full(steps, 3.0)], axis=1).astype(np.float32)


AUDIO: list[Any] = [NoiseConfig(), TimeMaskConfig(), FrequencyMaskConfig()]


@pytest.mark.parametrize("op", AUDIO)
@pytest.mark.parametrize("kind", ["audio", "series"])
def test_the_same_key_gives_the_same_array_and_others_differ(op: Any, kind: str) -> None:
    if (op.op, kind) == ("frequency_mask", "series"):
        return
    array = np.rint(1000 * white_noise(5, RATE)).astype(np.int16) if kind == "audio" else _series()
    before = array.copy()
    array.flags.writeable = False
    change = build(op)
    got = change(array, 99)
    assert (got.shape, got.dtype) == (array.shape, array.dtype)
    assert np.array_equal(got, build(op)(array, 99))
    assert np.array_equal(array, before)
    assert len({change(array, key("t", number)).tobytes() for number in range(20)}) == 20


def test_noise_is_white_and_bell_shaped() -> None:
    noise = white_noise(7, 200_000)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((np.abs(noise) < 1).mean() - 0.683) < 0.02
    power = np.abs(np.fft.rfft(noise)) ** 2
    bands = power[1:].reshape(-1, 1000).mean(axis=1) / power.mean()
    assert 0.85 < bands.min() < bands.max() < 1.15
    assert np.array_equal(white_noise(7, 100), noise[:100])  # a longer sound begins with the same noise
    assert np.abs(np.corrcoef(white_noise(7, 50_000), white_noise(8, 50_000))[0, 1]) < 0.02


@pytest.mark.parametrize("decibels", [10.0, 25.0])
def test_noise_has_the_ratio_to_the_signal_that_was_asked_for(decibels: float) -> None:
    change = build(NoiseConfig(snr_db=[decibels, decibels]))
    tone = _tone().astype(float)
    added = change(_tone(), 3).astype(float) - tone
    assert abs(10 * np.log10((tone**2).mean() / (added**2).mean()) - decibels) < 0.2
    series = _series().astype(float)
    more = change(_series(), 3).astype(float) - series
    ratio = 20 * np.log10(series.std(axis=0)[:2] / more.std(axis=0)[:2])
    assert np.abs(ratio - decibels).max() < 0.5
    assert not more[:, 2].any()  # a column that never changes has no deviation


def test_the_ratio_is_uniform_between_its_bounds() -> None:
    change = build(NoiseConfig(snr_db=[10.0, 30.0]))
    tone = _tone(0.25).astype(float)
    found = []
    for number in range(200):
        added = change(_tone(0.25), key("snr", number)) - tone
        found.append(10 * np.log10((tone**2).mean() / (added**2).mean()))
    assert 9.5 < min(found) < 12
    assert 28 < max(found) < 30.5
    assert abs(np.mean(found) - 20) < 1.5


def test_silence_stays_silent_and_the_loudest_is_clipped() -> None:
    assert not build(NoiseConfig())(np.zeros(1000, np.int16), 1).any()
    loud = np.full(1000, 32767, np.int16)
    got = build(NoiseConfig(snr_db=[0.0, 0.0]))(loud, 1)
    assert got.max() == 32767
    assert got.min() < 30000


def test_a_time_mask_is_one_silent_stretch_no_longer_than_its_share() -> None:
    tone = np.full(RATE, 5, np.int16)
    lengths, starts = [], []
    for number in range(300):
        silent = np.flatnonzero(build(TimeMaskConfig(share=0.2))(tone, key("mask", number)) == 0)
        if len(silent):
            assert silent[-1] - silent[0] + 1 == len(silent)
            starts.append(silent[0] / (RATE - len(silent)))
        lengths.append(len(silent) / RATE)
    assert 0.19 < max(lengths) <= 0.2
    assert abs(np.mean(lengths) - 0.1) < 0.012
    assert abs(np.mean(starts) - 0.5) < 0.06


def test_several_masks_and_a_series_mean() -> None:
    got = build(TimeMaskConfig(share=0.1, count=3))(_series(), 5)
    changed = np.flatnonzero((got != _series()).any(axis=1))
    assert 1 <= (np.diff(changed) > 1).sum() + 1 <= 3
    middle = changed[len(changed) // 2]
    assert np.allclose(got[middle], _series().mean(axis=0), atol=1e-3)


def test_a_frequency_mask_takes_out_a_band_and_leaves_the_rest() -> None:
    noise = np.rint(2000 * white_noise(1, 2 * RATE)).astype(np.int16)
    widths = []
    for number in range(40):
        got = build(FrequencyMaskConfig(share=0.2))(noise, key("band", number))
        before, after = np.abs(np.fft.rfft(noise)), np.abs(np.fft.rfft(got))
        gone = np.flatnonzero(after < 0.05 * before)
        widths.append(len(gone) / len(before))
        if widths[-1] > 0.01:
            assert gone[-1] - gone[0] < 1.02 * len(gone)  # one band
            kept = np.setdiff1d(np.arange(len(before)), np.arange(gone[0] - 3, gone[-1] + 4))
            assert np.abs(after[kept] - before[kept]).max() < 0.02 * before.mean()
    assert 0.15 < max(widths) <= 0.201
    assert abs(np.mean(widths) - 0.1) < 0.04


@pytest.mark.parametrize("length", [0, 1, 2, 15_991])
def test_awkward_lengths_stay_what_they_are(length: int) -> None:
    samples = (white_noise(2, length) * 1000).astype(np.int16)
    for op in AUDIO:
        got = build(op)(samples, 11)
        assert (len(got), got.dtype) == (length, np.dtype(np.int16))


def test_stored_sounds_stay_the_same_from_version_to_version() -> None:
    """A difference here changes what stores hold: raise the stage's version with it."""
    import hashlib

    content = hashlib.sha256()
    for op in AUDIO[:2]:  # a spectrum's last bits depend on the machine
        content.update(build(op)(np.arange(-3000, 3000, dtype=np.int16), 42).tobytes())
    assert content.hexdigest()[:16] == "2f04a4a293dadc9d"
