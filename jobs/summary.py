"""How a pipeline ends: three answers of the live endpoint, then one page with the score beside its baselines, seconds by
stage, where everything lies and the command that serves it again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from jobs.context import Job
from jobs.evaluate import score_table, scores_of
from orchestration.data.store import TokenStore
from orchestration.errors import UserError

QUESTIONS = 3
WAIT_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """`sweep`: SweepResult or None; `model`: the registered ModelVersion; `report`: of `evaluate`."""

    run_id: str
    sweep: Any
    model: Any
    report: dict[str, Any]
    predictions: list[dict[str, Any]]


def ask(job: Job, endpoint: Any, store_rel: str) -> list[dict[str, Any]]:
    """Classify the first test rows over HTTP, as a client would. Gives text, wanted label, answer and version of each."""
    import httpx

    split = TokenStore.open(job.storage, store_rel).split("test")
    rows = list(range(min(QUESTIONS, len(split))))
    texts = split.texts(rows)
    token = os.environ.get(job.spec.serve.token_env or "", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with job.console.stage("predict"):
        try:
            answer = httpx.post(f"{endpoint.url}/v1/classify", json={"texts": texts}, headers=headers, timeout=WAIT_S)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise UserError(f"the endpoint {endpoint.url} did not answer: {error}") from error
    said = answer.json()
    wanted = [job.spec.data.labels[int(split.labels[row])] for row in rows]
    return [
        {"text": text, "wanted": label, "model": said["model"], **one}
        for text, label, one in zip(texts, wanted, said["results"], strict=True)
    ]


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
        out.print(
            f"  {one['label']:>9} {one['scores'][one['label']]:.2f} (people: {one['wanted']})  {one['text'][:80]!r}",
            markup=False,
        )
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
