"""Numbers of pieces by hash: always those that a look-up of the string would give."""

from __future__ import annotations

import pytest

from orchestration.data import rng
from orchestration.data.augment import chunker
from orchestration.data.augment.chunker import Chunker


class Numbers(dict[str, int]):
    def __missing__(self, key: str) -> int:
        self[key] = number = len(self)
        return number


@pytest.mark.parametrize("slots", [1 << 19, 1 << 4])  # a crowded table too
def test_pieces_get_the_number_of_their_string(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunker, "SLOTS", slots)
    numbers = Numbers()
    number_of = Chunker(numbers)
    words = ["ab", "ba", "", "a", "aa", "电影", "\ud800", "it's", "\0", "ab"] + [
        f"w{rng.mix(1, i) % 5000}" for i in range(20_000)
    ]
    for start in range(0, len(words), 700):
        part = words[start : start + 700]
        assert number_of(" ".join(part)).tolist() == [numbers[word] for word in part]
    assert len(numbers) == len(set(words))


def test_the_same_piece_has_one_number_wherever_it_stands() -> None:
    number_of = Chunker(Numbers())
    assert set(number_of(" ".join(["film"] * 9999)).tolist()) == {0}
    assert number_of("").tolist() == [1]
    assert number_of("film").tolist() == [0]
