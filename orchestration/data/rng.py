"""Randomness without a generator to share: every number is a pure function of a key and a counter, so it depends neither on
workers nor on the order in which they ask. Takes keys made of plain values; gives whole numbers, shares of one, and shuffles of
which any place can be asked for alone. Used by splits, augmentation and the order of epochs. The mixer is the finaliser of
SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014); our own few lines, since numpy
does not promise that its generators give the same numbers in the next version."""

from __future__ import annotations

import hashlib
import math
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


# Up to so many a shuffle is a sorted table, which is exact: a cipher of so few values can give only few orders.
TABLE = 1024
# Even. With 2 the pairs of neighbouring places are far from uniform, from 4 on no test tells them apart; 4 to spare.
ROUNDS = 8


class Permutation:
    """A random order of 0 ... count-1 of which any place can be asked for, at the same cost wherever it lies.

    A cipher on the places: a Feistel network over pairs (left below `a`, right below `b`, a x b barely above `count`) with
    sums in place of xor, walked until the value is below `count` (Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002, method FE2 and cycle walking). As a and b are near the square root of `count`, about one place in sqrt(count)
    takes a second turn. Nothing of size `count` is held or computed.
    """

    def __init__(self, key_: int, count: int) -> None:
        self.count = count
        self._table = permutation(key_, count) if count <= TABLE else None
        self._left = math.isqrt(max(count - 1, 0)) + 1
        self._right = -(-count // self._left)
        self._keys = [mix(key_, number) for number in range(ROUNDS)]

    def __call__(self, places_K: np.ndarray) -> np.ndarray:
        """What stands at each place (int64 K). The places must be in 0 ... count-1."""
        if self._table is not None:
            return self._table[places_K]
        found_K = self._turn(places_K.astype(np.uint64))
        while (outside_K := np.flatnonzero(found_K >= self.count)).size:
            found_K[outside_K] = self._turn(found_K[outside_K])
        return found_K.astype(np.int64)

    def _turn(self, values_K: np.ndarray) -> np.ndarray:
        size, other = np.uint64(self._left), np.uint64(self._right)
        right_K, left_K = np.divmod(values_K, size)
        for key_ in self._keys:
            left_K, right_K = right_K, (left_K + mix_array(key_, right_K) % size) % size
            size, other = other, size
        return right_K * size + left_K
