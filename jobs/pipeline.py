"""`eagleray pipeline SPEC`: a corpus to a live endpoint, every stage in order. Open this file first: each line below is a stage,
and the verb of the same name runs it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.context import computing, open_job
from jobs.evaluate import evaluated
from jobs.export import exported
from jobs.prepare import prepared
from jobs.serve import EXAMPLES, predict, served
from jobs.spec import JobSpec
from jobs.train import fitted
from jobs.tune import swept


@dataclass(frozen=True)
class Outcome:
    """What the summary shows."""

    run_id: str
    version: int
    package: str
    report: str
    sweep: Any
    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


def run(spec: JobSpec, *, json_lines: bool = False, keep_serving: bool = False) -> None:
    job = open_job(spec, json_lines=json_lines)
    job.registry.warm()
    with computing(job):
        inputs = prepared(job)
        sweep = swept(job, inputs) if spec.tune else None
        winner = sweep.best if sweep else None
        final = job.changed(winner.values) if winner else job
        run_id = job.new_id()
        result = fitted(
            final, inputs, run_id=run_id, tags={"sweep": sweep.sweep_id, "trial": winner.id} if sweep and winner else {}
        )
        model = exported(final, inputs, result, run_id=run_id, sweep=sweep)
        evaluated(final, inputs, model, run_id=run_id)
        with served(final, model) as endpoint:
            predict(endpoint, EXAMPLES)
            job.registry.set_alias(spec.name, "champion", model.version)
