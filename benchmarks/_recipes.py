"""`make recipes`: every recipe that trains a model, from corpus to test score, as `eagleray pipeline` does it but for the endpoint. One JSON
line a recipe on standard output, {"recipe", "metric", "value", "baseline", "beats", ...}; all of them become the table in
docs/RECIPES.md. `make recipes NAMES="lora spans"` runs some and keeps the other lines of the table.

`value` is on the test split. `baseline` is the best of what the report holds beside the model and, where a recipe exists to beat another
one, that one's value; `beats` says whether the model is better, whatever the answer."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECIPES, PAGE = ROOT / "jobs" / "recipes", ROOT / "docs" / "RECIPES.md"
# A recipe and those that it has to beat: the same task without what the recipe is about.
AGAINST: dict[str, tuple[str, ...]] = {
    "few-labels after pretrain": ("few-labels",),
    "few-labels-minilm": ("few-labels",),
    "distill": ("student",),
    "knowledge": ("knowledge-plain",),
    "memory": ("memory-plain",),
    "memory-plain after knowledge-pretrain": ("memory-plain",),
    "multimodal": ("multimodal-text", "multimodal-image"),
    "masked-multimodal": ("masked-captions",),
}
# Lines that go on with the package of another recipe: name -> (recipe, whose package, the --set that names it).
AFTER = {
    "distill": ("distill", "quickstart", "train.distill.teacher={package}"),
    "few-labels after pretrain": ("few-labels", "pretrain", "model={{path: {package}, task: classification}}"),
    "memory-plain after knowledge-pretrain": (
        "memory-plain",
        "knowledge-pretrain",
        "model={{path: {package}, task: classification}}",
    ),
}
# Lines whose model is several: name -> (recipe, how many of its folds are a member's each).
ENSEMBLES = {"folds as one": ("folds", 3)}
LINE = "| {recipe} | {task} | {data} | {rows} | {epochs} | {seconds} | {metric} | {value} | {baseline} ({baseline_name}) | {beats} |"
HEAD = """# Recipes: what each one reaches

Written by `make recipes`. Each line is one run of `jobs/recipes/NAME.yaml` on two processor cores: corpus, store, fit on the recipe's workers, package, score on the test split.
Seconds are of the whole run, with whatever else the machine did meanwhile. The baseline is the best of those in the report and of the recipes that it has to beat; nothing is left out where it does not.

| recipe | task | data | training rows | epochs | seconds | metric | value | baseline | beats it |
|---|---|---|---|---|---|---|---|---|---|
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._recipes", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes to run; none: all that train")
    parser.add_argument(
        "--storage", default=None, help="where stores and packages go; absent: a folder that is removed"
    )
    parser.add_argument("--one", metavar="FILE", help=argparse.SUPPRESS)
    known = parser.parse_args(argv)
    if known.one:
        Path(known.one).write_text(json.dumps(run(known.names[0], known.storage)), encoding="utf-8")
        return 0
    chosen = known.names or trained()
    if unknown := sorted(set(chosen) - set(trained())):
        print(
            f"error: no recipe that trains is called {unknown[0]!r}; there are: {', '.join(trained())}", file=sys.stderr
        )
        return 2
    found, failed = [], []
    with tempfile.TemporaryDirectory(prefix="eagleray-recipes-") as folder:
        for name in chosen:
            result = apart(name, known.storage or folder, Path(folder) / f"{name}.json")
            (found if result else failed).append(result or name)
    lines = judged({**kept(), **{line["recipe"]: line for line in found if isinstance(line, dict)}})
    for line in lines:
        if line["recipe"] in chosen:
            print(json.dumps(line), flush=True)
    PAGE.write_text(
        HEAD + "".join(LINE.format(**shown(line)) + "\n" for line in lines) + remembered(lines), encoding="utf-8"
    )
    if failed:
        print(f"error: {', '.join(map(str, failed))} did not run to the end", file=sys.stderr)
    return 1 if failed else 0


