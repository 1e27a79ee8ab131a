"""`eagleray check SPEC`: N workers give the numbers of one worker. Trains the spec's model for a few steps on `cluster.workers` workers
and again on one (bare torch), in one Ray session, on the same global batches without dropout; prints each number beside the other and
beside what rounding alone can do. Leaves `reports/check-<id>.json` behind, and what `prepare` shares with any run. Exit code 1 where a
number differs by more. The bounds are derived in `orchestration/training/equality.py`."""

from __future__ import annotations

import math
from typing import Any

from jobs.context import Job, computing, open_job
from jobs.fits import check_fit
from jobs.prepare import Inputs, prepared
from jobs.spec import JobSpec
from jobs.train import resources, train_job
from orchestration.errors import SpecError, UserError

SHOWN_STEPS = 8  # of more steps the table shows the first, the worst and the last, as it does of the rates
BAR = 12  # characters


def run(spec: JobSpec, *, steps: int = 4, workers: int | None = None, json_lines: bool = False) -> None:
    """Raises UserError where the numbers differ by more than rounding can do, SpecError for a stream."""
    if workers is not None:
        spec = spec.override({"cluster.workers": workers})
    check_fit(spec)
    if spec.data.stream is not None:
        raise SpecError(
            f"spec {spec.name!r}: data.stream: a check trains on the first rows of a finished store; give --set data.stream=null"
        )
    job = open_job(spec, json_lines=json_lines)
    check_id = job.new_id().removeprefix(f"{spec.name}-")
    with computing(job):
        found = checked(job, prepared(job), check_id=check_id, steps=steps)
    job.console.close()
    report = f"reports/check-{check_id}.json"
    values = {"name": spec.name, "spec": spec.dump(), **found.dump()}
    job.storage.write_json(report, values)
    if json_lines:
        job.console({"type": "check", "report": report, **found.dump()})
    else:
        show(found)
        print(f"report: {job.storage.path(report)}")
    if not found.ok:
        raise UserError(refusal(found))


def checked(job: Job, inputs: Inputs, *, check_id: str, steps: int) -> Any:
    """Both runs, one after the other, and their comparison. The runs are removed, however this ends."""
    from orchestration.data.store import TokenStore
    from orchestration.training import equality
    from orchestration.training.trainer import fit

    spec, run_rel = job.spec, f"runs/check-{check_id}"
    store = TokenStore.open(job.storage, inputs.store.rel)
    rows = len(store.split("train", None if store.folds is None else spec.train.fold))
    given = resources(job)
    whole = train_job(job, inputs, run_rel=run_rel, world=int(given["workers"]))
    left = []
    try:
        for arm in equality.arms(whole, steps=steps, rows=rows):
            with job.console.stage(workers(arm.world)):
                result = fit(
                    arm, cluster={**given, "workers": arm.world, "least_workers": arm.world}, on_event=job.console
                )
                left.append(equality.read(job.storage, result))
        with job.console.stage("compare"):
            return equality.compare(*left, job=whole, max_length=spec.data.tokenize.max_length)
    finally:
        job.storage.remove(run_rel)


def workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def refusal(found: Any) -> str:
    wrong = [row for row in found.rows if not row.ok]
    worst = found.worst()
    times = f"{worst.used:,.0f} times" if math.isfinite(worst.used) else "infinitely more than"
    return (
        f"{workers(found.many_world)} do not give the numbers of one: {len(wrong)} of {len(found.rows)} differ by more than rounding can do;"
        f" the worst is the {worst.part} of {worst.tensor or worst.at}: {worst.many:.9g} and {worst.one:.9g}, {times} what is allowed"
    )


def show(found: Any) -> None:
    """A line a number: both values, their difference, what is allowed and a bar of how much of it is used."""
    from rich.console import Console
    from rich.table import Table

    out = Console(soft_wrap=True, highlight=False)
    size = found.rounding
    out.print()
    out.rule(f"{_engine(found.many_world, found.many_stage)} against {_engine(1, found.one_stage)}")
    out.print(
        f"{found.steps} steps, {size.rows} rows a batch, {size.precision}, dropout 0; allowed is what rounding can do: {size.depth} matrices,"
        f" {size.width} wide, {size.tokens:,} tokens a batch",
        markup=False,
    )
    table = Table("", "", workers(found.many_world), "1 worker", "difference", "allowed", "used", box=None)
    before = ""
    for row in _shown(found.rows):
        part, before = ("" if row.part == before else row.part), row.part
        at = f"{row.at}: {row.tensor.split(f'{row.at}.', 1)[-1]}" if row.tensor and row.used else row.at
        numbers = (f"{row.many:.9g}", f"{row.one:.9g}", f"{row.difference:.1e}", f"{row.allowed:.1e}")
        table.add_row(part, at, *numbers, _bar(row), style=None if row.ok else "bold red")
    from rich.measure import Measurement

    wide = Measurement.get(out, out.options.update(width=1000), table).maximum
    Console(width=wide, highlight=False).print(table)
    worst = found.worst()
    if found.ok:
        out.print(
            f"\nequal: the largest difference is {worst.used:.1%} of what rounding can do ({worst.part}, {worst.at}); planned and live rates are the"
            f" same in all {found.groups} groups",
            markup=False,
        )
    else:
        out.print("\nNOT EQUAL", style="bold red")


def _engine(world: int, stage: int | None) -> str:
    return f"{workers(world)} ({'bare torch' if stage is None else f'ZeRO {stage}'})"


def _shown(rows: list[Any]) -> list[Any]:
    """All of a part's rows where they are few; else the first, the worst and the last."""
    parts: dict[str, list[Any]] = {}
    for row in rows:
        parts.setdefault(row.part, []).append(row)
    shown = []
    for part, those in parts.items():
        if part == "rate" or (those[0].tensor is None and len(those) > SHOWN_STEPS):
            kept = (those[0], max(those, key=lambda row: row.used), those[-1])
            those = [row for row in those if any(row is one for one in kept)]
        shown += those
    return shown


def _bar(row: Any) -> str:
    if not row.ok:
        return f"x {row.used:,.0f}" if math.isfinite(row.used) else "no bound"
    filled = round(row.used * BAR)
    return f"{'█' * filled}{'░' * (BAR - filled)} {row.used:.1%}"
