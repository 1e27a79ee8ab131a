"""The peers of `data`: packages in an environment of their own (benchmarks/peers/data-requirements.txt), what nltk reads, and
processes that work when told. Takes names of scripts in benchmarks/peers; gives what a script says of each piece of work.

A peer's process lives as long as the `with` block, so its imports and tables are loaded before the first timed piece. It waits
at its standard input between pieces and costs nothing then."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from orchestration.data import catalog
from orchestration.errors import UserError
from orchestration.storage import cache_root

PEERS = ROOT / "benchmarks" / "peers"
REQUIREMENTS = PEERS / "data-requirements.txt"


def environment() -> Path:
    """The peers' interpreter. Made at the first call, and again when the requirements change; minutes then, nothing after."""
    folder = cache_root() / "benchmarks" / "peers-data"
    mark, wanted = folder / "requirements.sha256", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if mark.is_file() and mark.read_text() == wanted:
        return python
    print(f"making the peers' environment in {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)])
    _call([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(REQUIREMENTS)])
    mark.write_text(wanted)
    return python


def nltk_data(python: Path) -> Path:
    """A root for nltk.data.path: WordNet and stop words of the catalogue, and nltk's own tagger, trained here by nltk on the
    Brown corpus (a minute, once): nltk's is not in any package. nltk reads no file that another account owns: all are copies."""
    root = cache_root() / "benchmarks" / "nltk-data"
    tagger = root / "taggers" / "averaged_perceptron_tagger_eng"
    if (tagger / "done").is_file():
        return root
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(catalog.local("catalog:nltk-data"), root)
    shutil.copytree(catalog.local("catalog:wordnet"), root / "corpora" / "wordnet")
    brown = catalog.local("catalog:brown")
    _call([str(python), str(PEERS / "data_train_tagger.py"), str(brown), str(tagger)], {"NLTK_DATA": str(root)})
    (tagger / "done").touch()
    return root


class Peer:
    """A running script. `go` gives the answer to one piece of work, `seconds` and `cpu_seconds` among it."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name, self._process = name, process

    def go(self, **work: Any) -> dict[str, Any]:
        """Raises UserError where the script broke; its own words are on standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(work) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"peer {self.name} broke at {work}; its output is above")
        return json.loads(line)


@contextlib.contextmanager
def peer(name: str, *, cores: Sequence[int], settings: dict[str, str] | None = None) -> Iterator[Peer]:
    """Start benchmarks/peers/NAME.py on these cores. One thread for numeric libraries, as our workers have; no network."""
    python = environment()
    variables = {
        **os.environ,
        "NLTK_DATA": str(nltk_data(python)),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "",
        **(settings or {}),
    }
    process = subprocess.Popen(
        [str(python), str(PEERS / f"{name}.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=variables,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        yield Peer(name, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """This process, and what it starts, on these cores while the block runs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def available_cores(count: int) -> list[int]:
    """The last ones: the first core serves most interrupts. Raises UserError where the machine has fewer."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < count:
        raise UserError(f"this benchmark is for {count} cores; the machine offers {len(cores)}")
    return cores[-count:]


@contextlib.contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Fills `seconds` and `cpu_seconds` (this process) at the block's end."""
    found: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found.update(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)


def _call(command: list[str], more: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, stdout=sys.stderr.fileno(), env={**os.environ, "PYTHONPATH": "", **(more or {})})
    if done.returncode:
        raise UserError(f"{' '.join(command[:6])} ... ended with exit code {done.returncode}; its output is above")
