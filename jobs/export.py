"""`eagleray export SPEC --run RUN`: the best checkpoint of a finished run becomes a verified package and a registered version."""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs.context import Job, open_job
from jobs.spec import JobSpec, validate
from jobs.train import Fitted
from orchestration.data import knowledge
from orchestration.data.store import TokenStore
from orchestration.decoding import settings
from orchestration.errors import UserError
from orchestration.registry import ModelVersion
from orchestration.training.job import LoopResult

WEIGHED = 16_384  # tokens of validation rows: two numbers are chosen by them


def exported(
    job: Job, fit: Fitted, *, store_rel: str, weights_rel: str, sweep: Any = None, average: int = 1
) -> ModelVersion:
    """Package, verify against the training-time logits, register. `average`: above 1, the mean of the weights in so many of the run's
    newest checkpoints in place of the best one. Raises UserError where the run kept no checkpoint, or fewer than are to be averaged."""
    from orchestration import lineage, package
    from orchestration.training import averaging, checkpoint

    result, spec = fit.result, job.spec
    best = result.best_checkpoint
    if best is None:
        raise UserError(f"run {fit.run_id} kept no checkpoint to export")
    with job.console.stage("export"):
        used = [best] if average == 1 else averaging.newest(job.storage, fit.run_id, average)
        for rel in used:
            checkpoint.verify(job.storage, rel)
        origin = lineage.build(
            name=spec.name,
            spec=spec.dump(),
            storage=job.storage,
            run_id=fit.run_id,
            store_rel=store_rel,
            weights_rel=weights_rel,
            result=result,
            sweep=sweep,
        )
        if average > 1:
            origin["averaged"] = used
        store = TokenStore.open(job.storage, store_rel)
        known = store.meta.get("knowledge")
        if spec.data.knowledge is not None and spec.model.recalls:
            # Of a memory that is made now, whatever the store was told.
            known = knowledge.stage(spec.data.knowledge, job.storage)
            origin["knowledge"] = {"path": spec.data.knowledge.path, "rel": known}
        made = package.export(
            job.storage,
            tensors=averaging.mean(job.storage, used),
            weights_rel=weights_rel,
            labels=spec.outputs,
            preprocessing=_preprocessing(store, spec),
            knowledge_rel=known,
            held=_held(store, spec) if spec.model.recalls else (),
            lineage=origin,
            model=spec.model,
        )
        tags = {"run": fit.run_id, "checkpoint": ", ".join(used)}
        if average == 1:  # a validation's value is that of one checkpoint
            tags |= {"metric": result.metric, "value": str(result.best_value)}
        return job.registry.register(spec.name, package_rel=made.rel, run_id=fit.tracked, tags=tags)


def _held(store: TokenStore, spec: JobSpec) -> list[list[int]]:
    """Rows by which a memory is weighed."""
    rows = store.split("validation", spec.train.fold if store.folds else None)
    count = max(1, int(np.searchsorted(np.cumsum(rows.lengths), WEIGHED)))
    return [ids.tolist() for ids in rows.input_ids(range(min(count, len(rows))))]


def _preprocessing(store: TokenStore, spec: JobSpec) -> dict[str, Any]:
    """What a package keeps of how its rows were made."""
    made_with = store.preprocessing
    kept = {"clean": made_with["clean"], "max_length": made_with["tokenize"]["max_length"]}
    media = [kind for kind in spec.model.reads if kind != "text"]
    pair: dict[str, Any] = {"pair": True} if store.pairs else {}
    pair |= {key: made_with[key] for key in ("knowledge",) if key in made_with}
    if spec.model.recalls and spec.data.knowledge is not None:
        pair["knowledge"] = spec.data.knowledge.settings
    return {**kept, **pair, **settings(media, store.meta["spec"], spec.shapes.columns)}


def run(spec: JobSpec, *, run_id: str, average: int = 1, json_lines: bool = False) -> None:
    """Exports with the spec the run was made with; `spec` says where storage and registry are, and what the memory of a model that writes
    holds."""
    job = open_job(spec, json_lines=json_lines)
    try:
        described = job.storage.read_json(f"runs/{run_id}/run.json")
        result = job.storage.read_json(f"runs/{run_id}/result.json")
    except FileNotFoundError:
        known = ", ".join(job.storage.list("runs")[-5:]) or "none"
        raise UserError(
            f"--run {run_id}: no finished run of that name in {job.storage.path('runs')}; newest: {known}"
        ) from None
    sweep = None
    if described.get("sweep"):
        from orchestration.tuning.results import load

        sweep = load(job.storage, described["sweep"])
    tracked = result.pop("tracking_run")
    trained = Job(
        _remembering(validate(described["spec"], origin=f"run {run_id}"), spec), job.storage, job.console, job.registry
    )
    fit = Fitted(run_id=run_id, tracked=tracked, result=LoopResult(**result))
    version = exported(
        trained, fit, store_rel=described["store"], weights_rel=described["weights"], sweep=sweep, average=average
    )
    told(job, version, json_lines=json_lines)


def _remembering(trained: JobSpec, spec: JobSpec) -> JobSpec:
    """The run's spec, with the facts that `spec` has for a memory which is made at export: what was learnt does not hang on them."""
    if not (trained.model.recalls and spec.model.recalls and spec.data.knowledge and spec.model.memory):
        return trained
    facts, memory = (part.model_dump(mode="json") for part in (spec.data.knowledge, spec.model.memory))
    return trained.override({"data.knowledge": facts, "model.memory": memory})


def told(job: Job, version: ModelVersion, *, json_lines: bool) -> None:
    """Where the package lies and what comes next."""
    if json_lines:
        job.console({"type": "exported", "version": version.version, "package": version.package_rel})
        return
    print(f"{version.name} version {version.version}: {job.storage.path(version.package_rel)}")
    print(f"next: eagleray evaluate SPEC --model {version.version}; eagleray serve SPEC --model {version.version}")
