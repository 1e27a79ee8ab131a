"""How a pipeline ends: three answers of the live endpoint, then one page with the score beside its baselines, seconds by
stage, where everything lies and the command that serves it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.ask import line
from jobs.context import Job
from jobs.evaluate import score_table, scores_of


@dataclass(frozen=True)
class Outcome:
    """`sweep`: SweepResult or None; `model`: the registered ModelVersion; `report`: of `evaluate`."""

    run_id: str
    sweep: Any
    model: Any
    report: dict[str, Any]
    predictions: list[dict[str, Any]]


def show(job: Job, outcome: Outcome, *, spec_file: str) -> None:
    """The last page for people; one `summary` event for machines."""
    if job.console.json_lines:
        job.console({"type": "summary", **facts(job, outcome)})
        return
    from rich.console import Console

    out, report = Console(soft_wrap=True), outcome.report
    out.print()
    out.rule(f"{job.spec.name}: version {outcome.model.version}")
    out.print(score_table(report))
    for one in outcome.predictions:
        out.print(f"  {line(job.spec.model.task, one)}", markup=False)
    seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in job.console.seconds.items() if spent >= 0.5)
    out.print(f"\nseconds   {seconds}; {sum(job.console.seconds.values()):.0f} in all", markup=False)
    for name, place in facts(job, outcome)["places"].items():
        out.print(f"{name:<9} {place}", markup=False)
    out.print(f"\nserve it again:  eagleray serve {spec_file}", markup=False)


def facts(job: Job, outcome: Outcome) -> dict[str, Any]:
    """The summary in plain values."""
    report = outcome.report
    places = {
        "package": job.storage.path(outcome.model.package_rel),
        "report": job.storage.path(f"reports/{outcome.run_id}"),
    }
    if outcome.sweep:
        places["sweep"] = job.storage.path(outcome.sweep.rel)
    return {
        "version": outcome.model.version,
        "run": outcome.run_id,
        **scores_of(report),
        "baselines": report["baselines"],
        "predictions": outcome.predictions,
        "seconds": {name: round(spent, 1) for name, spent in job.console.seconds.items()},
        "places": places,
    }
