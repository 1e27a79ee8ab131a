"""`eagleray tune SPEC`: a sweep over spec paths; the winner goes on by its values."""

from __future__ import annotations

from jobs.context import Job, computing, open_job
from jobs.fits import check_fit
from jobs.prepare import Inputs, preparing
from jobs.spec import JobSpec
from jobs.train import resources, train_job
from orchestration.errors import SpecError
from orchestration.tuning import report
from orchestration.tuning.results import SweepResult, folds
from orchestration.tuning.sweep import sweep


def swept(job: Job, inputs: Inputs) -> SweepResult:
    """The pipeline's stage: all trials on one token store, then the picture."""
    config = job.spec.tune
    if config is None:
        raise SpecError(
            f"spec {job.spec.name!r}: tune: required for a sweep and not given; say at least tune: {{space: {{train.optimizer.lr: {{loguniform: [1e-5, 1e-4]}}}}}}"
        )
    sweep_id = job.new_id("sweep")
    with job.console.stage("tune"), job.console.record(job.storage, f"sweeps/{sweep_id}"):
        shared = train_job(job, inputs, run_rel=f"sweeps/{sweep_id}", world=config.workers)
        result = sweep(
            shared,
            config=config,
            sweep_id=sweep_id,
            cluster={**resources(job), "workers": config.workers, "least_workers": config.workers},
            on_event=job.console,
        )
        report.draw(job.storage, result)
    return result


def run(spec: JobSpec, *, json_lines: bool = False) -> None:
    check_fit(spec)
    job = open_job(spec, json_lines=json_lines)
    with computing(job), preparing(job) as inputs:
        result = swept(job, inputs)
    job.console.close()
    if json_lines:
        job.console(
            {
                "type": "winner",
                "sweep": result.sweep_id,
                "trial": result.best_id,
                "values": result.best.values,
                result.metric: result.best.metric,
            }
        )
        return
    show(result)
    print(f"picture: {job.storage.path(f'{result.rel}/{report.PICTURE}')}")
    print(
        "train the winner: eagleray train SPEC "
        + " ".join(f"--set {path}={value}" for path, value in result.best.values.items())
    )


def show(result: SweepResult) -> None:
    """All trials, best first; as wide as they need to be, whatever the terminal: a cut trial id is no id."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    headers, rows = report.table(result)
    table = Table(*headers, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"\nsweep {result.sweep_id}: {result.concurrent} at a time, {result.seconds:.0f} s\n")
    wide = out.options.update(width=1000)
    Console(width=Measurement.get(out, wide, table).maximum).print(table)
    for one in folds(result.trials, result.metric):
        named = ", ".join(f"{path}={value}" for path, value in one.values.items())
        out.print(
            f"{result.metric} over {len(one.trials)} folds{f' with {named}' if named else ''}: {one.mean:.4f} (deviation {one.deviation:.4f})"
        )
