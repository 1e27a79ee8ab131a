"""Which packages teach: `train.distill.teacher` becomes names in storage. Called where a TrainJob is made."""

from __future__ import annotations

from jobs.context import Job
from jobs.locate import referred
from orchestration.errors import UserError


def teachers(job: Job) -> tuple[str, ...]:
    """`locate.referred` says what can be named. Raises UserError naming what is there."""
    distill = job.spec.train.distill
    refs = [] if distill is None else [distill.teacher] if isinstance(distill.teacher, str) else distill.teacher
    return tuple(_package(job, ref) for ref in refs)


def _package(job: Job, ref: str) -> str:
    try:
        return referred(ref, key="train.distill.teacher", name="", storage=job.storage, registry=job.registry)
    except UserError as error:
        more = "; train and register the teacher first, with `eagleray pipeline` on its spec"
        raise UserError(f"{error}{more if ref.startswith('model:') else ''}") from None
