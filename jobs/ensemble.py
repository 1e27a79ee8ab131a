"""`eagleray export SPEC --ensemble MODEL --ensemble MODEL`: packages become one whose answers are the mean of theirs, a registered version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.context import Job, open_job
from jobs.export import told
from jobs.locate import referred
from jobs.spec import JobSpec
from orchestration.registry import ModelVersion


def fused(job: Job, refs: Sequence[str]) -> ModelVersion:
    """`refs`: as `locate.referred` has them. Raises UserError for members that cannot be averaged."""
    from orchestration import ensemble

    place: dict[str, Any] = {"name": job.spec.name, "storage": job.storage, "registry": job.registry}
    with job.console.stage("export"):
        rels = [referred(ref, key="--ensemble", **place) for ref in refs]
        made = ensemble.fuse(job.storage, rels, name=job.spec.name)
        return job.registry.register(job.spec.name, package_rel=made.rel, tags={"members": ", ".join(rels)})


def run(spec: JobSpec, *, refs: Sequence[str], json_lines: bool = False) -> None:
    """`spec` says where storage and registry are, and the name."""
    job = open_job(spec, json_lines=json_lines)
    told(job, fused(job, refs), json_lines=json_lines)
