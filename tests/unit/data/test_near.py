from __future__ import annotations

import hashlib
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestration.data import near, sketch
from orchestration.data.catalog import local
from orchestration.data.clean import match_text
from orchestration.data.config import NearDuplicatesConfig
from orchestration.data.near import groups
from orchestration.data.rng import key, mix, permutation
from orchestration.data.sketch import Features, banding, features

CONFIG = NearDuplicatesConfig()


def ids(rows: int) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(b"%d" % row, digest_size=16).digest() for row in range(rows))
    return np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)


def edited(text: str, number: int) -> str:
    """A word dropped, a typo, another case, other punctuation."""
    words, place = text.split(), mix(key("edit"), number)
    kind = number % 4
    if kind == 0:
        return " ".join(word for at, word in enumerate(words) if at != place % len(words))
    if kind == 1:
        at = place % len(text)
        return text[:at] + "q" + text[at + 1 :]
    return text.upper() + "!!" if kind == 2 else text.replace(",", "").replace(".", "") + "."


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """2,400 real rows and 1,600 edits of some of them."""
    texts = pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()
    rows = [texts[row] for row in permutation(key("near"), len(texts))[:2400]]
    return rows + [edited(rows[number], number) for number in range(1600)]


Pairs = set[tuple[int, int]]


def true_pairs(texts: list[str], config: NearDuplicatesConfig) -> Pairs:
    """By the Jaccard similarity of all pairs."""
    from scipy.sparse import csr_array

    known: dict[str, int] = {}
    columns, starts = [], [0]
    for text in texts:
        tokens: list[str] = list(match_text(text)) if config.unit == "chars" else match_text(text).split(" ")
        tokens += ["\0"] * (config.shingle - len(tokens))
        grams = {"\1".join(tokens[at : at + config.shingle]) for at in range(len(tokens) - config.shingle + 1)}
        columns += [known.setdefault(gram, len(known)) for gram in grams]
        starts.append(len(columns))
    table = csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(len(texts), len(known)))
    shared, size = (table @ table.T).tocoo(), np.diff(starts)
    similarity = shared.data / (size[shared.row] + size[shared.col] - shared.data)
    found = (shared.row < shared.col) & (similarity >= config.threshold)
    return set(zip(shared.row[found].tolist(), shared.col[found].tolist(), strict=True))


