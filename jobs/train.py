"""`eagleray train SPEC`: fit on the cluster's workers. `fitted` is the pipeline's stage; the sweep builds its trials from the same
`train_job`."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from jobs.context import Job, computing, open_job
from jobs.fits import check_fit
from jobs.prepare import Inputs, preparing
from jobs.spec import JobSpec
from jobs.teachers import teachers
from orchestration import boards
from orchestration.errors import UserError
from orchestration.training.job import LoopResult, TrainJob


@dataclass(frozen=True)
class Fitted:
    """A finished run. `tracked`: its id in the tracking server, where later stages add their numbers."""

    run_id: str
    tracked: str
    result: LoopResult


def train_job(job: Job, inputs: Inputs, *, run_rel: str, world: int) -> TrainJob:
    """The spec's parts that a training worker needs, and nothing else."""
    spec = job.spec
    return TrainJob(
        train=spec.train,
        model=spec.model,
        labels=tuple(spec.outputs),
        seed=spec.seed,
        storage_url=job.storage.url,
        weights_rel=inputs.weights.rel,
        store_rel=inputs.store.rel,
        run_rel=run_rel,
        world=world,
        teachers=teachers(job),
    )


def resources(job: Job) -> dict[str, Any]:
    """What Ray gives each training worker. Without a word in the spec: a GPU each where the cluster has enough of them."""
    part = job.spec.cluster
    gpus = part.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if job.cluster["gpus"] >= part.least_workers else 0.0
    return {
        "workers": part.most_workers,
        "least_workers": part.least_workers,
        "look_s": None if isinstance(part.workers, int) else part.workers.look_s,
        "cpus_per_worker": part.cpus_per_worker,
        "gpus_per_worker": gpus,
        "embedded": job.cluster["embedded"],
    }


def fitted(job: Job, inputs: Inputs, *, run_id: str, sweep: Any = None, profile: int = 0) -> Fitted:
    """Fit, with every event on the console and the numbers in the tracking run. A run of the same id goes on where it stopped."""
    from orchestration.training.trainer import fit

    spec, run_rel = job.spec, f"runs/{run_id}"
    tags = {"sweep": sweep.sweep_id, "trial": sweep.best_id} if sweep else {}
    described = {"spec": spec.dump(), "store": inputs.store.rel, "weights": inputs.weights.rel, **tags}
    job.storage.write_json(f"{run_rel}/run.json", described)

    @functools.cache
    def tracked() -> str:
        """Asked for after the first step's line: MLflow takes 2 s of processor time, which two cores have better use for before."""
        return job.registry.start_run(run_id, params=spec.dump(), tags=tags)

    shown: dict[str, Any] = {
        "tensorboard": spec.tensorboard,
        "wandb": spec.wandb,
        "config": {"spec": spec.dump(), **tags},
    }
    with boards.opened(job.storage, run_rel, say=job.console.say, **shown) as watched:
        if spec.tracking is not None:
            tracked()  # a server that does not answer is told of before anything trains
        try:
            with job.console.stage("train"), job.console.record(job.storage, run_rel):

                def on_event(event: dict[str, Any]) -> None:
                    job.console(event)
                    if event.get("type") in ("step", "validation"):
                        numbers = {key: value for key, value in event.items() if isinstance(value, float)}
                        prefix = "train" if event["type"] == "step" else "validation"
                        named = {f"{prefix}/{key}": value for key, value in numbers.items()}
                        job.registry.log(tracked(), named, step=event["step"])
                        watched.log(named, step=event["step"])

                result = fit(
                    dataclasses.replace(
                        train_job(job, inputs, run_rel=run_rel, world=spec.cluster.most_workers), profile=profile
                    ),
                    cluster=resources(job),
                    on_event=on_event,
                )
            job.storage.write_json(f"{run_rel}/result.json", {**result.dump(), "tracking_run": tracked()})
        except BaseException as error:
            status = "FAILED"
            if isinstance(error, KeyboardInterrupt):
                status = "KILLED"
                job.console.say(
                    f"interrupted; go on from the newest checkpoint with: eagleray train SPEC --resume {run_id}"
                )
            try:
                job.registry.finish(tracked(), status)
            except Exception as other:  # the fit's own error is the one to be told
                job.console.say(f"the tracking run could not be ended: {other}")
            raise
    job.registry.finish(tracked(), "FINISHED")
    return Fitted(run_id=run_id, tracked=tracked(), result=result)


def run(spec: JobSpec, *, json_lines: bool = False, resume: str | None = None, profile: int = 0) -> None:
    check_fit(spec)
    job = open_job(spec, json_lines=json_lines)
    if spec.tracking is not None:
        job.registry.warm()
    if resume and not job.storage.exists(f"runs/{resume}/run.json"):
        raise UserError(
            f"--resume {resume}: no such run in {job.storage.path('runs')}; runs: {', '.join(job.storage.list('runs')[-5:]) or 'none'}"
        )
    run_id = resume or job.new_id()
    with computing(job), preparing(job) as inputs:
        result = fitted(job, inputs, run_id=run_id, profile=profile).result
    job.console.close()
    if json_lines:
        job.console(
            {
                "type": "result",
                "run": run_id,
                **{k: v for k, v in result.dump().items() if k not in ("history", "plan")},
            }
        )
        return
    value = "none" if result.best_value is None else f"{result.best_value:.4f}"
    print(
        f"run {run_id}: {result.ended} after {result.steps} steps; best {result.metric} {value} at step {result.best_step}"
    )
    print(f"next: eagleray export SPEC --run {run_id}")
