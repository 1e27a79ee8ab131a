"""Fits on a cluster of several nodes, and every failure that the product claims to survive: each is done to real processes, and the run must
end with the losses of an unbroken one and each row once an epoch. Prints how long each recovery took. Half an hour; `make chaos`."""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestration.errors import UserError
from orchestration.storage import Storage
from orchestration.training import checkpoint
from orchestration.training.job import LoopResult, TrainJob
from orchestration.training.trainer import fit
from tests import faulty
from tests.chaos.nodes import Nodes, started
from tests.tiny import make_job

Events = list[dict[str, Any]]
CLUSTER = {"workers": 2, "cpus_per_worker": 1.0, "gpus_per_worker": None}
ELASTIC = {**CLUSTER, "least_workers": 1, "look_s": 3.0}
ROWS, BATCH = 90, 12
STEPS_AN_EPOCH = 8
WORKER_S, NODE_S = 30.0, 60.0  # from kill -9 to the first step after it, on two idle cores
KILLS, SEEDS = 20, (1, 2, 3)
pytestmark = [pytest.mark.timeout(3600)]


def crowd() -> float:
    """How much slower than an idle machine this one is now."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with started(2) as found:
        yield found


@pytest.fixture
def two(nodes: Nodes) -> Nodes:
    """A node for each of two workers, and none besides."""
    nodes.only(2)
    return nodes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


def job_of(root: Path, run: str, *, epochs: int = 30, **train: Any) -> TrainJob:
    chosen = {
        "checkpoint": {"every_steps": 20, "keep": 2},
        "validation": {"every_steps": 100},
        "report_every": 1,
        **train,
    }
    return make_job(root, run=run, world=2, epochs=epochs, **chosen)


class Run:
    """A fit with its events, to each of which `act` may do something. What went wrong in it, and when, is asked afterwards."""

    def __init__(self, job: TrainJob, cluster: dict[str, Any], act: Callable[[dict[str, Any]], None]) -> None:
        self.job, self.cluster, self.act = job, cluster, act
        self.events: Events = []
        self.harmed: list[float] = []
        self.began = time.monotonic()

    def __call__(self, script: faulty.Script | None = None) -> LoopResult:
        with faulty.installed(script):
            result = fit(self.job, cluster=self.cluster, on_event=self._seen)
        self.seconds = time.monotonic() - self.began
        return result

    def _seen(self, event: dict[str, Any]) -> None:
        self.events.append({"at": time.monotonic(), **event})
        self.act(event)

    def of(self, kind: str) -> Events:
        return [event for event in self.events if event["type"] == kind]

    def recoveries(self) -> list[float]:
        """Seconds from each harm to the first step after the next start."""
        found = []
        for harm in self.harmed:
            again = next((event["at"] for event in self.of("start") if event["at"] > harm), None)
            step = next((event["at"] for event in self.of("step") if again and event["at"] > again), None)
            if step:
                found.append(step - harm)
        return found


def harmed(
    root: Path, run: str, harm: Callable[[], object], *, cluster: dict[str, Any] = CLUSTER, **train: Any
) -> tuple[Run, LoopResult]:
    """A fit to which `harm` is done once, after its first checkpoint."""

    def act(event: dict[str, Any]) -> None:
        if event["type"] == "checkpoint" and not done.harmed:
            done.harmed.append(time.monotonic())
            harm()

    done = Run(job_of(root, run, **train), cluster, act)
    return done, done()


@pytest.fixture(scope="module")
def unbroken(root: Path, nodes: Nodes) -> LoopResult:
    nodes.only(2)
    return Run(job_of(root, "unbroken"), CLUSTER, lambda event: None)()


def check(root: Path, run: Run, result: LoopResult, unbroken: LoopResult) -> None:
    """The whole run was done, as if nothing had happened, and nothing of it is left."""
    assert (result.ended, result.steps) == ("finished", unbroken.steps)
    assert result.losses == pytest.approx(unbroken.losses, abs=1e-6)
    whole(root, run.job)
    left = set(Storage(str(root)).list(run.job.run_rel))
    assert left <= {"attempts", "checkpoints", "decisions.json"}, left
    checkpoint.verify(Storage(str(root)), str(result.last_checkpoint))


def whole(root: Path, job: TrainJob) -> None:
    """Each row was trained on once in each epoch."""
    found = faulty.epochs(root, job.run_rel.rpartition("/")[2])
    assert sorted(found) == list(range(job.train.epochs))
    for epoch, rows in found.items():
        assert (len(rows), set(rows.values())) == (ROWS, {1}), epoch


def nothing_left(nodes: Nodes) -> None:
    """No actor, no placement group and no CPU is still held, a moment later."""
    import ray

    end = time.monotonic() + 20 * crowd()
    while True:
        held = [entry for entry in ray.util.placement_group_table().values() if entry["state"] != "REMOVED"]
        actors = [
            name
            for word in ("RayTrainWorker", "TrainController", "Relay", "SynchronizationActor")
            for name in nodes.processes(f"ray::{word}")
        ]
        free = ray.available_resources().get("CPU", 0.0) == ray.cluster_resources().get("CPU", 0.0)
        if not held and not actors and free:
            return
        assert time.monotonic() < end, (held, actors, free)
        time.sleep(0.5)


def say(what: str, run: Run) -> None:
    print(
        f"\n{what}: {', '.join(f'{seconds:.1f} s' for seconds in run.recoveries())} (load {crowd():.1f} times two cores)"
    )


# ------------------------------------------------------------------------------------------------ processes that die


def test_a_killed_worker_is_replaced(root: Path, two: Nodes, unbroken: LoopResult) -> None:
    run, result = harmed(root, "worker", lambda: two.processes("ray::RayTrainWorker")[-1].kill())
    say("worker killed", run)
    check(root, run, result, unbroken)
    assert [event["failure"] for event in run.of("restart")] == [True]
    assert run.recoveries()[0] < WORKER_S * crowd()
    nothing_left(two)


def test_a_node_whose_raylet_is_killed_is_replaced_by_a_new_one(root: Path, two: Nodes, unbroken: LoopResult) -> None:
    def lose() -> None:
        two.shoot_raylet()
        two.add()

    run, result = harmed(root, "raylet", lose)
    say("raylet killed", run)
    check(root, run, result, unbroken)
    assert run.recoveries()[0] < NODE_S * crowd()
    nothing_left(two)


def test_a_controller_that_is_killed_is_replaced_by_the_driver(root: Path, two: Nodes, unbroken: LoopResult) -> None:
    run, result = harmed(root, "controller", lambda: two.processes("ray::TrainController")[-1].kill())
    say("controller killed", run)
    check(root, run, result, unbroken)
    (decision,) = run.of("decision")
    assert "controller died" in decision["text"]
    assert "1 of train.max_failures=3" in decision["text"]
    assert run.recoveries()[0] < NODE_S * crowd()
    nothing_left(two)


def test_a_killed_relay_costs_nothing_but_a_moment_of_events(root: Path, two: Nodes, unbroken: LoopResult) -> None:
    run, result = harmed(root, "relay", lambda: two.processes("ray::Relay")[-1].kill())
    check(root, run, result, unbroken)
    assert len(run.of("start")) == 1


def test_restarts_end_where_the_spec_says_so_and_a_resumed_run_goes_on(
    root: Path, two: Nodes, unbroken: LoopResult
) -> None:
    def act(event: dict[str, Any]) -> None:
        if event["type"] == "start":
            two.processes("ray::RayTrainWorker")[0].kill()

    run = Run(job_of(root, "hopeless", max_failures=1), CLUSTER, act)
    with pytest.raises(
        UserError, match=r"after train\.max_failures=1 restarts: worker \d: .*; go on .* with --resume hopeless"
    ):
        run()
    assert len(run.of("start")) == 2
    nothing_left(two)
    again = Run(run.job, CLUSTER, lambda event: None)
    check(root, again, again(), unbroken)


# ------------------------------------------------------------------------------------------------ processes that stand still


def hang_s() -> float:
    return min(90.0, 20.0 * crowd())


def test_a_worker_that_sleeps_is_ended_and_named(root: Path, two: Nodes, unbroken: LoopResult) -> None:
    limit = hang_s()
    run = Run(job_of(root, "sleeping", failures={"hang_timeout_s": limit}), CLUSTER, lambda event: None)
    result = run([{"step": 50, "do": "sleep", "rank": 1}])
    check(root, run, result, unbroken)
    said = [event["text"] for event in run.of("hang")]
    assert any(f"worker 1 made no progress for {limit:g} s, in _perhaps (faulty.py:" in text for text in said), said
    print(f"\nsleeping worker: found after {limit:g} s of silence")


def test_a_stopped_process_is_replaced(root: Path, two: Nodes, unbroken: LoopResult) -> None:
    limit = hang_s()
    victims: list[psutil.Process] = []

    def stop() -> None:
        victims.append(two.processes("ray::RayTrainWorker")[-1])
        victims[0].suspend()

    run, result = harmed(root, "stopped", stop, failures={"hang_timeout_s": limit})
    say(f"process stopped, train.failures.hang_timeout_s={limit:g}", run)
    check(root, run, result, unbroken)
    assert not victims[0].is_running() or victims[0].status() == psutil.STATUS_ZOMBIE
    nothing_left(two)


# ------------------------------------------------------------------------------------------------ nodes that come and go


def test_workers_follow_the_nodes_and_the_losses_stay_the_same(root: Path, two: Nodes) -> None:
    epochs = 200
    marks = {"fewer": 0.0, "more": 0.0}

    def act(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 100:
            marks["fewer"] = time.monotonic()
            two.remove()
        if event["type"] == "start" and event["world"] == 1:
            marks["more"] = time.monotonic()
            two.add()

    run = Run(job_of(root, "elastic", epochs=epochs), ELASTIC, act)
    result = run()
    starts = run.of("start")
    assert [event["world"] for event in starts] == [2, 1, 2]
    print(
        f"\nnode gone: on one worker after {starts[1]['at'] - marks['fewer']:.1f} s; node added: on two after {starts[2]['at'] - marks['more']:.1f} s"
    )
    assert not [event for event in run.of("restart")[-1:] if event.get("failure")]
    assert starts[2]["step"] > starts[1]["step"]
    two.only(2)
    steady = Run(job_of(root, "steady", epochs=epochs), CLUSTER, lambda event: None)()
    assert result.losses == pytest.approx(steady.losses, abs=1e-6)
    whole(root, run.job)
    nothing_left(two)


def test_a_group_that_grows_saves_first(root: Path, two: Nodes) -> None:
    """So no step is done twice, however long ago the last checkpoint was."""
    two.only(1)
    added: list[int] = []

    def act(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 50 and not added:
            added.append(50)
            two.add()

    run = Run(
        job_of(root, "growing", epochs=400, checkpoint={"every_steps": 100_000}, validation={"every_steps": 100_000}),
        ELASTIC,
        act,
    )
    result = run()
    starts = run.of("start")
    assert [event["world"] for event in starts] == [1, 2]
    assert starts[1]["step"] >= 50
    (saved,) = [event for event in run.of("checkpoint") if event.get("reason") == "preemption"]
    assert saved["step"] == starts[1]["step"]
    assert result.steps == 400 * STEPS_AN_EPOCH
    whole(root, run.job)


class Enough(Exception):
    """What was to be seen has been seen."""


def test_a_node_that_will_be_taken_away_is_left_with_a_checkpoint_and_it_is_no_failure(root: Path, two: Nodes) -> None:
    notice_s = 20.0 * crowd()
    times: dict[str, float] = {}

    def act(event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event["type"] == "step" and event["step"] == 50:
            times["notice"] = now
            two.drain(notice_s)
        if event["type"] == "checkpoint" and event.get("reason") == "preemption" and "saved" not in times:
            times["saved"] = now
            threading.Thread(target=replace).start()
        if event["type"] == "step" and len(run.of("start")) == 2:
            raise Enough

    def replace() -> None:
        two.add()
        time.sleep(max(0.0, times["notice"] + notice_s - time.monotonic()))
        leaving = two.nodes.pop(1)
        two.cluster.remove_node(leaving, allow_graceful=False)

    long = {"every_steps": 100_000}  # so that only the notice makes it save
    job = job_of(root, "drained", epochs=50_000, max_failures=0, checkpoint=long, validation=long)
    run = Run(job, CLUSTER, act)
    with pytest.raises(Enough):
        run()
    starts = run.of("start")
    (notice,) = run.of("preemption")
    assert "a node with 1 worker will be taken away in" in notice["text"]
    assert times["saved"] - times["notice"] < notice_s
    assert starts[1]["resumed_from"] == run.of("checkpoint")[0]["rel"]
    assert starts[1]["step"] >= 50
    saved, again = times["saved"] - times["notice"], starts[1]["at"] - times["notice"] - notice_s
    print(
        f"\nnotice of preemption: checkpoint after {saved:.1f} s, training again {again:.1f} s after the node was gone"
    )
    nothing_left(two)


# ------------------------------------------------------------------------------------------------ what the driver decides


def test_each_trouble_has_its_decision_and_a_resumed_run_keeps_them(root: Path, two: Nodes) -> None:
    policy = {"not_finite": "roll_back", "out_of_memory": "smaller_micro_batch"}
    run = Run(job_of(root, "troubled", failures=policy), CLUSTER, lambda event: None)
    result = run([{"step": 3, "do": "full", "rows": 3}, {"step": 50, "do": "nan"}])
    assert result.ended == "finished"
    assert [event["changes"] for event in run.of("decision")] == [{"micro_batch": 3}, {"lr_scale": 0.5}]
    assert [event["step"] for event in run.of("start")] == [0, 0, 40]
    whole(root, run.job)
    kept = Storage(str(root)).read_json(f"{run.job.run_rel}/decisions.json")
    assert [entry["changes"] for entry in kept] == [event["changes"] for event in run.of("decision")]
    nothing_left(two)


def test_a_full_disk_ends_the_run_and_its_checkpoints_stay_whole(root: Path, two: Nodes) -> None:
    run = Run(job_of(root, "full"), CLUSTER, lambda event: None)
    with pytest.raises(UserError, match=r"no room to write: .*; go on .* with --resume full"):
        run([{"step": 150, "do": "disk"}])
    found = checkpoint.newest(Storage(str(root)), run.job.run_rel, pytest.fail)
    assert found is not None
    assert 0 < found.state.step <= 160
    assert not run.of("restart")  # it would find no more room
    nothing_left(two)


def test_a_nan_that_comes_back_ends_the_run_after_so_many_attempts(root: Path, two: Nodes) -> None:
    """Weights that are NaN from the first step on: no rate mends them."""
    job = job_of(root, "poisoned", failures={"not_finite": "roll_back", "attempts": 1})
    run = Run(job, CLUSTER, lambda event: None)
    with pytest.raises(
        UserError,
        match=r"the loss is nan; 1 roll-backs .* to a rate of 0\.001 did not help; go on .* --resume poisoned",
    ):
        run([{"step": 5, "do": "nan", "always": True}])
    assert [event["changes"] for event in run.of("decision")] == [{"lr_scale": 0.5}]
    nothing_left(two)


# ------------------------------------------------------------------------------------------------ at random


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_again_and_again_it_ends_as_if_nothing_had_happened(
    root: Path, two: Nodes, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kill comes a random while after the run has got so much further; one in three is followed by another, while the workers start
    again. A node that is lost is replaced, as a cluster does it."""
    pick, epochs = random.Random(seed), 300
    steps = epochs * STEPS_AN_EPOCH
    kills: list[tuple[float, str]] = []
    due = [steps * (number + 1) // (KILLS + 2) for number in range(KILLS)]
    busy = threading.Lock()

    def kill() -> None:
        with busy:
            pair = 2 if pick.random() < 1 / 3 else 1
            for number in range(pair):
                if len(kills) == KILLS:
                    return
                time.sleep(pick.uniform(0.0, 1.0) if number == 0 else pick.uniform(2.0, 20.0))
                what = "raylet" if pick.random() < 0.2 else "worker"
                if what == "raylet":
                    two.shoot_raylet()
                    two.add()
                elif victims := two.processes("ray::RayTrainWorker"):
                    pick.choice(victims).kill()
                kills.append((time.monotonic(), what))
                run.harmed.append(time.monotonic())

    def act(event: dict[str, Any]) -> None:
        if event["type"] == "step" and len(kills) < KILLS and event["step"] >= due[len(kills)] and not busy.locked():
            threading.Thread(target=kill).start()

    run = Run(job_of(root, f"random-{seed}", epochs=epochs, max_failures=1000), CLUSTER, act)
    result = run()
    steady = Run(job_of(root, f"steady-{seed}", epochs=epochs), CLUSTER, lambda event: None)
    two.only(2)
    quiet = steady()
    assert len(kills) == KILLS
    assert (result.ended, result.steps) == ("finished", steps)
    assert result.losses == pytest.approx(quiet.losses, abs=1e-6)
    whole(root, run.job)
    nothing_left(two)
    trained = steady.of("step")[-1]["at"] - steady.of("step")[0]["at"]
    between = [b - a for (a, _), (b, _) in itertools.pairwise(kills)]
    recoveries = run.recoveries()
    report = {
        "seed": seed,
        "kills": {what: sum(kind == what for _, kind in kills) for what in ("worker", "raylet")},
        "starts": len(run.of("start")),
        "seconds": round(run.seconds, 1),
        "kill_interval_s": round(statistics.mean(between), 1),
        "recovery_s": {"median": round(statistics.median(recoveries), 1), "most": round(max(recoveries), 1)},
        "goodput": round(trained / run.seconds, 3),
        "crowd": round(crowd(), 1),
    }
    with capsys.disabled():
        print(f"\n{json.dumps(report)}")
