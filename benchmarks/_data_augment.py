"""Augmentation on one core against textaugment's EDA, nlpaug's SynonymAug and textattack's EasyDataAugmenter, each with its defaults and
at its best, text to text and ids to ids. Called by `data`. That both sides do the same is seen to by `_data_rates`.

Each repeat has texts of its own, unseen before by either side; ours has seen some ten thousand others, as a worker has after some
seconds. How fast it is with words it knows (a second copy, another epoch) is in the note."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claim import Claim, compare
from benchmarks._data_rates import RIVALS, Ids, Match, Ours, Rival, words
from benchmarks._peers import Peer
from orchestration.storage import Storage

SLICE = 2000  # texts a repeat on our side


def claims(
    texts: list[str], peer: Peer, *, storage: Storage, folder: Path, ids: Ids | None, repeats: int, shrink: float = 1.0
) -> list[Claim]:
    """Two claims a rival: as it comes, and at its best. `ids`: from token ids to token ids. `shrink`: smaller samples."""
    ours, found = Ours(storage, ids), []
    slices = [texts[SLICE * n : SLICE * (n + 1)] for n in range(2 * repeats)]
    rest = texts[2 * SLICE * repeats :]
    for rival in RIVALS:
        sample = rest[: max(40, int(rival.gate_rows * shrink))]
        match = Match(rival, peer, ours, ids, sample, folder)
        passed, says = match.gate()
        chain = [match.rates] if rival.chained else [{op: rate} for op, rate in match.rates.items()]
        augmenters = [ours.build(rates) for rates in chain]
        ours.timed(
            augmenters, rest
        )  # it keeps what it learns of a word, as a worker does that has been at it for a while
        for best in (False, True):
            runs = [
                _repeat(rival, peer, ours, augmenters, part, best, ids, folder, shrink)
                for part in [rest[:SLICE], *slices[best::2]]
            ]
            found.append(_claim(rival, best, ids is not None, runs[1:], passed, says))
            print(f"{found[-1].claim}: {found[-1].ratio:.1f}", file=sys.stderr, flush=True)
    return found


def _repeat(
    rival: Rival,
    peer: Peer,
    ours: Ours,
    augmenters: list[Any],
    texts: list[str],
    best: bool,
    ids: Ids | None,
    folder: Path,
    shrink: float,
) -> dict[str, float]:
    """One slice, the peer on the first of its rows and ours on all. Words of augmented text a second, by wall and by processor."""
    rows = texts[: max(8, int(rival.rows * shrink))]
    given = folder / "timed.json"
    if ids is None:
        given.write_text(json.dumps(rows), encoding="utf-8")
    else:
        values_T, offsets_N1 = ids.of(rows)
        given.write_text(json.dumps([part.tolist() for part in np.split(values_T, offsets_N1[1:-1])]))
    op = "eda" if len(rival.ops) > 1 else rival.ops[0]
    tokenizer = {} if ids is None else {"tokenizer": str(ids.folder)}
    theirs = peer.go(peer=rival.name, op=op, best=best, input=str(given), **tokenizer)
    mine, known = ours.timed(augmenters, texts), ours.timed(augmenters, texts, 2)
    made = sum(len(text.split()) for text in texts) * len(augmenters)
    their_words = sum(len(text.split()) for text in rows) * theirs["rows"] / len(rows)
    return {
        "ours": made / mine["seconds"],
        "peer": their_words / theirs["seconds"],
        "ours_cpu": made / mine["cpu_seconds"],
        "peer_cpu": their_words / theirs["cpu_seconds"],
        "known": made / known["seconds"],
        "ours_texts": len(texts) * len(augmenters) / mine["seconds"],
        "peer_texts": theirs["rows"] / theirs["seconds"],
    }


def _claim(rival: Rival, best: bool, with_ids: bool, runs: list[dict[str, float]], passed: bool, says: str) -> Claim:
    def middle(key: str) -> float:
        return statistics.median(run[key] for run in runs)

    way = "token ids to token ids" if with_ids else "text to text"
    chain = "" if not with_ids else "; the peer decodes, changes the text and encodes it again"
    return Claim(
        f"augmented words a second, {way}, one core, against {rival.shown}{' at its best' if best else ''}",
        better="higher",
        target=100.0 if with_ids else rival.target,
        unit="words/s",
        gate=passed,
        gate_says=says,
        note=f"ratio of processor seconds {middle('ours_cpu') / middle('peer_cpu'):.1f}, and with known words"
        f" {middle('known') / middle('peer'):.1f}; texts a second {middle('ours_texts'):,.0f} against"
        f" {middle('peer_texts'):,.0f}; unseen texts, of which the peer takes the first ones{chain}",
        **compare([run["ours"] for run in runs], [run["peer"] for run in runs]),
    )


def usable(text: str, stop_words: frozenset[str]) -> bool:
    """A text that every peer takes: five words or more, one of them no stop word, nothing that ends a line."""
    found = words(text)
    return len(found) >= 5 and "\n" not in text and any(word not in stop_words for word in found)
