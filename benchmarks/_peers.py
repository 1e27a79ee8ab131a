"""Processes that work when told, and the cores they do it on. Takes a script and its interpreter; gives what the script says of each
piece of work. A process lives as long as the `with` block, so its imports and tables are loaded before the first timed piece; it
waits at its standard input between pieces and costs nothing then."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from orchestration.errors import UserError

PEERS = ROOT / "benchmarks" / "peers"
END_S = 60.0  # for a process to end by itself


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
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            raise UserError(
                f"peer {self.name} broke (exit code {self._process.returncode}) at {work}; its output is above"
            )
        return json.loads(line)


@contextlib.contextmanager
def started(
    name: str, command: Sequence[str | Path], *, cores: Sequence[int], settings: dict[str, str] | None = None
) -> Iterator[Peer]:
    """Run a serving script on these cores, one thread for numeric libraries as our workers have, no network. `settings`:
    environment variables that differ."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(settings or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        yield Peer(name, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END_S)
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
