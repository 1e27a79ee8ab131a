"""`eagleray embed SPEC [--model REF]`: the corpus through a frozen encoder, a vector a row, kept in storage; and what a logistic regression
makes of them, where rows have classes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from jobs.context import Job, computing, open_job
from jobs.evaluate import show
from jobs.locate import referred
from jobs.prepare import prepared
from jobs.spec import JobSpec
from orchestration.errors import SpecError
from orchestration.features.config import FeaturesConfig
from orchestration.features.export import Features


def embedded(job: Job, *, model: str | None = None) -> tuple[Features, dict[str, Any] | None]:
    """`model`: a version, an alias or a package, as `locate.referred` has them; None: the spec's pretrained model as it is. The report is
    None where rows have no classes. Needs a live Ray."""
    from orchestration.evaluation import light
    from orchestration.features import export

    spec, fold = job.spec, job.spec.train.fold
    place: dict[str, Any] = {"name": spec.name, "storage": job.storage, "registry": job.registry}
    package_rel = None if model is None else referred(model, key="--model", **place)
    inputs = prepared(job)
    with job.console.stage("embed"):
        found = export.export(
            job.storage,
            store_rel=inputs.store.rel,
            weights_rel=inputs.weights.rel,
            model=spec.model.model_copy(update={"task": "classification", "adapter": None, "pooling": None}),
            package_rel=package_rel,
            config=spec.features or FeaturesConfig(),
            rows=spec.train.rows,
            fold=fold,
            workers=spec.cluster.most_workers,
            progress=lambda done, total: job.console.progress(done, total, unit="files"),
        )
    if not spec.data.labels:
        return found, None
    with job.console.stage("evaluate"):
        report_rel = f"reports/{found.rel.rpartition('/')[2]}"
        rows = spec.train.rows
        return found, light.score(job.storage, features_rel=found.rel, rows=rows, fold=fold, report_rel=report_rel)


def run(spec: JobSpec, *, model: str | None = None, json_lines: bool = False) -> None:
    check(spec, model)
    job = open_job(spec, json_lines=json_lines)
    with computing(job):
        found, report = embedded(job, model=model)
    job.console.close()
    if json_lines:
        job.console({"type": "features", **asdict(found), "report": report})
        return
    if report is not None:
        show(report)
    counts = ", ".join(f"{split} {count:,}" for split, count in found.rows.items())
    print(f"features{' (they were there)' if found.reused else ''}: {job.storage.path(found.rel)}")
    print(f"vectors of {found.width} numbers: {counts}")


def check(spec: JobSpec, model: str | None) -> None:
    """Raises SpecError for models whose hidden states are not a text's."""
    wrong = []
    if spec.model.reads != ("text",):
        wrong.append(f"model: features are kept of models of text, and this one reads {', '.join(spec.model.reads)}")
    elif model is None and spec.model.path is None:
        wrong.append(
            "model.path: a model from scratch has read nothing; give a pretrained one, or a package with --model"
        )
    if wrong:
        raise SpecError("\n".join(f"spec {spec.name!r}: {line}" for line in wrong))
