"""Which packages teach: `train.distill.teacher` becomes names in storage. Called where a TrainJob is made."""

from __future__ import annotations

from pathlib import Path

from jobs.context import Job
from jobs.locate import locate
from orchestration.errors import UserError


def teachers(job: Job) -> tuple[str, ...]:
    """`model:NAME` is the champion of that name in the registry, `model:NAME@VERSION` another; `storage:packages/...` and a folder are
    packages themselves. Raises UserError naming what is there."""
    distill = job.spec.train.distill
    refs = [] if distill is None else [distill.teacher] if isinstance(distill.teacher, str) else distill.teacher
    return tuple(_package(job, ref) for ref in refs)


def _package(job: Job, ref: str) -> str:
    if ref.startswith("storage:"):
        rel = ref.removeprefix("storage:")
        if job.storage.manifest(rel) is None:
            raise UserError(f"train.distill.teacher={ref}: no package of that name in {job.storage.path('packages')}")
        return rel
    if not ref.startswith("model:"):
        return locate(
            str(Path(ref).expanduser().resolve()), name="", storage=job.storage, registry=job.registry
        ).package_rel
    name, _, version = ref.removeprefix("model:").partition("@")
    try:
        return locate(version or "champion", name=name, storage=job.storage, registry=job.registry).package_rel
    except UserError as error:
        raise UserError(
            f"train.distill.teacher={ref}: {error}; train and register the teacher first, with `eagleray pipeline` on its spec"
        ) from None
