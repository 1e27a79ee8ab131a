"""Clean, near-dedup, tokenise and pack with `datasets`, `datasketch` and a fast tokenizer of transformers: JSONL files in, an Arrow
data set of packed entries out. Two processes. Runs in the peers' environment; see data_io.

`best` off: as their manuals show it, a function a row. On: two functions in place of five, in batches, so that
processes start thrice; a faster hash, `update_batch` a row, an index that is not asked for doubles, no masks."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import data_io
import datasets
import served
from datasketch import MinHash, MinHashLSH
from transformers import AutoTokenizer

datasets.disable_progress_bars()
PERMUTATIONS, THRESHOLD = 128, 0.8


def _xxhash(data: bytes) -> int:
    import xxhash

    return xxhash.xxh32_intdigest(data)


_template = MinHash(num_perm=PERMUTATIONS)
_quick = MinHash(num_perm=PERMUTATIONS, hashfunc=_xxhash)


def clean_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": data_io.clean(row["text"])}


def stays_row(row: dict[str, Any]) -> bool:
    return data_io.stays(row["text"])


def sketch_row(row: dict[str, Any]) -> dict[str, Any]:
    sketch = MinHash(num_perm=PERMUTATIONS)
    for shingle in data_io.shingles(row["text"]):
        sketch.update(shingle.encode())
    return {"sketch": sketch.hashvalues}


def clean_and_sketch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"id": [], "text": [], "sketch": []}
    for id, text in zip(batch["id"], map(data_io.clean, batch["text"]), strict=True):
        if data_io.stays(text):
            sketch = _quick.copy()
            sketch.update_batch([shingle.encode() for shingle in data_io.shingles(text)])
            for column, value in zip(found.values(), (id, text, sketch.hashvalues), strict=True):
                column.append(value)
    return found


def near(ids: list[int], sketches: Any, best: bool) -> list[list[int]]:
    """Pairs (row kept, row that leaves): each row asks the index of rows kept so far."""
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    pairs = []
    for id, values in zip(ids, sketches, strict=True):
        options = {"permutations": _quick.permutations} if best else {}
        sketch = MinHash(num_perm=PERMUTATIONS, hashvalues=values, scheme=_template.scheme, **options)
        found = index.query(sketch)
        if found:
            pairs.append([found[0], id])
        else:
            index.insert(id, sketch, check_duplication=not best)
    return pairs


def tokenize(batch: dict[str, list[Any]], fast: Any, max_length: int) -> dict[str, Any]:
    return {"input_ids": fast(batch["text"], truncation=True, max_length=max_length)["input_ids"]}


def pack(batch: dict[str, list[Any]], max_length: int) -> dict[str, list[Any]]:
    """The `group_texts` of transformers' language modelling examples: all ids end to end, cut every max_length."""
    flat = [token for ids in batch["input_ids"] for token in ids]
    return {"input_ids": [flat[start : start + max_length] for start in range(0, len(flat), max_length)]}


def tokenize_and_pack(batch: dict[str, list[Any]], fast: Any, max_length: int) -> dict[str, list[Any]]:
    options = {"return_attention_mask": False, "return_token_type_ids": False}
    found = fast(batch["text"], truncation=True, max_length=max_length, **options)
    return pack({"input_ids": found["input_ids"]}, max_length)


def work(files: list[str], tokenizer: str, output: str, best: bool, max_length: int) -> dict[str, Any]:
    """Gives seconds from files to files, rows read and kept, duplicate pairs."""
    fast = AutoTokenizer.from_pretrained(tokenizer)
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.TemporaryDirectory() as cache, served.stopwatch() as watch:
        rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache, num_proc=2)
        read = len(rows)
        if best:
            batched: dict[str, Any] = {"batched": True, "batch_size": 4096, "num_proc": 2}
            rows = rows.map(clean_and_sketch, remove_columns=rows.column_names, **batched)
            sketches = rows.with_format("numpy")
        else:
            batched = {"batched": True, "num_proc": 2}
            rows = rows.map(clean_row, num_proc=2).filter(stays_row, num_proc=2)
            sketches = rows.map(sketch_row, remove_columns=["text"], num_proc=2).with_format("numpy")
        pairs = near(sketches["id"][:].tolist(), sketches["sketch"][:], best)
        gone = {leaves for _, leaves in pairs}
        rows = rows.select([place for place, id in enumerate(rows["id"][:]) if id not in gone])
        kept, options = len(rows), {"fast": fast, "max_length": max_length}
        if best:
            packed = rows.map(tokenize_and_pack, fn_kwargs=options, remove_columns=rows.column_names, **batched)
        else:
            rows = rows.map(tokenize, fn_kwargs=options, remove_columns=rows.column_names, **batched)
            packed = rows.map(pack, fn_kwargs={"max_length": max_length}, **batched)
        packed.save_to_disk(output)  # by processes it is slower: those are spawned anew
    tokens = sum(map(len, packed["input_ids"][:]))
    return {**watch, "read": read, "kept": kept, "tokens": tokens, "pairs": pairs, "entries": len(packed)}


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # two processes already; it forks with a warning else
    served.serve(work)
