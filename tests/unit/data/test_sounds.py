"""Sounds made here with soundfile, whole and broken, through the product's decoder."""

from __future__ import annotations

import io
import resource
import struct

import numpy as np
import pytest

from orchestration.data import media
from orchestration.data.config import AudioConfig
from tests.media import reason


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
    assert reason(media.decode_audio, _sound(np.zeros(0, np.float32), 16_000), AudioConfig()) == "audio has no samples"
    for bad in (np.nan, np.inf):
        samples = _tone(16_000, 0.1)
        samples[700] = bad
        data = _sound(samples, 16_000, subtype="FLOAT")
        assert reason(media.decode_audio, data, AudioConfig()) == "audio holds values that are no numbers"


def test_a_header_that_claims_what_is_not_there_costs_no_memory() -> None:
    data = bytearray(_sound(_tone(16_000, 0.5), 16_000))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 4_000_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(media.decode_audio, bytes(data), AudioConfig(max_seconds=3600)) == "audio cannot be decoded"
    flac = bytearray(_sound(_tone(16_000, 0.5), 16_000, "FLAC"))
    flac[21] |= 0x0F  # STREAMINFO: number of samples, 36 bits
    flac[22:26] = b"\xff\xff\xff\xf0"
    assert reason(media.decode_audio, bytes(flac), AudioConfig(max_seconds=3600)) == "audio cannot be decoded"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
    data[at : at + 4] = b"\xff" * 4  # a writer into a pipe cannot know the length: such a file is whole
    got, _ = media.decode_audio(bytes(data), AudioConfig())
    assert got is not None
    assert len(got) == 8000


def test_an_impossible_rate_and_other_formats_are_refused() -> None:
    data = bytearray(_sound(_tone(16_000, 0.5), 16_000))
    data[24:28] = struct.pack("<I", 2_000_000_000)
    assert reason(media.decode_audio, bytes(data), AudioConfig()) == "audio cannot be decoded"
    assert (
        reason(media.decode_audio, _sound(_tone(16_000, 0.5), 16_000, "AIFF"), AudioConfig())
        == "audio cannot be decoded"
    )


def test_truncated_or_foreign_bytes_are_refused() -> None:
    wav, flac = _sound(_tone(16_000, 0.5), 16_000), _sound(_tone(16_000, 0.5), 16_000, "FLAC")
    for data in (wav[: len(wav) // 2], flac[: len(flac) // 2], wav[:20], b"just text in a file named .wav", b"RIFF"):
        assert reason(media.decode_audio, data, AudioConfig()) == "audio cannot be decoded"
    assert reason(media.decode_audio, b"", AudioConfig()) == "audio is empty"
