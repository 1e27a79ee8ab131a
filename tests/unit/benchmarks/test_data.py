"""What the data benchmark counts and compares, without its peers: words changed, pairs of near duplicates, planted copies, packed rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _data_near, _data_rates, _data_tokens, data
from benchmarks._data_inputs import planted
from benchmarks._peers import PEERS, Peer
from orchestration.data.pack import pack
from orchestration.data.tokenize import Entries
from orchestration.errors import UserError

TEXTS = [
    f"the {word} captain walked along the quiet harbour wall and counted every {word} boat twice before supper"
    for word in ("old", "young", "tall", "small", "quick", "kind", "tired", "proud")
]


@pytest.mark.parametrize(
    ("op", "after", "changed"),
    [
        ("synonyms", "A good movie, truly.", 1),
        ("synonyms", "A fine movie, really.", 3),
        ("insert", "A good big film, truly well.", 2),
        ("delete", "A film, truly.", 1),
        ("swap", "A film good, truly.", 2),
        ("swap", "a GOOD film; truly!", 0),
    ],
)
def test_words_changed_are_counted_without_marks_and_capitals(op: str, after: str, changed: int) -> None:
    assert _data_rates.changes(op, "A good film, truly.", after) == changed


def test_total_variation_tells_equal_means_of_different_laws_apart() -> None:
    always_one = _data_rates.Counts([1, 1, 1, 1], 40)
    none_or_two = _data_rates.Counts([0, 2, 0, 2], 40)
    assert always_one.share == none_or_two.share == 0.1
    assert always_one.distance(none_or_two) == 1.0
    assert always_one.distance(always_one) == 0.0


def test_pairs_that_follow_from_others_count_and_a_missed_one_costs_recall() -> None:
    chain = {(0, 1), (1, 2)}
    assert _data_near.closed(chain, 4) == {(0, 1), (1, 2), (0, 2)}
    quality = _data_near._quality({(0, 1)}, _data_near.closed(chain, 4), 0.8)
    assert quality.precision == 1.0
    assert quality.recall == pytest.approx(1 / 3)
    assert quality.f1 == pytest.approx(0.5)


def test_exact_pairs_are_those_of_a_comparison_one_by_one() -> None:
    texts = tuple([*TEXTS, TEXTS[0] + "!", TEXTS[3].replace("twice", "thrice")])
    shingled = [_data_near.shingles(text, "chars") for text in texts]
    wanted = {
        (a, b)
        for a in range(len(texts))
        for b in range(a + 1, len(texts))
        if len(shingled[a] & shingled[b]) >= 0.8 * len(shingled[a] | shingled[b])
    }
    assert (0, 8) in wanted
    assert _data_near.exact(texts, "chars", 0.8) == _data_near.closed(wanted, len(texts))


def test_ours_finds_the_pairs_that_the_exact_comparison_finds() -> None:
    quality = _data_near.quality_of([*TEXTS, *(text + " ." for text in TEXTS)], "ours")
    assert quality.pairs >= len(TEXTS)
    assert quality.f1 == 1.0


def test_planted_copies_differ_by_one_word_and_are_the_same_every_time() -> None:
    texts = [f"{number} {text}" for number in range(40) for text in TEXTS]
    whole = planted(texts)
    copies = set(whole) - set(texts)
    assert planted(texts) == whole
    assert 0 < len(whole) - len(texts) < len(texts) // 10
    assert set(texts) <= set(whole)
    for copy in copies:
        assert any(
            abs(len(copy.split()) - len(text.split())) <= 1 for text in texts if text.split()[0] == copy.split()[0]
        )


def test_a_packed_row_that_is_cut_or_changed_fails_the_gate() -> None:
    rows = [np.arange(size, dtype=np.int32) + 100 * size for size in (5, 3, 4, 2, 6)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    entries = Entries(np.concatenate(rows), offsets, np.arange(5), np.zeros(5, np.int16), 0)
    packed = pack(entries, 8)
    assert _data_tokens._whole(entries, packed)
    packed.values_T[0] += 1
    assert not _data_tokens._whole(entries, packed)


def test_rows_with_other_ids_are_counted() -> None:
    entries = Entries(np.array([1, 2, 3, 4], np.int32), np.array([0, 2, 4]), np.arange(2), np.zeros(2, np.int16), 0)
    assert _data_tokens.unequal([entries], [[1, 2], [3, 4]]) == 0
    assert _data_tokens.unequal([entries], [[1, 2], [3, 5]]) == 1


def test_a_peer_answers_work_whatever_its_libraries_print_and_its_end_is_named(tmp_path: Path) -> None:
    script = tmp_path / "echo.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(PEERS)!r})\nimport served\n"
        "def work(number):\n    print('chatter')\n    with served.stopwatch() as watch:\n        found = 1 // number\n"
        "    return {**watch, 'found': found}\n"
        "served.serve(work)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    peer = Peer("echo", process)
    assert peer.go(number=1)["found"] == 1
    assert peer.go(number=2)["seconds"] >= 0.0
    with pytest.raises(UserError, match="peer echo broke"):
        peer.go(number=0)
    process.communicate()


def test_an_unknown_part_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match="augment, ids, corpus, bytes, tokens"):
        data.run(only="tokens,packing")
