"""Size: 20 million tokens with every count known, and memory that does not follow the corpus. Minutes; `make chaos`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.store import SPLITS, TokenStore
from orchestration.storage import Storage
from tests.chaos import corpus
from tests.corpora import WEIGHTS, tokenizer_storage

OBJECT_STORE = 80 << 20
TOKENS, BYTES_A_ROW = 20_000_000, 917
TIMEOUT_S = 3000
MOST_GROWTH = 1.10


def _prepare(made: corpus.Corpus, root: Path, minilm: Path, **data: Any) -> dict[str, Any]:
    storage = tokenizer_storage(root / "storage", minilm)
    arguments = {
        "storage": storage.url,
        "weights": WEIGHTS,
        "workers": 2,
        "object_store_bytes": OBJECT_STORE,
        "config": {
            "sources": [{"name": "made", "path": str(made.folder)}],
            "tokenize": {"max_length": 256},
            "max_bad_rows": 1000,
            **data,
        },
    }
    path = root / "arguments.json"
    path.write_text(json.dumps(arguments))
    command = [sys.executable, "-m", "tests.chaos.driver", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    tokens = sum(split["tokens"]["total"] for split in found["report"]["splits"].values())
    print(
        f"\n{made.bytes / 1e6:.0f} MB, {made.rows:,} rows, {tokens:,} tokens: {found['seconds']:.1f} s,"
        f" {made.rows / found['seconds']:,.0f} rows/s, {tokens / found['seconds']:,.0f} tokens/s,"
        f" peak {found['peak_bytes'] / 1e6:.0f} MB { {role: round(size / 1e6) for role, size in found['roles'].items()} }"
    )
    return found


@pytest.fixture(scope="module")
def words(minilm: Path) -> list[str]:
    return corpus.whole_words(minilm)


def test_of_twenty_million_tokens_every_row_and_token_is_accounted_for(
    words: list[str], minilm: Path, tmp_path: Path
) -> None:
    made = corpus.write(tmp_path / "corpus", words, rows=172_000, files=5, seed=1)
    assert made.tokens >= TOKENS
    found = _prepare(made, tmp_path, minilm)
    report = found["report"]
    assert report["rows_in"] == made.rows
    left = {reason: what["count"] for reason, what in report["left"].items()}
    assert left == {"duplicate of a row that stays": made.copies, "not valid JSON": made.broken}
    assert sum(split["rows"] for split in report["splits"].values()) == made.rows - made.copies - made.broken
    assert sum(split["tokens"]["total"] for split in report["splits"].values()) == made.tokens
    storage = Storage(str(tmp_path / "storage"))
    store = TokenStore.open(storage, found["rel"])
    assert sum(int(store.split(name).lengths.sum()) for name in SPLITS) == made.tokens
    assert len({row for name in SPLITS for row in store.split(name).row_ids}) == made.rows - made.copies - made.broken
    storage.verify(found["rel"])


@pytest.mark.parametrize("data", [{}, {"stream": {}}], ids=["prepared", "streamed"])
def test_memory_is_the_same_for_ten_times_the_size_of_the_object_store(
    words: list[str], minilm: Path, tmp_path: Path, data: dict[str, Any]
) -> None:
    peaks = []
    for times in (1, 10):
        root = tmp_path / str(times)
        made = corpus.write(
            root / "corpus", words, rows=times * OBJECT_STORE // BYTES_A_ROW, files=4 * times, seed=times
        )
        assert made.bytes == pytest.approx(times * OBJECT_STORE, rel=0.05)
        peaks.append(_prepare(made, root, minilm, **data)["peak_bytes"])
    assert peaks[1] <= MOST_GROWTH * peaks[0], peaks
