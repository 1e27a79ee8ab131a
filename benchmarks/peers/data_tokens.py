"""Token ids by the fast tokenizer of transformers, in batches. `best`: no masks, batches of 4,096 in place of 1,000. How many
threads it has is set by whoever starts it (RAYON_NUM_THREADS). Runs in the peers' environment; see data_io."""

from __future__ import annotations

import functools
from typing import Any

import data_io
import served


@functools.cache
def tokenizer_of(folder: str) -> Any:
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(folder)
    fast(["a warm evening"])
    return fast


@functools.cache
def texts_of(path: str) -> list[str]:
    return data_io.read(path)


def work(input: str, tokenizer: str, max_length: int, best: bool, output: str = "") -> dict[str, Any]:
    fast, texts, ids = tokenizer_of(tokenizer), texts_of(input), []
    size = 4096 if best else 1000
    lean = {"return_attention_mask": False, "return_token_type_ids": False} if best else {}
    with served.stopwatch() as watch:
        for start in range(0, len(texts), size):
            ids += fast(texts[start : start + size], truncation=True, max_length=max_length, **lean)["input_ids"]
    if output:
        data_io.write(output, ids)
    return {**watch, "rows": len(ids), "tokens": sum(map(len, ids))}


if __name__ == "__main__":
    served.serve(work)
