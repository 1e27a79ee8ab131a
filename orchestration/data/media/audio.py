"""Sound with libsndfile. Takes encoded bytes; gives int16 mono samples at one rate. Used by `media`.

Read and resampled a block at a time, so neither a header's claim nor many channels can ask for memory: what is held is the
result. 16-bit mono at the wanted rate comes out bit for bit."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from orchestration.data.config import AudioConfig
from orchestration.data.media import MediaError
from orchestration.data.media.image import guarded

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
RATES = range(1000, 384_001)  # samples a second that a real file may have
BLOCK = 1 << 18  # values (samples x channels) read at once
UNKNOWN = 1 << 62  # frames from here on: the writer could not go back to its header
TAPS = 10  # half the filter's length in samples of the lower rate, as scipy.signal.resample_poly chooses
FULL = 32768  # int16 of 1.0


def decode(data: bytes, config: AudioConfig) -> tuple[np.ndarray, bool]:
    """(int16 samples, whether config.max_seconds cut them). Raises MediaError."""
    import soundfile

    _check_riff(data)
    with guarded("audio"), soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.format not in FORMATS:
            raise MediaError("audio cannot be decoded", f"format {file.format}; allowed: {', '.join(FORMATS)}")
        if file.samplerate not in RATES:
            raise MediaError("audio cannot be decoded", f"{file.samplerate} samples a second")
        wanted = math.floor(config.max_seconds * config.rate)
        limit = math.ceil(config.max_seconds * file.samplerate)
        parts = list(_resampled(_blocks(file, limit), file.samplerate, config.rate))
        cut = file.tell() == limit and len(file.read(1)) > 0
    samples = np.concatenate(parts)[:wanted] if parts else np.empty(0, np.int16)
    if not len(samples):
        raise MediaError("audio has no samples", f"{len(data)} bytes")
    return samples, cut


def _blocks(file: Any, limit: int) -> Iterator[np.ndarray]:
    """float32 mono, full scale 1, of at most `limit` samples. Raises MediaError where the file ends before its header says."""
    step = max(1, BLOCK // file.channels)
    at = 0
    while at < limit:
        ask = min(step, limit - at)
        block = file.read(ask, dtype="float32", always_2d=True)
        if not np.isfinite(block).all():
            raise MediaError("audio holds values that are no numbers", f"near sample {at}")
        at += len(block)
        if len(block):
            yield block[:, 0] if file.channels == 1 else block.mean(axis=1)
        if len(block) < ask:
            break
    if at < min(limit, file.frames) and file.frames < UNKNOWN and file.format != "MP3":  # an MP3's header estimates
        raise MediaError("audio cannot be decoded", f"ends at sample {at} of {file.frames}")


def _resampled(blocks: Iterator[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """int16 at `wanted` samples a second: scipy.signal.resample_poly a stretch at a time, with as much of the neighbours as the
    filter reaches, so the result is that of the whole."""
    if rate == wanted:
        yield from (_int16(block) for block in blocks)
        return
    from scipy.signal import resample_poly

    up, down, reach, taps = _filter(rate, wanted)
    held, before = np.empty(0, np.float32), 0  # `before`: samples at the front that are only the neighbourhood
    ahead = next(blocks, None)
    while ahead is not None:
        held, ahead = np.concatenate([held, ahead]), next(blocks, None)
        done = (
            len(held) if ahead is None else (len(held) - reach) // down * down
        )  # stretches end where output samples lie
        if done <= before:
            continue
        made = resample_poly(held, up, down, window=taps)
        yield _int16(made[before // down * up : -(-done * up // down)])
        keep = max(0, done - reach)
        held, before = held[keep:], done - keep


@lru_cache(4)
def _filter(rate: int, wanted: int) -> tuple[int, int, int, np.ndarray]:
    """Ratio of whole numbers, reach in samples (a multiple of `down`) and low-pass filter: a Kaiser window of 5.0, as
    resample_poly designs for each call anew."""
    from scipy.signal import firwin

    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    most = max(up, down)
    reach = -(-(TAPS * most // up + 1) // down) * down
    return up, down, reach, firwin(2 * TAPS * most + 1, 1.0 / most, window=("kaiser", 5.0)).astype(np.float32)


def _int16(samples: np.ndarray) -> np.ndarray:
    scaled = samples * np.float32(FULL)
    np.rint(scaled, out=scaled)
    return scaled.clip(-FULL, FULL - 1, out=scaled).astype(np.int16)


def _check_riff(data: bytes) -> None:
    """A WAV whose `data` chunk claims more than is there was cut off, or lies; libsndfile would play the rest. 0xFFFFFFFF is what
    a writer into a pipe leaves there."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8
        if name == b"data":
            if size not in (0, 0xFFFFFFFF) and at + size > len(data):
                raise MediaError("audio cannot be decoded", f"{len(data) - at} of {size} bytes of samples are there")
            return
        at += size + size % 2
