"""`prepare` in a process of its own, on a Ray with a small object store, measured: `python -m tests.chaos.driver ARGUMENTS.json`. Takes
{sources, storage, weights, workers, object_store_bytes, config}; prints {report, seconds, peak_bytes, roles} as its last line."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

EVERY_S = 0.1


class Peak:
    """The highest sum of private memory of this process and Ray's workers. Pages of the object store, which they share with it, do not
    count; neither do Ray's own servers."""

    def __init__(self) -> None:
        self.total, self.roles = 0, {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(EVERY_S):
            roles = {"driver": _private(me), "workers": 0}
            for child in me.children(recursive=True):
                try:
                    title = (child.cmdline() or [""])[0]
                    if title.startswith("ray::") and not title.endswith("Agent"):
                        roles["workers"] += _private(child)
                except psutil.Error:
                    continue
            if sum(roles.values()) > self.total:
                self.total, self.roles = sum(roles.values()), roles


def _private(process: psutil.Process) -> int:
    found = process.memory_info()
    return int(found.rss - found.shared)


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    import ray

    from orchestration.data.config import DataConfig
    from orchestration.data.prepare import prepare
    from orchestration.storage import Storage

    ray.init(
        address="local",
        num_cpus=arguments["workers"],
        object_store_memory=arguments["object_store_bytes"],
        include_dashboard=False,
        log_to_driver=False,
    )
    started = time.perf_counter()
    with Peak() as peak:
        made = prepare(
            DataConfig.model_validate(arguments["config"]),
            weights_rel=arguments["weights"],
            seed=5,
            storage=Storage(arguments["storage"]),
        )
    seconds = time.perf_counter() - started
    ray.shutdown()
    return {
        "rel": made.rel,
        "report": made.report,
        "seconds": seconds,
        "peak_bytes": peak.total,
        "roles": peak.roles,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