def chained(pairs: Pairs, rows: int) -> Pairs:
    """The pairs, and those that follow from them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, two = np.array(sorted(pairs)).T
    return within(connected_components(coo_array((np.ones(len(one)), (one, two)), shape=(rows, rows)))[1])


def within(group_N: np.ndarray) -> Pairs:
    """All pairs of rows of one group."""
    rows: dict[int, list[int]] = {}
    for row, group in enumerate(group_N.tolist()):
        rows.setdefault(group, []).append(row)
    return {pair for members in rows.values() for pair in combinations(members, 2)}


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        NearDuplicatesConfig(threshold=0.6, permutations=64),
        NearDuplicatesConfig(unit="words", shingle=2, threshold=0.7),
    ],
    ids=["chars", "low", "words"],
)
def test_groups_are_those_that_exact_jaccard_of_all_pairs_gives(
    corpus: list[str], config: NearDuplicatesConfig
) -> None:
    true = chained(true_pairs(corpus, config), len(corpus))
    found = within(groups([features(corpus, config)], ids(len(corpus)), config).root_N)
    assert len(true) > 1000
    assert found <= true  # every candidate is checked
    assert len(found) >= 0.999 * len(true)


def test_the_kept_rows_are_the_smallest_ids_of_the_groups_that_exact_pairs_form(corpus: list[str]) -> None:
    row_id_N2 = ids(len(corpus))
    rank = np.argsort(np.lexsort((row_id_N2[:, 1], row_id_N2[:, 0])))
    root = list(range(len(corpus)))

    def find(row: int) -> int:
        while root[row] != row:
            row = root[row]
        return row

    for left, right in true_pairs(corpus, CONFIG):
        low, high = sorted((find(left), find(right)), key=lambda row: rank[row])
        root[high] = low
    found = groups([features(corpus, CONFIG)], row_id_N2, CONFIG)
    expected = np.array([find(row) == row for row in range(len(corpus))])
    assert np.array_equal(found.keep_N, found.root_N == np.arange(len(corpus)))
    assert (found.keep_N != expected).sum() <= 2  # a pair at the threshold may be missed: banding.RECALL
    assert (rank[found.root_N] <= rank).all()
    assert found.root_N[found.root_N].tolist() == found.root_N.tolist()
    assert 1000 < found.groups <= (~found.keep_N).sum() <= found.pairs <= found.compared


def test_order_of_rows_and_cut_of_units_change_nothing(corpus: list[str]) -> None:
    row_id_N2 = ids(len(corpus))
    first = groups([features(corpus, CONFIG)], row_id_N2, CONFIG)
    order = permutation(key("shuffle"), len(corpus))
    shuffled = [corpus[row] for row in order]
    cuts = [0, 1, 700, 701, 701, 3000, len(corpus)]
    parts = [features(shuffled[low:high], CONFIG) for low, high in pairwise(cuts)]
    other = groups(parts, row_id_N2[order], CONFIG)
    assert (np.array(order)[other.root_N] == first.root_N[order]).all()
    assert (other.groups, other.pairs) == (first.groups, first.pairs)


def test_features_of_a_row_depend_on_its_text_alone(corpus: list[str]) -> None:
    texts = ["", "a", "ab", "naïve 好看", *corpus[:300]]
    for config in (CONFIG, NearDuplicatesConfig(unit="words", shingle=3)):
        together = features(texts, config)
        for row in (0, 1, 2, 3, 150, 303):
            alone = features([texts[row]], config)
            assert (alone.bands_BN[:, 0] == together.bands_BN[:, row]).all()
            low, high = together.offsets_N1[row : row + 2]
            assert alone.hashes[: alone.offsets_N1[1]].tolist() == together.hashes[low:high].tolist()


@pytest.mark.parametrize(
    ("config", "piece"),
    [(CONFIG, 5000), (NearDuplicatesConfig(unit="words", shingle=1), 4995)],  # words of 9 with their space: none is cut
    ids=["chars", "words"],
)
def test_a_long_row_has_the_same_features_in_pieces(
    config: NearDuplicatesConfig, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(f"{mix(key('long'), number):08x}"[:8] for number in range(3000))
    whole = features(["before", text, "behind"], config)
    assert whole.offsets_N1[2] - whole.offsets_N1[1] == sketch.MOST_HASHES
    monkeypatch.setattr(sketch, "PIECE", piece)
    parts = features(["before", text, "behind"], config)
    assert (parts.bands_BN == whole.bands_BN).all()
    assert (parts.hashes == whole.hashes).all()


@pytest.mark.parametrize("together", [0, 1, 5, 10_000])
def test_rows_that_wait_for_more_rounds_have_the_features_they_have_without_waiting(
    corpus: list[str], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also rows of one shingle, whose bins no number of rounds fills, and of one letter for longer than a piece."""
    texts = ["", "a", *corpus[:400], "ab" * 90, "一二", "z" * (sketch.PIECE + 10), *corpus[400:500]]
    whole = features(texts, CONFIG)
    monkeypatch.setattr(sketch, "TOGETHER", together)
    other = features(texts, CONFIG)
    assert (other.bands_BN == whole.bands_BN).all()
    assert (other.hashes == whole.hashes).all()


def test_long_rows_are_judged_by_an_estimate_close_to_their_similarity(corpus: list[str]) -> None:
    words = " ".join(corpus[:400]).split()
    base = " ".join(words[:5000])
    close = " ".join(word for at, word in enumerate(words[:5000]) if at % 50)  # Jaccard about 0.9
    apart = " ".join(word for at, word in enumerate(words[:5000]) if at % 5)  # about 0.5
    assert groups([features([base, close, apart], CONFIG)], ids(3), CONFIG).keep_N.sum() == 2
    assert groups([features([base, close], CONFIG)], ids(2), CONFIG).keep_N.sum() == 1


