"""Clean, near-dedup, tokenise and pack with plain Ray Data, a `map_batches` a step: JSONL files in, Parquet of packed entries out.
Two cores, which Ray counts as four, as ours does: actors and tasks must fit beside each other. Runs in the peers' environment, in a Ray of its own that is up before the clock starts; see data_io.

`best` off: the manual's way with default batches and blocks, sketches of datasketch. On: sketches of rensa, an index by numpy, large
batches, no masks."""

from __future__ import annotations

import os
import shutil
from typing import Any

os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import data_io
import numpy as np
import ray
import ray.data
import served

PERMUTATIONS, THRESHOLD, BANDS = 128, 0.8, 9  # bands: those that datasketch takes for this threshold
BATCH = 4096


def clean(batch: dict[str, Any]) -> dict[str, Any]:
    texts = [data_io.clean(text) for text in batch["text"]]
    kept = [place for place, text in enumerate(texts) if data_io.stays(text)]
    return {"id": batch["id"][kept], "text": np.array([texts[place] for place in kept], dtype=object)}


def sketch(batch: dict[str, Any]) -> dict[str, Any]:
    from datasketch import MinHash

    found = []
    for text in batch["text"]:
        one = MinHash(num_perm=PERMUTATIONS)
        one.update_batch([shingle.encode() for shingle in data_io.shingles(text)])
        found.append(one.hashvalues)
    return {"id": batch["id"], "sketch": np.stack(found)}


def sketch_rensa(batch: dict[str, Any]) -> dict[str, Any]:
    from rensa import RMinHash

    sets = [list(data_io.shingles(text)) for text in batch["text"]]
    found = RMinHash.digests_from_token_sets(sets, PERMUTATIONS, 17)
    return {"id": batch["id"], "sketch": np.array(found, np.uint32)}


def near(ids: list[int], sketches: np.ndarray, best: bool) -> list[list[int]]:
    """Pairs (row kept, row that leaves), on the driver: an index lives in one process."""
    if best:
        return near_banded(ids, sketches)
    from datasketch import MinHash, MinHashLSH

    index, pairs = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), []
    scheme = MinHash(num_perm=PERMUTATIONS).scheme
    for id, values in zip(ids, sketches, strict=True):
        one = MinHash(num_perm=PERMUTATIONS, hashvalues=values, scheme=scheme)
        found = index.query(one)
        if found:
            pairs.append([found[0], id])
        else:
            index.insert(id, one)
    return pairs


def near_banded(ids: list[int], sketches: np.ndarray) -> list[list[int]]:
    """LSH with numpy: rows whose band is equal, sketches compared. Quicker than either library's index from Python."""
    width, pairs = PERMUTATIONS // BANDS, set()
    for band in range(BANDS):
        part = np.ascontiguousarray(sketches[:, band * width : (band + 1) * width])
        _, first, inverse = np.unique(part.view(f"V{4 * width}").ravel(), return_index=True, return_inverse=True)
        leaders = first[inverse]
        for place in np.flatnonzero(leaders != np.arange(len(ids))).tolist():
            pairs.add((int(leaders[place]), place))
    return [[ids[one], ids[two]] for one, two in pairs if (sketches[one] == sketches[two]).mean() >= THRESHOLD]


class Tokenize:
    def __init__(self, folder: str, max_length: int, lean: bool) -> None:
        from transformers import AutoTokenizer

        self.fast, self.max_length = AutoTokenizer.from_pretrained(folder), max_length
        self.options = {"return_attention_mask": False, "return_token_type_ids": False} if lean else {}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        texts = batch["text"].tolist()
        ids = self.fast(texts, truncation=True, max_length=self.max_length, **self.options)["input_ids"]
        return {"input_ids": np.array([np.array(row, np.int32) for row in ids] + [None], dtype=object)[:-1]}


class Pack:
    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        flat = np.concatenate([np.asarray(row) for row in batch["input_ids"]])
        pieces = [flat[start : start + self.max_length] for start in range(0, len(flat), self.max_length)]
        return {"input_ids": np.array([*pieces, None], dtype=object)[:-1]}


def work(files: list[str], tokenizer: str, output: str, best: bool, max_length: int) -> dict[str, Any]:
    """Gives seconds from files to files on a live Ray, rows read and kept, duplicate pairs."""
    shutil.rmtree(output, ignore_errors=True)
    batches: dict[str, Any] = {"batch_size": BATCH} if best else {}
    with served.stopwatch() as watch:
        rows = ray.data.read_json(files, lines=True).map_batches(clean, **batches).materialize()
        sketches = rows.map_batches(sketch_rensa if best else sketch, **batches).materialize()
        found = [(batch["id"], batch["sketch"]) for batch in sketches.iter_batches(batch_size=BATCH)]
        pairs = near(
            np.concatenate([ids for ids, _ in found]).tolist(), np.concatenate([part for _, part in found]), best
        )
        gone = ray.put(np.array(sorted({leaves for _, leaves in pairs}), np.int64))

        def stays(batch: dict[str, Any]) -> dict[str, Any]:
            kept = ~np.isin(batch["id"], ray.get(gone))
            return {name: column[kept] for name, column in batch.items()}

        tokens = rows.map_batches(stays, **batches).map_batches(
            Tokenize,
            fn_constructor_args=(tokenizer, max_length, best),
            compute=ray.data.ActorPoolStrategy(size=2),
            **batches,
        )
        packed = tokens.map_batches(
            Pack,
            fn_constructor_args=(max_length,),
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=BATCH,
        )
        packed.write_parquet(output)
    import pyarrow.dataset

    lengths = pyarrow.dataset.dataset(output).to_table().column("input_ids")
    read = sum(len(ids) for ids, _ in found)
    tokens_count = sum(len(row) for row in lengths.to_pylist())
    kept = read - len({leaves for _, leaves in pairs})
    return {**watch, "read": read, "kept": kept, "tokens": tokens_count, "pairs": pairs, "entries": len(lengths)}


if __name__ == "__main__":
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    served.serve(work)
