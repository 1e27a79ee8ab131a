"""`eagleray prepare SPEC`: corpus to token store. `prepared` is what every later verb calls first: where the store is there it
costs a hash of the inputs and starts nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.context import Job, computing, open_job
from jobs.spec import JobSpec
from jobs.vocabulary import named
from orchestration.data import knowledge, picture
from orchestration.data.prepare import Prepared, find, make_plan, prepare
from orchestration.data.stream import FAILED
from orchestration.weights import Weights, stage_model

IMPORTS = ("pandas", "pyarrow.dataset", "tokenizers", "ray.data")  # of workers that prepare: 1 s of processor time


@dataclass(frozen=True)
class Inputs:
    """What training needs from storage: the pretrained weights and the token store."""

    weights: Weights
    store: Prepared


def staged(job: Job) -> Weights:
    """The model folder in storage: pretrained weights, or what a model from scratch begins with."""
    spec = job.spec
    remembers = spec.model.attends and spec.data.knowledge is not None
    facts = knowledge.known(spec.data.knowledge, job.storage).texts if remembers and spec.data.knowledge else None
    return stage_model(named(job), job.storage, shapes=spec.shapes, facts=facts)


def prepared(job: Job) -> Inputs:
    """Stage the model folder and make (or find) the token store. Needs a live Ray only where rows must be read."""
    weights = staged(job)
    with job.console.stage("prepare"):
        store = prepare(
            job.spec.data,
            weights_rel=weights.rel,
            seed=job.spec.seed,
            storage=job.storage,
            progress=lambda phase, done, total: job.console.progress(done, total, unit=f"shards ({phase})"),
        )
    return Inputs(weights=weights, store=store)


@contextlib.contextmanager
def preparing(job: Job) -> Iterator[Inputs]:
    """What a fit needs, maybe before all rows are there: with `data.stream` the store is being written while the block runs, and is
    finished behind it. Needs a live Ray."""
    spec = job.spec
    if spec.data.stream is None:
        yield prepared(job)
        return
    weights = staged(job)
    known: dict[str, Any] = {"weights_rel": weights.rel, "seed": spec.seed, "storage": job.storage}
    plan = make_plan(spec.data, **known)
    rel = plan.work.store_rel
    job.storage.remove(f"{rel}/{FAILED}")  # of an earlier try: readers would take it for this one's
    failed: list[BaseException] = []

    def work() -> None:
        try:
            prepare(spec.data, plan=plan, **known)
        except BaseException as error:
            failed.append(error)  # readers of the store are told by a file in it

    thread = threading.Thread(target=work, name="eagleray-prepare", daemon=True)
    thread.start()
    job.console.say(f"rows are prepared while training runs: {job.storage.path(rel)}")
    try:
        yield Inputs(weights=weights, store=Prepared(rel, rel.rpartition("/")[2], False, {}))
    except Exception:
        if failed:  # the fit failed because its rows did not come: the cause is the better word
            raise failed[0] from None
        raise
    with job.console.stage("prepare"):
        thread.join()
    if failed:
        raise failed[0]


def run(spec: JobSpec, *, json_lines: bool = False) -> None:
    """Starts Ray only where there is something to do."""
    job = open_job(spec, json_lines=json_lines)
    store = find(spec.data, weights_rel=staged(job).rel, seed=spec.seed, storage=job.storage)
    if store is None:
        with computing(job, modules=IMPORTS):
            store = prepared(job).store
    job.console.close()
    shown = picture.write(job.storage, store_rel=store.rel, report=store.report)
    if json_lines:
        job.console(
            {"type": "prepared", "rel": store.rel, "reused": store.reused, "report": store.report, "picture": shown}
        )
        return
    if store.reused:
        print(f"nothing to do: the token store of these inputs is there: {job.storage.path(store.rel)}")
    show_report(store.report)
    print(f"picture: {job.storage.path(shown)}")


def show_report(report: dict[str, Any]) -> None:
    """Rows in, rows out by split and class, and why rows left, with up to three examples."""
    from rich.console import Console
    from rich.table import Table

    out = Console(soft_wrap=True)
    table = Table("rows", "count", "examples", title="prepare")
    table.add_row(
        "read", f"{report['rows_in']:,}", ", ".join(f"{s['name']} {s['records']:,}" for s in report["sources"])
    )
    for reason, what in report["left"].items():
        table.add_row(f"left: {reason}", f"{what['count']:,}", "\n".join(str(shown)[:90] for shown in what["examples"]))
    for split, what in report["splits"].items():
        table.add_row(split, f"{what['rows']:,}{_extra(what)}", _split(what))
    out.print(table)


def _extra(what: dict[str, Any]) -> str:
    copies = f" + {what['copies']:,} augmented copies" if what["copies"] else ""
    entries = f" = {what['entries']:,} entries" if what["entries"] != what["rows"] + what["copies"] else ""
    return copies + entries


def _split(what: dict[str, Any]) -> str:
    """One split in a line: classes, tokens, and what is special about it."""
    tokens = what["tokens"]
    parts = [f"{label} {count:,}" for label, count in what["classes"].items()]
    parts.append(
        f"{tokens['total']:,} tokens; half of the entries at most {tokens['p50']}, 99% at most {tokens['p99']}"
    )
    parts.append(f"{what['truncated']:,} truncated")
    if "packed_share" in what:
        parts.append(f"packed entries are {100 * what['packed_share']:.2f}% full")
    if what["unchanged_copies"]:
        parts.append(f"{what['unchanged_copies']:,} copies left out: nothing changed or a filter refused them")
    if what["cut"]:
        parts.append(f"{what['cut']:,} sounds cut to data.audio.max_seconds")
    parts += [f"{count:,} without {kind}" for kind, count in what["without"].items() if count]
    parts += [f"{name} {count:,}" for name, count in what.get("targets", {}).items() if count]
    return "; ".join(parts)
