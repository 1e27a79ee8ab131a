"""`eagleray pipeline SPEC`: a corpus to a live endpoint, every stage in order. Open this file first: each line of `run` is a stage,
and the verb of the same name runs it alone."""

from __future__ import annotations

from jobs.context import Job, computing, open_job
from jobs.evaluate import evaluated
from jobs.export import exported
from jobs.prepare import prepared
from jobs.serve import served, wait_for_signal
from jobs.spec import JobSpec
from jobs.summary import Outcome, ask, show
from jobs.train import fitted
from jobs.tune import swept


def run(spec: JobSpec, *, json_lines: bool = False, keep_serving: bool = False) -> Outcome:
    """Raises what the stages raise; whatever a finished stage stored stays, and a second run reuses the token store."""
    job = open_job(spec, json_lines=json_lines)
    job.registry.warm()  # MLflow's import and database, while Ray starts
    run_id = job.new_id()
    with computing(job):
        inputs = prepared(job)
        sweep = swept(job, inputs) if spec.tune else None
        final = job.changed(sweep.best.values) if sweep else job
        result = fitted(final, inputs, run_id=run_id, sweep=sweep)
        model = exported(final, inputs, result, run_id=run_id, sweep=sweep)
        report = evaluated(final, inputs, model, run_id=run_id)
        with served(final, model) as endpoint:
            predictions = ask(job, endpoint)
            job.registry.set_alias(spec.name, "champion", model.version)
            outcome = Outcome(
                run_id=run_id, sweep=sweep, result=result, model=model, report=report, predictions=predictions
            )
            job.console.close()
            show(job, outcome)
            if keep_serving:
                print(f"serving at {endpoint.url} until Ctrl-C", flush=True)
                wait_for_signal()
    return outcome


__all__ = ["Job", "Outcome", "run"]
