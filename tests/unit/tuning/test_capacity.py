from __future__ import annotations

from typing import Any

import pytest

from orchestration.errors import UserError
from orchestration.tuning.capacity import Node, Room, room

LAPTOP = [Node(cpus=4, cores=2)]  # Ray inside one machine has at least four logical CPUs
CLUSTER = [Node(cpus=8, gpus=2), Node(cpus=8, gpus=2), Node(cpus=3)]


def _room(nodes: list[Node], free: dict[str, float] | None = None, **changed: Any) -> Room:
    values = {"trials": 100, "workers": 1, "cpus_per_worker": 1.0, "gpus_per_worker": 0.0, "wanted": None, **changed}
    unused = {"CPU": sum(node.cpus for node in nodes), "GPU": sum(node.gpus for node in nodes)}
    return room(nodes, unused if free is None else free, **values)


@pytest.mark.parametrize(
    ("nodes", "changed", "concurrent"),
    [
        (LAPTOP, {}, 2),  # cores, not logical CPUs
        (LAPTOP, {"trials": 1}, 1),
        (LAPTOP, {"wanted": 1}, 1),
        (LAPTOP, {"wanted": 9}, 2),
        (LAPTOP, {"workers": 2}, 1),
        (LAPTOP, {"workers": 4}, 1),  # more than the cores, but Ray can schedule them: slow, not refused
        (LAPTOP, {"cpus_per_worker": 0.5}, 4),
        (LAPTOP, {"cpus_per_worker": 3.0}, 1),
        (CLUSTER, {}, 19),
        (CLUSTER, {"workers": 4}, 4),  # 19 workers hold four trials of four; the rest would wait inside a fifth
        (CLUSTER, {"cpus_per_worker": 3.0}, 5),  # 2 + 2 + 1: a worker does not span nodes
        (CLUSTER, {"gpus_per_worker": 1.0}, 4),
        (CLUSTER, {"gpus_per_worker": 1.0, "workers": 2}, 2),
        (CLUSTER, {"gpus_per_worker": 0.5}, 8),
    ],
)
def test_trials_at_once_follow_from_the_cluster(nodes: list[Node], changed: dict[str, Any], concurrent: int) -> None:
    assert _room(nodes, **changed).concurrent == concurrent


def test_what_others_use_now_is_not_counted() -> None:
    assert _room(CLUSTER, {"CPU": 5.0}).concurrent == 5
    assert _room(CLUSTER, {"CPU": 5.0}, workers=2).concurrent == 2
    assert _room(CLUSTER, {"CPU": 0.0}).concurrent == 1  # one waits for its turn


def test_trials_take_gpus_where_there_are_enough_and_the_spec_says_nothing() -> None:
    assert _room(CLUSTER, gpus_per_worker=None, workers=4) == Room(concurrent=1, cpus=1.0, gpus=1.0)
    assert _room(LAPTOP, gpus_per_worker=None) == Room(concurrent=2, cpus=1.0, gpus=0.0)


def test_a_trial_that_can_never_run_is_refused_with_what_it_needs_and_what_there_is() -> None:
    with pytest.raises(UserError, match=r"tune.workers=5 needs 5 x 1 CPUs and 5 x 0 GPUs, the cluster has 4 CPUs"):
        _room(LAPTOP, workers=5)
    with pytest.raises(UserError, match=r"lower tune.workers, cluster.cpus_per_worker or cluster.gpus_per_worker"):
        _room(LAPTOP, gpus_per_worker=1.0)