def trained() -> list[str]:
    """Recipes that make a model, by name; those that go on with another's come last. Those called data-... show what `prepare` does, and
    one with `prompt` trains nothing."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in RECIPES.glob("*.yaml")}
    found = sorted(name for name, text in texts.items() if not name.startswith("data-") and "\nprompt:" not in text)
    return [*(name for name in found if name not in AFTER), *AFTER, *ENSEMBLES]


def apart(name: str, storage: str, out: Path) -> dict[str, Any] | None:
    """In a process of its own, so that Ray, threads and memory of one recipe do not touch the next."""
    command = [sys.executable, "-m", "benchmarks._recipes", name, "--storage", storage, "--one", str(out)]
    print(f"recipe {name}", file=sys.stderr, flush=True)
    ended = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
    return json.loads(out.read_text(encoding="utf-8")) if ended.returncode == 0 else None


def run(name: str, storage: str) -> dict[str, Any]:
    from jobs.context import computing, open_job
    from jobs.embed import embedded
    from jobs.evaluate import evaluated
    from jobs.fits import check_fit
    from jobs.spec import load_spec
    from models.config import LOWER, METRICS
    from orchestration.data.store import TokenStore

    began = time.monotonic()
    recipe, *before = AFTER.get(name, (ENSEMBLES.get(name, (name,))[0],))
    more = [before[1].format(package=packaged(storage, before[0]))] if before else []
    spec = load_spec(RECIPES / f"{recipe}.yaml", [f"storage={storage}", *more])
    check_fit(spec)
    job = open_job(spec)
    with computing(job):
        if spec.features is not None:
            reports = [embedded(job)[1] or {}]
        else:
            store_rel, packages, final = together(job, ENSEMBLES[name][1]) if name in ENSEMBLES else alone(job)
            reports = [
                evaluated(final, store_rel=store_rel, package_rel=rel, report_id=f"{recipe}-{number}")
                for number, rel in enumerate(packages)
            ]
    job.console.close()
    report = reports.pop()  # what stands before it are its members
    there = [name for name in METRICS[spec.model.task] if name in report]
    # Of texts that are written baselines have scores that validation does not measure.
    shared = dict.fromkeys(name for one in report["baselines"].values() for name in one if name in report)
    metric = next((name for name in [*there, *shared] if name in shared), there[0])
    baselines = {one: values[metric] for one, values in report["baselines"].items() if metric in values}
    if reports:
        baselines["best_member"] = (min if metric in LOWER else max)(member[metric] for member in reports)
    rows = len(TokenStore.open(job.storage, report["store"]).split("train", spec.train.fold))
    return {
        "recipe": name,
        "task": spec.model.task,
        "data": ", ".join(source.path.removeprefix("catalog:") for source in spec.data.sources),
        "rows": min(rows, spec.train.rows or rows),
        "epochs": 0 if spec.features else spec.train.epochs,
        "seconds": round(time.monotonic() - began),
        "metric": metric,
        "value": report[metric],
        "baselines": baselines,
    }


def alone(job: Any) -> tuple[str, list[str], Any]:
    """Store, package and the job as the sweep left it."""
    from jobs.export import exported
    from jobs.prepare import preparing
    from jobs.train import fitted
    from jobs.tune import swept

    with preparing(job) as inputs:
        sweep = swept(job, inputs) if job.spec.tune else None
        final = job.changed(sweep.best.values) if sweep else job
        fit = fitted(final, inputs, run_id=job.new_id(), sweep=sweep)
    model = exported(final, fit, store_rel=inputs.store.rel, weights_rel=inputs.weights.rel, sweep=sweep)
    return inputs.store.rel, [model.package_rel], final


def together(job: Any, folds: int) -> tuple[str, list[str], Any]:
    """The same of a fit for each of so many folds: their packages, then the one of them all, as `eagleray export --ensemble` makes it."""
    from jobs.ensemble import fused
    from jobs.export import exported
    from jobs.prepare import preparing
    from jobs.train import fitted

    parts = [job.changed({"train.fold": fold}) for fold in range(folds)]
    with preparing(job) as inputs:
        fits = [fitted(part, inputs, run_id=job.new_id()) for part in parts]
    where = {"store_rel": inputs.store.rel, "weights_rel": inputs.weights.rel}
    rels = [exported(part, fit, **where).package_rel for part, fit in zip(parts, fits, strict=True)]
    return inputs.store.rel, [*rels, fused(job, [f"storage:{rel}" for rel in rels]).package_rel], job


def packaged(storage: str, recipe: str) -> str:
    """The newest package of a recipe that ran with this storage."""
    from orchestration.registry import Registry
    from orchestration.storage import Storage

    versions = Registry(Storage(storage), None).versions(recipe)
    if not versions:
        raise SystemExit(f"error: {recipe} has to run first, with the same --storage")
    return f"storage:{max(versions, key=lambda one: one.version).package_rel}"


def judged(lines: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """With the best baseline of each, and whether it is beaten; by name."""
    from models.config import LOWER

    found = []
    for name, line in sorted(lines.items()):
        others = {one: lines[one]["value"] for one in AGAINST.get(name, ()) if one in lines}
        beside = {**line["baselines"], **others}
        lower = line["metric"] in LOWER
        best = (min if lower else max)(beside, key=lambda one: beside[one], default=None)
        baseline = None if best is None else beside[best]
        beats = None if baseline is None else line["value"] < baseline if lower else line["value"] > baseline
        found.append({**line, "baseline": baseline, "baseline_name": best, "beats": beats})
    return found


def shown(line: dict[str, Any]) -> dict[str, Any]:
    number = {key: "-" if line[key] is None else f"{line[key]:.4g}" for key in ("value", "baseline")}
    said = {True: "yes", False: "no", None: "-"}[line["beats"]]
    return {
        **line,
        **number,
        "rows": f"{line['rows']:,}",
        "beats": said,
        "baseline_name": str(line["baseline_name"]).replace("_", " "),
    }


def kept() -> dict[str, dict[str, Any]]:
    """Lines of the page as it is, of recipes that are still there."""
    if not PAGE.exists():
        return {}
    _, _, told = PAGE.read_text(encoding="utf-8").partition("<!-- ")
    lines = json.loads(told.removesuffix(" -->\n")) if told else []
    return {line["recipe"]: line for line in lines if line["recipe"] in trained()}


def remembered(lines: list[dict[str, Any]]) -> str:
    """What the next run keeps of the page."""
    return f"\n<!-- {json.dumps(lines)} -->\n"


if __name__ == "__main__":
    sys.exit(main())
