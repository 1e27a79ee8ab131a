"""A Ray cluster of several nodes in this machine, whose nodes come, go and are shot. The head has no CPUs: the driver, Ray Train's
controller and the relay are there, and training workers on the others, one a node."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import psutil


class Nodes:
    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.nodes: list[Any] = []
        self._starter = ThreadPoolExecutor(1)

    def add(self, count: int = 1) -> None:
        self.nodes += [self._starter.submit(self._add).result() for _ in range(count)]

    def _add(self) -> Any:
        """In a thread that lives as long as the cluster: a node's processes end with the thread that started them."""
        with mock.patch("ray._private.utils.set_sigterm_handler"):  # Python allows it in the main thread alone
            return self.cluster.add_node(num_cpus=1)

    def only(self, count: int) -> None:
        """So many nodes, whatever a test before has left."""
        while len(self.nodes) > count:
            self.remove()
        self.add(count - len(self.nodes))

    def remove(self) -> None:
        """The newest node ends, as when its machine is shut down."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def shoot_raylet(self) -> None:
        """kill -9 of the newest node's raylet. Its workers end when they miss it."""
        node = self.nodes.pop()
        (raylet,) = node.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)
        raylet.process.wait()

    def drain(self, seconds: float) -> str:
        """Notice that the newest node will be taken away in so many seconds, as a cloud gives it."""
        import ray
        from ray.core.generated import autoscaler_pb2

        node_id = self.nodes[-1].node_id
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        client = ray._raylet.GcsClient(address=self.cluster.address)
        accepted, why = client.drain_node(node_id, reason, "a test", int((time.time() + seconds) * 1000))
        assert accepted, why
        return node_id

    def processes(self, words: str) -> list[psutil.Process]:
        """Of this cluster, by a word of their command line, in order of their start."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if words in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())


@contextlib.contextmanager
def started(count: int) -> Iterator[Nodes]:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}},
        )
        nodes = Nodes(cluster)
        nodes.add(count)
        yield nodes
    finally:
        ray.shutdown()
        cluster.shutdown()
