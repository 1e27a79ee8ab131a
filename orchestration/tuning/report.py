"""What a sweep looks like: a table for the terminal and a picture for the report. Takes a SweepResult; gives rows of text
and `report.png` in the sweep's folder. Called by `jobs/tune.py`. Knows nothing of Ray."""

from __future__ import annotations

import math
from typing import Any

from orchestration.storage import Storage
from orchestration.tuning.results import SweepResult, Trial
from orchestration.tuning.space import mode

PICTURE = "report.png"
SHOWN = {"stopped": "stopped early"}
STATUSES = (("finished", "o", "tab:blue"), ("stopped", "x", "tab:orange"), ("failed", "v", "tab:red"))
LISTED = 12  # trials with a name in the picture; more would not be told apart


def draw(storage: Storage, result: SweepResult) -> str:
    """Write report.png: the metric over validations, a line a trial, and the metric against each searched value.

    Gives its name in storage.
    """
    import matplotlib

    matplotlib.use("Agg")  # no display on a server
    import matplotlib.pyplot as plt

    paths = list(result.best.values)
    columns = 2 if len(paths) == 3 else min(3, 1 + len(paths))  # four panels make a square
    rows = math.ceil((1 + len(paths)) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.6 * rows), squeeze=False, layout="constrained")
    try:
        flat = list(axes.flat)
        _histories(flat[0], result)
        for axis, path in zip(flat[1:], paths, strict=False):
            _against(axis, result, path)
        for axis in flat[1 + len(paths) :]:
            axis.set_axis_off()
        figure.suptitle(f"sweep {result.sweep_id}: {len(result.trials)} trials, best {result.best_id}", fontsize=10)
        aside = storage.staging() / PICTURE
        figure.savefig(aside, dpi=110)
    finally:
        plt.close(figure)
    rel = f"{result.rel}/{PICTURE}"
    storage.put(rel, aside)
    aside.parent.rmdir()
    return rel


def _histories(axis: Any, result: SweepResult) -> None:
    for trial in result.trials:
        points = [
            (i + 1, event[result.metric])
            for i, event in enumerate(trial.history)
            if event.get(result.metric) is not None
        ]
        if points:
            best = trial.id == result.best_id
            style = {"linewidth": 2.5, "zorder": 3} if best else {"linewidth": 1.0, "alpha": 0.7}
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=3,
                label=f"{trial.id}{' (best)' if best else ''}",
                **style,
            )
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("validations")
    axis.set_ylabel(result.metric)
    if len(result.trials) <= LISTED and axis.get_lines():
        axis.legend(
            fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False
        )  # beside the lines, not over them


def _against(axis: Any, result: SweepResult, path: str) -> None:
    scored = [trial for trial in result.trials if trial.metric is not None]
    values = [trial.values[path] for trial in scored]
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    names = [] if numeric else sorted({str(value) for value in values})
    shown = values if numeric else [names.index(str(value)) for value in values]
    for status, marker, colour in STATUSES:
        chosen = [i for i, trial in enumerate(scored) if trial.status == status]
        if chosen:
            axis.scatter(
                [shown[i] for i in chosen],
                [scored[i].metric for i in chosen],
                marker=marker,
                color=colour,
                label=SHOWN.get(status, status),
            )
    best = scored.index(result.best)
    axis.scatter([shown[best]], [scored[best].metric], s=140, facecolors="none", edgecolors="black")
    _ticks(axis, shown, names)
    axis.margins(x=0.08, y=0.12)
    axis.set_xlabel(path)
    axis.set_ylabel(f"{'lowest' if mode(result.metric) == 'min' else 'best'} {result.metric}")
    axis.legend(fontsize=7, framealpha=0.5)


def _ticks(axis: Any, values: list[Any], names: list[str]) -> None:
    """Few enough labels that none runs into the next; whole numbers stay whole. `names`: of the values 0, 1 ..., where they are words."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if names:
        turned: dict[str, Any] = {"rotation": 20, "ha": "right"} if sum(map(len, names)) > 30 else {}
        axis.set_xticks(range(len(names)), [_short(name) for name in names], **turned)
        return
    if all(isinstance(value, int) for value in values):
        axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        return
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    if min(values) > 0 and max(values) / min(values) >= 5:
        axis.set_xscale("log")
        decades = math.log10(max(values) / min(values))
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:23] + "\u2026"


def table(result: SweepResult) -> tuple[list[str], list[list[str]]]:
    """Headers and rows, best trial first, failed ones last."""
    paths = list(result.best.values)
    headers = [
        "trial",
        *short_names(paths),
        result.metric,
        "validations",
        "seconds",
        "status",
    ]
    return headers, [_row(trial, paths, best=trial.id == result.best_id) for trial in ranked(result)]


def short_names(paths: list[str]) -> list[str]:
    """`train.optimizer.lr` -> `lr`; the whole path where two end alike."""
    last = [path.rpartition(".")[2] for path in paths]
    return [name if last.count(name) == 1 else path for name, path in zip(last, paths, strict=True)]


def ranked(result: SweepResult) -> list[Trial]:
    """Best first; failed ones last."""
    sign = 1.0 if mode(result.metric) == "min" else -1.0

    def place(trial: Trial) -> tuple[bool, float]:
        lost = trial.metric is None or trial.status == "failed"
        return lost, 0.0 if trial.metric is None else sign * trial.metric

    return sorted(result.trials, key=place)


def _row(trial: Trial, paths: list[str], *, best: bool) -> list[str]:
    values = [
        f"{value:.3g}" if isinstance(value, float) else str(value) for value in (trial.values[path] for path in paths)
    ]
    metric = "-" if trial.metric is None else f"{trial.metric:.4f}"
    status = SHOWN.get(trial.status, trial.status)
    return [
        trial.id,
        *values,
        metric,
        str(len(trial.history)),
        f"{trial.seconds:.1f}",
        status + (" <- best" if best else ""),
    ]
