"""`eagleray prompt SPEC`: a causal model asked to classify the test split by prompts, with and without worked examples, beside the baselines
of a trained classifier."""

from __future__ import annotations

from typing import Any

from jobs.context import computing, open_job
from jobs.evaluate import value
from jobs.prepare import prepared
from jobs.spec import JobSpec
from orchestration.errors import SpecError
from orchestration.evaluation.prompting import evaluate


def run(spec: JobSpec, *, json_lines: bool = False) -> None:
    _check(spec)
    assert spec.prompt is not None
    job = open_job(spec, json_lines=json_lines)
    report_id = job.new_id("prompt")
    with computing(job):
        inputs = prepared(job)
        with job.console.stage("prompt"):
            report = evaluate(
                job.storage,
                config=spec.prompt,
                model=spec.model,
                weights_rel=inputs.weights.rel,
                store_rel=inputs.store.rel,
                seed=spec.seed,
                workers=spec.cluster.most_workers,
                cpus=spec.cluster.cpus_per_worker,
                report_rel=f"reports/{report_id}",
                fold=spec.train.fold,
            )
    job.console.close()
    if json_lines:
        job.console({"type": "report", **report})
        return
    show(report)
    print(f"report: {job.storage.path(f'reports/{report_id}')}")


def _check(spec: JobSpec) -> None:
    wrong = []
    if spec.prompt is None:
        wrong.append("prompt: required for this verb and not given; say at least prompt: {shots: [0, 4]}")
    if spec.model.task != "causal_lm":
        wrong.append(
            f"model.task={spec.model.task}: prompts are for models that go on with a text; set it to causal_lm"
        )
    if spec.model.path is None:
        wrong.append("model.path: a model from scratch has read nothing and cannot be asked; give a pretrained one")
    if not spec.data.labels:
        wrong.append("data.labels: a prompt needs classes to choose from; name them, and a label for each source")
    if wrong:
        raise SpecError("\n".join(f"spec {spec.name!r}: {line}" for line in wrong))


def show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(f"{report['split']} split, {report['rows']:,} rows", "accuracy", "macro F1")
    for shots, both in report["shots"].items():
        for how, found in both.items():
            table.add_row(f"{shots} shots, {how}", value(found, "accuracy"), value(found, "macro_f1"))
    for name, found in report["baselines"].items():
        table.add_row(name.replace("_", " "), value(found, "accuracy"), value(found, "macro_f1"))
    Console(soft_wrap=True).print(table)
