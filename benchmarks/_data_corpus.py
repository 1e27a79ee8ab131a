"""A corpus cleaned, freed of near duplicates, tokenised and packed on two cores, against `datasets` + `datasketch` + a fast tokenizer,
`datatrove` with two tasks, and plain Ray Data; each as its manual shows it and at its best. Called by `data`.

Timed from JSONL files to written files on a live Ray or in a process with everything loaded, after a run on a sample: start-up is in
no number. All sides clean alike (NFC, control characters, outer white space) and cut rows at 128 tokens. Peers pack as they do:
rows end to end, cut every 128 tokens, so theirs are split over entries; ours are whole, by best fit, and have been
written with row ids, segments and checksums."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claim import Claim, compare
from benchmarks._data_inputs import Corpus
from benchmarks._data_near import Quality, quality_of
from benchmarks._data_peers import peer
from benchmarks._peers import on_cores
from benchmarks.harness import ROOT
from benchmarks.peers.served import stopwatch
from cluster.config import ClusterConfig
from cluster.local import session
from orchestration.data.config import DataConfig
from orchestration.data.prepare import prepare
from orchestration.data.store import TokenStore
from orchestration.storage import Storage, digest
from orchestration.weights import stage

MAX_LENGTH = 128
TOKENIZER = "catalog:minilm"
TARGETS = {"data_datasets": 10.0, "data_datatrove": 3.0, "data_ray": 5.0}
SHOWN = {
    "data_datasets": "datasets + datasketch + fast tokenizer",
    "data_datatrove": "datatrove with two tasks",
    "data_ray": "plain Ray Data, a map a step",
}
F1_ALLOWED = 0.01
KILL_AFTER_UNITS, KILL_WITHIN_S = 2, 120.0


def config(folder: Path, shard_rows: int = 8192) -> DataConfig:
    return DataConfig.model_validate(
        {
            "sources": [{"name": "corpus", "path": str(folder / "*.jsonl"), "format": "jsonl"}],
            "clean": {"near_duplicates": {"threshold": 0.8, "shingle": 5, "permutations": 128}},
            "split": {"validation": 0, "test": 0},
            "tokenize": {"max_length": MAX_LENGTH, "pack": True},
            "shard_rows": shard_rows,
        }
    )


@dataclass
class Ours:
    """Our `prepare` on a storage folder of its own."""

    root: Path
    storage: Storage = field(init=False)
    weights_rel: str = field(init=False)

    def __post_init__(self) -> None:
        self.storage = Storage(str(self.root))
        self.weights_rel = stage(TOKENIZER, self.storage).rel

    def run(self, spec: DataConfig, workers: int | None = 2, blocks: int | None = None) -> dict[str, Any]:
        """Prepared anew inside a live session; gives seconds, what the store holds, the digest of its files."""
        with stopwatch() as watch:
            done = prepare(
                spec, weights_rel=self.weights_rel, seed=17, storage=self.storage, workers=workers, blocks=blocks
            )
        manifest = self.storage.manifest(done.rel)
        assert manifest is not None
        split = TokenStore.open(self.storage, done.rel).split("train")
        kept = sum(map(len, split.segments(range(len(split)))))
        found = {
            **watch,
            "reused": done.reused,
            "digest": digest(manifest.files),
            "entries": len(split),
            "kept": kept,
            "tokens": int(np.sum(split.lengths)),
        }
        self.storage.remove(done.rel)
        return found


@contextlib.contextmanager
def live(cores: Sequence[int]) -> Iterator[None]:
    with on_cores(cores), session(ClusterConfig()):
        yield


# ---------------------------------------------------------------------------------------------------- claims


def claims(whole: Corpus, sample: Corpus, *, cores: Sequence[int], folder: Path, repeats: int) -> list[Claim]:
    """Six ratios of speed, each with the gate of equal quality; our waste of packing; our bytes."""
    ours = Ours(folder / "ours")
    quality = quality_of(sample.texts, "ours")
    mine: list[dict[str, Any]] = []
    theirs: dict[tuple[str, bool], list[dict[str, Any]]] = {
        (name, best): [] for name in TARGETS for best in (False, True)
    }
    peers: dict[tuple[str, bool], Quality] = {}
    for _ in range(repeats):
        with live(cores):
            ours.run(config(sample.folder))
            mine.append(ours.run(config(whole.folder)))
        _say("ours", mine[-1])
        for name in TARGETS:
            with peer(name, cores=cores) as process:
                for best in (False, True):
                    first = _go(process, sample, folder / name, best)
                    peers[name, best] = quality_of(sample.texts, name, first["pairs"])
                    theirs[name, best].append(_go(process, whole, folder / name, best))
                    _say(f"{name}{' at its best' if best else ''}", theirs[name, best][-1])
    best_f1 = max(found.f1 for found in peers.values())
    gate = quality.f1 >= best_f1 - F1_ALLOWED
    says = f"ours {quality.says()}; " + "; ".join(
        f"{SHOWN[name]}{' at its best' if best else ''} {found.says()}" for (name, best), found in peers.items()
    )
    return [
        _claim(name, best, mine, runs, gate=gate, says=f"duplicate pairs on {len(sample.texts):,} rows: {says}")
        for (name, best), runs in theirs.items()
    ]


def _go(process: Any, corpus: Corpus, output: Path, best: bool) -> dict[str, Any]:
    from orchestration.data import catalog

    files, tokenizer = [str(path) for path in corpus.files], str(catalog.local(TOKENIZER))
    found = process.go(files=files, tokenizer=tokenizer, output=str(output), best=best, max_length=MAX_LENGTH)
    shutil.rmtree(output, ignore_errors=True)
    return found


def _claim(
    name: str, best: bool, mine: list[dict[str, Any]], theirs: list[dict[str, Any]], *, gate: bool, says: str
) -> Claim:
    rows = theirs[0]["read"]
    return Claim(
        f"corpus rows a second, clean + near duplicates + tokens + packing, two cores, against {SHOWN[name]}{' at its best' if best else ''}",
        better="higher",
        target=TARGETS[name],
        unit="rows/s",
        gate=gate,
        gate_says=says,
        note=f"{rows:,} rows; of them stay {mine[0]['kept']:,} here and {theirs[0]['kept']:,} there, with {mine[0]['tokens']:,} and"
        f" {theirs[0]['tokens']:,} tokens",
        **compare([rows / run["seconds"] for run in mine], [rows / run["seconds"] for run in theirs]),
    )


def _say(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: {found['seconds']:.2f} s, {found['kept']:,} rows stay", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------- the same bytes


def same_bytes(sample: Corpus, *, cores: Sequence[int], folder: Path) -> Claim:
    """The sha256 of all files of the store: by 1, 2, 4 workers, 3 numbers of blocks, files listed in another order, killed and
    restarted. `ours` of the claim is how many different outputs there were."""
    ours, spec = Ours(folder / "bytes"), config(sample.folder, shard_rows=512)
    shuffled = folder / "shuffled"
    shutil.rmtree(shuffled, ignore_errors=True)
    shuffled.mkdir()
    for path in sorted(sample.files, key=lambda path: path.name[::-1], reverse=True):
        shutil.copyfile(path, shuffled / path.name)
    found: dict[str, str] = {}
    killed_at = _killed(spec, ours, sample, cores)
    with live(cores):
        found[f"killed after {killed_at} written units, restarted"] = ours.run(spec)["digest"]
        for workers in (1, 2, 4):
            found[f"{workers} workers"] = ours.run(spec, workers=workers)["digest"]
        for blocks in (1, 5, 12):
            found[f"{blocks} blocks"] = ours.run(spec, blocks=blocks)["digest"]
        found["files in another order"] = ours.run(config(shuffled, shard_rows=512))["digest"]
    different = len(set(found.values()))
    return Claim(
        "different outputs (sha256 of all files) of one corpus, prepared in different ways",
        ours=float(different),
        peer=float(len(found)),
        better="lower",
        target=1 / len(found),
        unit="outputs",
        gate=different == 1,
        gate_says=f"{', '.join(f'{name}: {value[:12]}' for name, value in found.items())}",
    )


def _killed(spec: DataConfig, ours: Ours, sample: Corpus, cores: Sequence[int]) -> int:
    """Another process prepares into our storage and is killed with all it started when some units are written. Gives how many."""
    with on_cores(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._data_corpus", str(ours.root), str(sample.folder)],
            cwd=ROOT,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )
    until, written = time.monotonic() + KILL_WITHIN_S, 0
    while process.poll() is None and written < KILL_AFTER_UNITS and time.monotonic() < until:
        time.sleep(0.02)
        written = len(list(ours.root.glob("stores/*/unit-*.json")))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return written


def main(root: str, folder: str) -> None:
    with session(ClusterConfig()):
        Ours(Path(root)).run(config(Path(folder), shard_rows=512), workers=1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
