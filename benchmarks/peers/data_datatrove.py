"""Clean, near-dedup and tokenise with `datatrove`: JSONL files in, token files out (all documents end to end, as its packing is).
Two tasks at a time. Runs in the peers' environment; see data_io.

Its MinHash is over runs of words of the simplified text, 14 buckets of 8 hashes; `best` off: its defaults, words cut by
spaCy. On: forked in place of fresh processes, words cut at spaces, whole files of signatures read at once, no shuffle."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import data_io
import served
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.utils.logging import logger
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import WordTokenizer

TASKS = 2


class AtSpaces(WordTokenizer):
    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def clean(data: Any, rank: int = 0, world_size: int = 1) -> Any:
    for document in data:
        document.text = data_io.clean(document.text)
        if data_io.stays(document.text):
            yield document


def unpadded(folder: str, path: Path, max_length: int) -> str:
    """The tokenizer with its padding off: the file of a sentence encoder asks for rows of one length."""
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    fast.no_padding()
    fast.enable_truncation(max_length)
    fast.save(str(path))
    return str(path)


def pairs_of(folder: Path, ids: list[list[int]]) -> list[list[int]]:
    """Pairs found, as ids of rows: a .dups file holds (file, document, file, document)."""
    found = []
    for path in sorted(folder.glob("*.dups")):
        for one, first, two, second in struct.iter_unpack("<4I", path.read_bytes()):
            found.append([ids[one][first], ids[two][second]])
    return found


def work(files: list[str], tokenizer: str, output: str, best: bool, max_length: int) -> dict[str, Any]:
    """Gives seconds from files to files, rows read and kept, duplicate pairs."""
    shutil.rmtree(output, ignore_errors=True)
    root, source = Path(output), str(Path(files[0]).parent)
    root.mkdir(parents=True)
    config = MinhashConfig()
    how: dict[str, Any] = {"start_method": "fork"} if best else {}
    buffer: dict[str, Any] = {"lines_to_buffer": -1} if best else {}
    words = AtSpaces() if best else Languages.english

    def reader() -> list[Any]:
        return [JsonlReader(source, id_key="id", glob_pattern="*.jsonl"), clean]

    def step(pipeline: list[Any], tasks: int, name: str) -> None:
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=TASKS, logging_dir=str(root / "logs" / name), skip_completed=False, **how
        ).run()

    logger.remove()
    with served.stopwatch() as watch:
        step(
            [*reader(), MinhashDedupSignature(str(root / "signatures"), config=config, language=words)],
            TASKS,
            "signatures",
        )
        buckets = MinhashDedupBuckets(str(root / "signatures"), str(root / "buckets"), config=config, **buffer)
        step([buckets], config.num_buckets, "buckets")
        step([MinhashDedupCluster(str(root / "buckets"), str(root / "removed"), config=config, **buffer)], 1, "cluster")
        tokens = DocumentTokenizer(
            str(root / "tokens"), unpadded(tokenizer, root / "tokenizer.json", max_length), shuffle_documents=not best
        )
        step([*reader(), MinhashDedupFilter(str(root / "removed"), **buffer), tokens], TASKS, "tokens")
    ids = [[int(doc.id) for doc in clean(reader()[0].run(rank=rank, world_size=TASKS))] for rank in range(TASKS)]
    pairs = pairs_of(root / "buckets", ids)
    removed = sum(path.stat().st_size // 4 for path in (root / "removed").glob("*.remove"))
    size = sum(path.stat().st_size for path in (root / "tokens").glob("*.ds")) // 2
    read = sum(map(len, ids))
    return {**watch, "read": read, "kept": read - removed, "tokens": size, "pairs": pairs}


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # two tasks already
    sys.stderr.flush()
    served.serve(work)
