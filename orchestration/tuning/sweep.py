"""A sweep: trials over spec paths with Ray Tune. Takes the TrainJob that all trials share, the spec's `tune` part and a live
Ray; gives the trials, best first by id. Runs in the driver and writes `sweeps/<id>/sweep.json`, and `trials.json` after each
trial. One-worker trials train inside Tune's own actors, which are reused (11 s against 170 s for six tiny trials, nested);
trials of several workers drive Ray Train. The winner goes on by its values; its weights are not kept."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from orchestration.storage import Storage
from orchestration.training.job import TrainJob
from orchestration.tuning.capacity import Room, live_nodes, room
from orchestration.tuning.config import TuneConfig
from orchestration.tuning.results import SweepResult, best
from orchestration.tuning.space import METRIC, mode, scheduler, searcher, tune_space

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files beside ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command, not only the sweep
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def sweep(
    job: TrainJob,
    *,
    config: TuneConfig,
    sweep_id: str,
    cluster: dict[str, Any],
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
) -> SweepResult:
    """Run all trials; blocks. `cluster`: the spec's `cluster` part as plain values (cpus_per_worker, gpus_per_worker ...).

    Raises UserError where no trial fits the cluster or every trial failed, then with the first one's error.
    """
    import ray

    from orchestration.tuning.watch import Watch

    started = time.monotonic()
    metric = config.metric or job.metric
    config = config.model_copy(update={"metric": metric})
    storage, rel = Storage(job.storage_url), f"sweeps/{sweep_id}"
    space = room(
        live_nodes(),
        ray.available_resources(),
        trials=config.trials,
        workers=config.workers,
        cpus_per_worker=cluster["cpus_per_worker"],
        gpus_per_worker=cluster["gpus_per_worker"],
        wanted=config.concurrent,
    )
    watch = Watch(storage, rel, metric=metric, on_event=on_event)
    storage.write_json(f"{rel}/sweep.json", _described(job, config, sweep_id, space))
    _run(job, config=config, metric=metric, rel=rel, cluster=cluster, space=space, watch=watch)
    result = SweepResult(
        sweep_id=sweep_id,
        rel=rel,
        metric=metric,
        trials=watch.trials,
        best_id=best(watch.trials, metric).id,
        concurrent=space.concurrent,
        seconds=time.monotonic() - started,
    )
    storage.write_json(
        f"{rel}/sweep.json",
        {**_described(job, config, sweep_id, space), "best": result.best_id, "seconds": round(result.seconds, 3)},
    )
    return result


def _described(job: TrainJob, config: TuneConfig, sweep_id: str, space: Room) -> dict[str, Any]:
    return {
        "sweep_id": sweep_id,
        "tune": config.model_dump(mode="json"),
        "job": job.dump(),
        "concurrent": space.concurrent,
        "cpus_per_worker": space.cpus,
        "gpus_per_worker": space.gpus,
    }


# ------------------------------------------------------------------------------------------------ Ray Tune


def _run(
    job: TrainJob, *, config: TuneConfig, metric: str, rel: str, cluster: dict[str, Any], space: Room, watch: Any
) -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray import tune

    from orchestration.tuning.trial import run_trial

    storage = Storage(job.storage_url)
    trainable = tune.with_parameters(
        run_trial,
        job=job,
        fixed=config.fixed,
        metric=metric,
        workers=config.workers,
        sweep_rel=rel,
        cluster=cluster,
    )
    with _experiment_place(storage, rel) as place:
        tuner = tune.Tuner(
            tune.with_resources(trainable, _resources(config.workers, space)),
            param_space=tune_space(config.space, config.search),
            tune_config=tune.TuneConfig(
                num_samples=1 if config.search == "grid" else config.trials,
                search_alg=searcher(config, metric=metric, seed=job.seed, concurrent=space.concurrent),
                scheduler=scheduler(config.asha, metric=metric),
                reuse_actors=config.workers == 1,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                **({} if config.asha else {"metric": METRIC, "mode": mode(metric)}),
            ),
            run_config=tune.RunConfig(name="ray", callbacks=[watch], verbose=0, **place),
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # our events tell what failed, without tracebacks
        tuner.fit()


def _resources(workers: int, space: Room) -> dict[str, float]:
    """What Tune reserves for the trial's own process. One that drives workers computes nothing, and Ray Train reserves for
    them: it asks for a byte, since Tune refuses nothing at all, and any share of a CPU could be the one a worker needs."""
    if workers > 1:
        return {"memory": 1.0}
    return {"CPU": space.cpus, **({"GPU": space.gpus} if space.gpus else {})}


@contextlib.contextmanager
def _experiment_place(storage: Storage, rel: str) -> Iterator[dict[str, Any]]:
    """Where Tune keeps its own state: every node must see it, so it is in storage. It is removed with the sweep's end."""
    if storage.is_local:
        place = {"storage_path": storage.path(rel)}
    else:
        import pyarrow.fs

        handler = pyarrow.fs.FSSpecHandler(storage._fs())
        place = {"storage_path": storage._key(rel), "storage_filesystem": pyarrow.fs.PyFileSystem(handler)}
    try:
        yield place
    finally:
        storage.remove(f"{rel}/ray")


def _trial_name(trial: Any) -> str:
    """Tune's own id: the creator is copied for each call, so it cannot count."""
    return str(trial.trial_id)