def test_rows_alike_by_a_chain_of_pairs_form_one_group() -> None:
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join(words[at : at + 50]) for at in range(0, 10, 2)]
    assert (0, 4) not in true_pairs(texts, CONFIG)
    found = groups([features(texts, CONFIG)], ids(5), CONFIG)
    assert (found.groups, found.keep_N.sum()) == (1, 1)
    assert found.keep_N[np.lexsort(ids(5).T[::-1])[0]]


def test_very_short_and_empty_rows_and_lone_surrogates_are_compared_too() -> None:
    texts = ["", "", "a", "A", "ab", "好", "好", "\ud800", "\ud800"]
    found = groups([features(texts, CONFIG)], ids(len(texts)), CONFIG)
    assert (found.groups, found.keep_N.sum()) == (4, 5)
    nothing = groups([features([], CONFIG)], ids(0), CONFIG)
    assert (len(nothing.keep_N), nothing.groups, nothing.pairs) == (0, 0, 0)
    assert groups([], ids(0), CONFIG).groups == 0


def test_a_chinese_character_is_a_word() -> None:
    config = NearDuplicatesConfig(unit="words", shingle=1, threshold=0.7)
    assert features(["这部电影很好看", "这部 电影 good movie"], config).offsets_N1.tolist() == [0, 7, 13]
    assert groups([features(["这部电影真的很好看", "这部电影真的不好看"], config)], ids(2), config).groups == 1


def test_a_bucket_of_rows_all_alike_costs_about_one_comparison_a_row() -> None:
    body = "the quick brown fox jumps over the lazy dog while seven wizards vex a jovial sphinx of black quartz " * 3
    texts = [f"{body}{number}" for number in range(5000)]
    found = groups([features(texts, CONFIG)], ids(5000), CONFIG)
    assert (found.groups, found.keep_N.sum()) == (1, 1)
    assert found.compared < 3 * 5000  # all pairs would be 12 million


def test_a_bucket_of_unlike_rows_costs_a_bounded_number_of_comparisons() -> None:
    rows, bands = 2000, banding(CONFIG)[0]
    hashes = np.sort(np.arange(rows * 20, dtype=np.uint32).reshape(rows, 20) * np.uint32(2654435761), axis=1)
    hashes[rows // 2 :] = hashes[: rows // 2][::-1]  # each row of the second half is a copy of one of the first
    flat = np.append(hashes, np.zeros(sketch.MOST_HASHES, np.uint32))
    bands_BN = np.zeros((bands, rows), np.uint64)  # the worst case: one bucket in every band but the last
    bands_BN[-1] = hashes[:, 0]
    found = groups([Features(bands_BN, flat, np.arange(0, rows * 20 + 1, 20))], ids(rows), CONFIG)
    assert found.compared <= bands * (near.FEW + 1) * rows
    assert found.keep_N.sum() == rows // 2  # a band that tells them apart finds what the large buckets missed


def test_features_may_be_saved_and_mapped_into_memory(corpus: list[str], tmp_path: Path) -> None:
    first = features(corpus[:1000] + corpus[-1000:], CONFIG)
    mapped = []
    for name in ("bands_BN", "hashes", "offsets_N1"):
        np.save(tmp_path / f"{name}.npy", getattr(first, name))
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    again = groups([Features(*mapped)], ids(2000), CONFIG)
    assert (again.keep_N == groups([first], ids(2000), CONFIG).keep_N).all()


def test_features_are_the_same_on_every_machine_and_version() -> None:
    found = features(["Plain words.", "naïve 好看"], CONFIG)
    digest = hashlib.sha256(found.bands_BN.tobytes() + found.hashes[: found.offsets_N1[-1]].tobytes()).hexdigest()
    assert digest[:16] == "63c3e41ff8882f42"


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("permutations", [16, 128, 1024])
def test_bands_find_nearly_all_pairs_at_the_threshold(threshold: float, permutations: int) -> None:
    bands, size = banding(NearDuplicatesConfig(threshold=threshold, permutations=permutations))
    assert bands * size <= permutations
    assert 1 - (1 - threshold**size) ** bands >= sketch.RECALL


def test_row_ids_that_do_not_fit_the_features_are_an_error() -> None:
    with pytest.raises(ValueError, match="features of 2 rows, but 3 row ids"):
        groups([features(["a", "b"], CONFIG)], ids(3), CONFIG)
