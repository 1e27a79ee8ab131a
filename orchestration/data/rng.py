"""Randomness without a generator to share: every number is a pure function of a key and a counter, so it depends
neither on workers nor on the order in which they ask. Takes keys made of plain values; gives whole numbers and shares of
one. Used by splits, augmentation and the order of epochs. The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood:
"Fast splittable pseudorandom number generators", OOPSLA 2014); our own few lines, since numpy does not promise that its
generators give the same numbers in the next version."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
MASK = 0xFFFFFFFFFFFFFFFF
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: Any) -> int:
    """64-bit key of plain values (numbers, text, bytes), each marked by its length."""
    content = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        content.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(content.digest(), "little")


def mix(key_: int, counter: int) -> int:
    """The `counter`-th 64-bit number of a key."""
    x = (key_ + GOLDEN * (counter + 1)) & MASK
    x = ((x ^ (x >> 30)) * _MIX_1) & MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & MASK
    return x ^ (x >> 31)


def mix_array(key_: int, counters_N: np.ndarray) -> np.ndarray:
    """`mix` for many counters at once. Takes and gives uint64 (N)."""
    x = np.uint64(key_) + np.uint64(GOLDEN) * (counters_N.astype(np.uint64) + np.uint64(1))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
    return x ^ (x >> np.uint64(31))


def share(number: int) -> float:
    """A 64-bit number as a share in [0, 1), 53 bits of it."""
    return (number >> 11) / (1 << 53)


def permutation(key_: int, count: int) -> np.ndarray:
    """A random order of 0 ... count-1 (int64): counters sorted by their numbers."""
    return np.argsort(mix_array(key_, np.arange(count)), kind="stable")
