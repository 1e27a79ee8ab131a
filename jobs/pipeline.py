"""`eagleray pipeline SPEC`: a corpus to a live endpoint, every stage in order. Open this file first: each line of `run` is a stage,
and the verb of the same name runs it alone."""

from __future__ import annotations

from jobs.ask import ask
from jobs.context import computing, open_job
from jobs.evaluate import evaluated
from jobs.export import exported
from jobs.fits import check_fit
from jobs.prepare import preparing
from jobs.promote import ALIAS
from jobs.serve import served, wait_for_signal
from jobs.spec import JobSpec
from jobs.summary import Outcome, show
from jobs.train import fitted
from jobs.tune import swept


def run(spec: JobSpec, *, spec_file: str, json_lines: bool = False, keep_serving: bool = False) -> None:
    """Raises what the stages raise; whatever a finished stage stored stays, and a second run reuses the token store."""
    check_fit(spec)
    job = open_job(spec, json_lines=json_lines)
    job.registry.warm()  # MLflow's import and database, while Ray starts
    with computing(job):
        with preparing(job) as inputs:
            sweep = swept(job, inputs) if spec.tune else None
            final = job.changed(sweep.best.values) if sweep else job
            fit = fitted(final, inputs, run_id=job.new_id(), sweep=sweep)
        model = exported(final, fit, store_rel=inputs.store.rel, weights_rel=inputs.weights.rel, sweep=sweep)
        report = evaluated(
            final,
            store_rel=inputs.store.rel,
            package_rel=model.package_rel,
            report_id=fit.run_id,
            tracked=fit.tracked,
            run_rel=f"runs/{fit.run_id}",
        )
        with served(final, model) as endpoint:
            predictions = ask(final, endpoint, inputs.store.rel)
            job.registry.set_alias(spec.name, ALIAS, model.version)
            job.console.close()
            show(job, Outcome(fit.run_id, sweep, model, report, predictions), spec_file=spec_file)
            if keep_serving:
                print(f"serving at {endpoint.url} until Ctrl-C", flush=True)
                wait_for_signal()
