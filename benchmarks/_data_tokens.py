"""Tokenising alone against the fast tokenizer of transformers, and what packing wastes against padding. Called by `data`.

Our tokenizer starts each repeat with nothing remembered; the peer's has no memory of words. Ids are compared on every row, and on
rows that are hard on purpose."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claim import Claim, compare
from benchmarks._data_peers import peer
from benchmarks._peers import on_cores
from benchmarks.peers.served import stopwatch
from orchestration.data import rng
from orchestration.data.config import TokenizeConfig
from orchestration.data.pack import pack
from orchestration.data.tokenize import Entries, Tokenizer

MAX_LENGTH, BATCH = 128, 32
TARGET, MOST_WASTE = 1.5, 0.02
CALL = 8192  # texts in one call of ours: the rows of a shard
HARD = [
    "",
    " ",
    "\t tabs\tand\nlines \r\n",
    "naïve café — “quotes” … ﬁne",
    "e\u0301 n\u0303 \u200b zero\u00ad width",
    "中文和English混排，没有空格。",
    "👩‍👩‍👧‍👦 🇨🇭 emoji",
    "a" * 300,
    "http://example.org/?q=1&x=[SEP] [CLS] [MASK] [PAD] [UNK]",
    "don't can't I'm U.S.A. 3.14% $5,000 #tag @name",
    "\u0000null \ufffd \ud7ff",
    "ALL CAPS and MiXeD " * 80,
]


def encode(folder: Path, texts: Sequence[str]) -> list[Entries]:
    """By a tokenizer of its own, a call a shard."""
    tokenizer, config = Tokenizer(folder, MAX_LENGTH), TokenizeConfig(max_length=MAX_LENGTH)
    return [tokenizer.entries(texts[start : start + CALL], config) for start in range(0, len(texts), CALL)]


def claims(texts: list[str], model: Path, *, cores: Sequence[int], folder: Path, repeats: int) -> list[Claim]:
    """One thread, and the threads that each has by default on these cores; the peer as it comes and at its best."""
    whole, found = texts + HARD, []
    given, made = folder / "tokens-in.json", folder / "tokens-out.json"
    given.write_text(json.dumps(whole), encoding="utf-8")
    for threads in (1, len(cores)):
        settings = {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
        with on_cores(cores[:threads]), peer("data_tokens", cores=cores[:threads], settings=settings) as process:
            work: dict[str, Any] = {"input": str(given), "tokenizer": str(model), "max_length": MAX_LENGTH}
            process.go(**work, best=True, output=str(made))
            differ = unequal(encode(model, whole), json.loads(made.read_text()))
            for best in (False, True):
                mine, theirs = [], []
                for _ in range(repeats):
                    theirs.append(process.go(**work, best=best))
                    with stopwatch() as watch:
                        encode(model, whole)
                    mine.append(watch)
                found.append(_claim(threads, best, mine, theirs, rows=len(whole), differ=differ))
                print(f"{found[-1].claim}: {found[-1].ratio:.2f}", file=sys.stderr, flush=True)
    return found


def _claim(threads: int, best: bool, mine: list[Any], theirs: list[Any], *, rows: int, differ: int) -> Claim:
    cores = "one core" if threads == 1 else f"{threads} cores (ours uses one)"
    cpu = sorted(b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(mine, theirs, strict=True))[len(mine) // 2]
    return Claim(
        f"rows tokenised a second, {cores}, against transformers' fast tokenizer{' at its best' if best else ''}",
        better="higher",
        target=TARGET,
        unit="rows/s",
        gate=differ == 0,
        gate_says=f"ids of {rows - differ:,} of {rows:,} rows are equal, {len(HARD)} of them hard on purpose",
        note=f"{theirs[0]['tokens']:,} tokens; ratio of processor seconds {cpu:.2f}; ours begins with an empty memory of words",
        **compare([rows / run["seconds"] for run in mine], [rows / run["seconds"] for run in theirs]),
    )


def unequal(mine: list[Entries], theirs: list[list[int]]) -> int:
    """Rows whose ids differ."""
    rows = [part.tolist() for one in mine for part in np.split(one.values_T, one.offsets_E1[1:-1])]
    return sum(a != b for a, b in zip(rows, theirs, strict=True))


def waste(texts: list[str], model: Path) -> Claim:
    """Share of a batch's tokens that are padding: packed rows padded to MAX_LENGTH, against rows in random order padded to the
    longest of each batch. Gate: every row's ids come back whole from the packed entries."""
    parts = encode(model, texts)
    bins = [pack(part, MAX_LENGTH) for part in parts]
    tokens = sum(len(part.values_T) for part in parts)
    ours = 1 - tokens / (MAX_LENGTH * sum(map(len, bins)))
    length_N = np.concatenate([np.diff(part.offsets_E1) for part in parts])
    length_N = length_N[rng.permutation(rng.key("bench-batches"), len(length_N))]
    padded = sum(int(batch.max()) * len(batch) for batch in np.split(length_N, range(BATCH, len(length_N), BATCH)))
    whole = all(_whole(part, packed) for part, packed in zip(parts, bins, strict=True))
    peer_waste = 1 - tokens / padded
    return Claim(
        f"share of tokens that are padding, packed by shards into {MAX_LENGTH} tokens, against padding to the longest of {BATCH} rows",
        ours=ours,
        peer=peer_waste,
        better="lower",
        target=MOST_WASTE / peer_waste,
        unit="of all tokens",
        gate=whole and ours < MOST_WASTE,
        gate_says=f"{tokens:,} tokens of {len(texts):,} rows, every row whole in one entry; {ours:.2%} is padding (allowed {MOST_WASTE:.0%})",
        note="the target is 2% of tokens, written as a ratio",
    )


def _whole(entries: Entries, packed: Any) -> bool:
    ends = np.cumsum(packed.segments_E)
    rows = {row: part for row, part in zip(packed.rows_E.tolist(), np.split(packed.values_T, ends[:-1]), strict=True)}
    inside = np.isin(packed.offsets_B1[1:], ends).all()
    same = all(
        np.array_equal(rows[row], part) for row, part in enumerate(np.split(entries.values_T, entries.offsets_E1[1:-1]))
    )
    return bool(inside) and same
