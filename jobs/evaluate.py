"""`eagleray evaluate SPEC --model REF`: a model's score on the spec's test split, beside its baselines."""

from __future__ import annotations

from typing import Any

from jobs.context import Job, computing, open_job
from jobs.locate import locate
from jobs.prepare import prepared
from jobs.spec import JobSpec
from orchestration.evaluation import curves
from orchestration.evaluation.evaluate import evaluate


def evaluated(
    job: Job,
    *,
    store_rel: str,
    package_rel: str,
    report_id: str,
    tracked: str | None = None,
    run_rel: str | None = None,
) -> dict[str, Any]:
    """The pipeline's stage: metrics and baselines, written under `reports/<report_id>` and into the tracking run.

    `run_rel`: the run that made the model, for the picture of its loss.
    """
    with job.console.stage("evaluate"):
        report = evaluate(
            job.storage,
            package_rel=package_rel,
            store_rel=store_rel,
            rows=job.spec.train.rows,
            fold=job.spec.train.fold,
            workers=job.spec.cluster.most_workers,
            cpus=job.spec.cluster.cpus_per_worker,
            report_rel=f"reports/{report_id}",
        )
        if run_rel:
            curves.draw(job.storage, run_rel=run_rel, report_rel=f"reports/{report_id}")
    if tracked:
        job.registry.log(tracked, {f"test/{key}": value for key, value in scores_of(report).items()})
    return report


def scores_of(report: dict[str, Any]) -> dict[str, float]:
    """The report's metrics, without counts and times."""
    return {key: value for key, value in report.items() if isinstance(value, float) and key != "seconds"}


def score_table(report: dict[str, Any]) -> Any:
    """The metrics that the model and some baseline have, a line each."""
    from rich.table import Table

    metrics = [key for key in scores_of(report) if any(key in found for found in report["baselines"].values())]
    table = Table(
        f"{report['split']} split, {report['rows']:,} rows", *(name.replace("_f1", " F1") for name in metrics)
    )
    for name, found in (("this model", report), *report["baselines"].items()):
        table.add_row(name.replace("_", " "), *(value(found, metric) for metric in metrics))
    return table


def value(found: dict[str, Any], metric: str) -> str:
    """With its 95% interval where the report has one."""
    if metric not in found:
        return "-"
    low, high = found.get("intervals", {}).get(metric, (None, None))
    return f"{found[metric]:.4f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")


def run(spec: JobSpec, *, model: str = "champion", json_lines: bool = False) -> None:
    job = open_job(spec, json_lines=json_lines)
    found = locate(model, name=spec.name, storage=job.storage, registry=job.registry)
    report_id = f"{spec.name}-{found.version}"
    with computing(job):
        store = prepared(job).store
        report = evaluated(job, store_rel=store.rel, package_rel=found.package_rel, report_id=report_id)
    job.console.close()
    if json_lines:
        job.console({"type": "report", **report})
        return
    show(report)
    print(f"report: {job.storage.path(f'reports/{report_id}')}")


def show(report: dict[str, Any]) -> None:
    """Scores beside the baselines, then each class."""
    from rich.console import Console
    from rich.table import Table

    out = Console(soft_wrap=True)
    out.print(score_table(report))
    if "classes" not in report:
        return
    classes = Table("class", "precision", "recall", "F1", "rows")
    for name, found in report["classes"].items():
        classes.add_row(
            name, f"{found['precision']:.4f}", f"{found['recall']:.4f}", f"{found['f1']:.4f}", f"{found['rows']:,.0f}"
        )
    out.print(classes)
    slices = Table("rows of", "accuracy", "macro F1", "rows")
    for found in report["slices"]:
        slices.add_row(found["slice"], value(found, "accuracy"), value(found, "macro_f1"), f"{found['rows']:,}")
    if report["slices"]:
        out.print(slices)
    print(f"calibration error {report['calibration']['ece']:.3f}; 95% intervals in brackets")
