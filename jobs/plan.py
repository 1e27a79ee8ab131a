"""`eagleray plan SPEC`: what a run will need and do, before anything is held. Starts no Ray and writes nothing; reads the head
of the corpus (or the prepared store's numbers), config.json and the cluster's size."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.capacity import Capacity, capacity
from jobs.context import Job, fetch_inputs, open_job
from jobs.spec import JobSpec
from jobs.vocabulary import named
from orchestration.data.sample import row_lengths
from orchestration.preflight import Preflight, preflight
from orchestration.storage import Storage
from orchestration.training.trunk import cost
from orchestration.weights import model_folder


def run(spec: JobSpec, *, json_lines: bool = False) -> None:
    """Prints the plan; raises UserError with every reason where the cluster cannot hold the run."""
    job = open_job(spec, json_lines=json_lines)
    fetch_inputs(job)
    with model_folder(named(job, found_only=True), job.storage, shapes=spec.shapes) as folder:
        _planned(job, folder, json_lines=json_lines)


def _planned(job: Job, folder: Path, *, json_lines: bool) -> None:
    from orchestration.errors import UserError

    spec = job.spec
    lengths = row_lengths(spec.data, tokenizer=folder, storage=job.storage)
    room = capacity(spec.cluster)
    part = spec.cluster
    gpus = part.gpus_per_worker if part.gpus_per_worker is not None else float(room.gpus >= part.least_workers)
    workers = would_start(spec, room, gpus)
    found = preflight(
        model=spec.model,
        train=spec.train,
        labels=spec.outputs,
        folder=folder,
        lengths=lengths,
        world=workers,
        cpus=room.cpus,
        cpus_needed=workers * part.cpus_per_worker,
        gpus=room.gpus,
        gpus_needed=workers * gpus,
        memory_bytes=room.memory_bytes,
    )
    stored = trunk(spec, folder, lengths, job.storage, gpus=gpus)
    if spec.train.trunk.use == "on" and not stored.use and spec.tune is None:
        found.problems.append(f"train.trunk.use is on, but {stored.reason}")
    if json_lines:
        print(
            json.dumps(
                {
                    "spec": spec.dump(),
                    "lengths": asdict(lengths),
                    "cluster": asdict(room),
                    "sweep": sweep(spec),
                    "trunk": asdict(stored),
                    **asdict(found),
                }
            )
        )
    else:
        show(spec, found, lengths, room, workers, stored)
    if found.problems:
        raise UserError("\n".join(f"this run cannot start: {problem}" for problem in found.problems))


def sweep(spec: JobSpec) -> dict[str, Any] | None:
    """The sweep in plain values: how many trials, over what, with what fixed."""
    if spec.tune is None:
        return None
    space = {path: next(iter(domain.model_dump(exclude_none=True).items())) for path, domain in spec.tune.space.items()}
    return {
        "trials": spec.tune.trials,
        "search": spec.tune.search,
        "metric": spec.tune.metric or spec.train.validation.metric or spec.model.metric,
        "space": space,
        "fixed": spec.tune.fixed,
    }


def would_start(spec: JobSpec, room: Capacity, gpus: float) -> int:
    """Workers there is room for now, of a range; the number itself where the spec has one."""
    part = spec.cluster
    fit = int(room.cpus / part.cpus_per_worker)
    if gpus:
        fit = min(fit, int(room.gpus / gpus))
    return max(part.least_workers, min(part.most_workers, fit))


def trunk(spec: JobSpec, folder: Path, lengths: Any, storage: Storage, *, gpus: float) -> cost.Choice:
    """Whether a run that finds nothing stored would store outputs of the frozen part."""
    from models.tasks import kind
    from models.text import read_config

    data, task, shared = spec.data, kind(spec.model.task), spec.model.share_layers
    return cost.foresee(
        spec.train,
        {**read_config(folder), **({"share_layers": shared} if shared else {})},
        rows=min(spec.train.rows or lengths.train_rows, lengths.train_rows),
        mean_tokens=lengths.mean_tokens,
        free_bytes=cost.free_bytes(storage),
        streamed=data.stream is not None,
        changes=data.augment is not None and data.augment.when == "epoch",
        mixed=data.mix is not None,
        draws=task.draws > 0,
        reads_tokens=task.reads_tokens,
        adapter=spec.model.adapter.kind if spec.model.adapter else None,
        device="cuda" if gpus else "cpu",
    )


def show(spec: JobSpec, found: Preflight, lengths: Any, room: Capacity, workers: int, stored: cost.Choice) -> None:
    import yaml
    from rich.console import Console
    from rich.table import Table

    out = Console(soft_wrap=True)
    out.rule("resolved spec")
    out.print(
        yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True), sort_keys=False).rstrip(),
        highlight=False,
        markup=False,
    )
    groups = Table("depth group", "parameters", "peak lr", "weight decay", "", title="layers, input to output")
    for row in found.groups:
        groups.add_row(
            row["group"],
            f"{row['parameters']:,}",
            f"{row['lr']:.3g}" if row["trainable"] else "-",
            f"{row['weight_decay']:g}",
            "trainable" if row["trainable"] else "frozen",
        )
    out.print(groups)
    out.print(
        f"trained   {found.trainable:,} of {found.parameters:,} parameters ({found.trainable / found.parameters:.2%})"
    )
    memory = Table(
        "ZeRO stage",
        "weights, gradients, optimizer",
        "activations (largest rows)",
        "total a worker",
        "",
        title=f"memory a worker, {_workers(spec, workers)}",
    )
    for row in found.memory:
        word = ("fits" if row["fits"] else "too much") + (", chosen" if row["chosen"] else "")
        memory.add_row(
            str(row["stage"]), _mib(row["state_bytes"]), _mib(row["activation_bytes"]), _mib(row["total_bytes"]), word
        )
    out.print(memory)
    source = "the prepared store" if lengths.sampled is None else f"a sample of {lengths.sampled:,} rows"
    out.print(
        f"rows      {lengths.train_rows:,} for training; {lengths.mean_tokens:.1f} tokens a row, 99% at most {lengths.p99_tokens}, {lengths.truncated_share:.1%} truncated (from {source})"
    )
    out.print(
        f"steps     {found.steps:,} ({found.steps_per_epoch:,} an epoch), {found.tokens:,} tokens; peak rates {found.peak_rates[0]:.3g} to {found.peak_rates[1]:.3g}"
    )
    if spec.train.layers.freeze or spec.model.adapter:
        out.print(f"frozen    outputs are {'stored' if stored.use else 'not stored'}: {stored.reason}", markup=False)
    what = sweep(spec)
    out.print(
        f"sweep     {what['trials']} trials by {what['search']} over {', '.join(what['space'])}; fixed: {what['fixed'] or 'nothing'}"
        if what
        else "sweep     none",
        markup=False,
    )
    out.print(
        f"cluster   {room.nodes} node(s), {room.cpus:g} CPUs, {room.gpus:g} GPUs, {room.memory_bytes / 2**30:.1f} GiB: {'can hold it' if not found.problems else 'cannot hold it'}"
    )


def _workers(spec: JobSpec, workers: int) -> str:
    least, most = spec.cluster.least_workers, spec.cluster.most_workers
    return f"{workers} workers" if least == most else f"{workers} workers, of {least} to {most}"


def _mib(count: int | None) -> str:
    return "not known" if count is None else f"{count / 2**20:,.0f} MiB"
