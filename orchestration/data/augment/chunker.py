"""Text -> numbers of its chunks, without making a string of each. Takes many rows as one text with spaces; gives the vocabulary's number
of every piece between spaces. Called by `batch`. Three times as fast as `split` and a look-up a piece: most of that time is
waiting for memory, one piece after the other, while numpy's waits overlap.

A piece is known by a 64-bit hash of its bytes: the sum of a random number a byte value times a power of an odd number by place, so
that all hashes come of one running sum. Two of a million words share one with probability 3 in 10**8. B bytes, T pieces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestration.data import rng

SLOTS = 1 << 19  # of the table; a word that finds its slot taken is looked up as a string each time
MOST_BYTES = 1 << 24  # of a text that is hashed; beyond it, one by one
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_INVERSE = pow(_FACTOR, -1, 1 << 64)
_BYTE_256 = rng.mix_array(rng.key("bytes of a chunk"), np.arange(256))
_SPACE = 32


class Slots:
    """64-bit hash -> number, for arrays. A hash whose slot is taken is not kept: the caller looks it up in another way."""

    def __init__(self) -> None:
        self._hash_S = np.zeros(SLOTS, np.uint64)
        self._number_S = np.full(SLOTS, -1, np.int32)

    def find(self, hash_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (int32 T), and the places where they are not known."""
        slot_T = self._slots(hash_T)
        number_T = self._number_S[slot_T]
        return number_T, np.flatnonzero((number_T < 0) | (self._hash_S[slot_T] != hash_T))

    def keep(self, hash_K: np.ndarray, number_K: np.ndarray) -> None:
        slot_K = self._slots(hash_K)
        free = np.flatnonzero(self._number_S[slot_K] < 0)
        _, first = np.unique(slot_K[free], return_index=True)  # of several for one slot the first gets it
        free = free[first]
        self._number_S[slot_K[free]], self._hash_S[slot_K[free]] = number_K[free], hash_K[free]

    def _slots(self, hash_T: np.ndarray) -> np.ndarray:
        return (hash_T >> np.uint64(65 - SLOTS.bit_length())).astype(np.int64)


class Chunker:
    def __init__(self, chunks: Mapping[str, int]) -> None:
        """`chunks` numbers what it is asked for."""
        self._chunks, self._slots = chunks, Slots()
        self._power_B, self._inverse_B = np.ones(1, np.uint64), np.ones(1, np.uint64)

    def __call__(self, whole: str) -> np.ndarray:
        """int32 T."""
        content = whole.encode("utf-8", "surrogatepass")
        if len(content) > MOST_BYTES:
            return np.array([self._chunks[piece] for piece in whole.split(" ")], np.int32)
        start_T, end_T, hash_T = self._hashes(content)
        chunk_T, strange = self._slots.find(hash_T)
        if len(strange):
            spans = zip(start_T[strange].tolist(), end_T[strange].tolist(), strict=True)
            found = [self._chunks[content[start:end].decode("utf-8", "surrogatepass")] for start, end in spans]
            chunk_T[strange] = found
            self._slots.keep(hash_T[strange], chunk_T[strange])
        return chunk_T

    def _hashes(self, content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start, end and hash of each piece."""
        byte_B = np.frombuffer(content, np.uint8)
        end_T = np.append(np.flatnonzero(byte_B == _SPACE), len(byte_B))
        start_T = np.zeros(len(end_T), np.int64)
        start_T[1:] = end_T[:-1] + 1
        self._grow(len(byte_B) + 1)
        sum_B = np.zeros(len(byte_B) + 1, np.uint64)
        np.cumsum(_BYTE_256[byte_B] * self._power_B[: len(byte_B)], out=sum_B[1:])
        hash_T = (sum_B[end_T] - sum_B[start_T]) * self._inverse_B[start_T]
        return start_T, end_T, rng.mix_array(0, hash_T)

    def _grow(self, size: int) -> None:
        if size > len(self._power_B):
            for name, factor in (("_power_B", _FACTOR), ("_inverse_B", _INVERSE)):
                factors = np.full(2 * size, factor, np.uint64)
                factors[0] = 1
                setattr(self, name, np.multiply.accumulate(factors))
