"""The picture of a run: loss and learning rate over its steps, and the validation scores. Takes a run's kept events; writes
`loss.png` beside its report. Called by `jobs/evaluate.py`; knows nothing of how the run was trained."""

from __future__ import annotations

import io
from typing import Any

from orchestration.storage import Storage
from orchestration.telemetry import read_events
from orchestration.terminal import MEASURED

PICTURE = "loss.png"


def draw(storage: Storage, *, run_rel: str, report_rel: str) -> str | None:
    """Gives the picture's name in storage; None where the run kept no step."""
    steps, validations = points(read_events(storage, run_rel))
    if not steps:
        return None
    storage.write(f"{report_rel}/{PICTURE}", picture(steps, validations, title=run_rel.rpartition("/")[2]))
    return f"{report_rel}/{PICTURE}"


def points(events: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Step and validation events by rising step. A resumed run tells some steps again: the last telling counts."""
    found: dict[str, dict[int, dict[str, Any]]] = {"step": {}, "validation": {}}
    for event in events:
        if event.get("type") in found and event.get("loss") is not None:
            found[event["type"]][event["step"]] = event
    steps, validations = ([kind[step] for step in sorted(kind)] for kind in found.values())
    return steps, validations


def picture(steps: list[dict[str, Any]], validations: list[dict[str, Any]], *, title: str) -> bytes:
    """PNG."""
    import matplotlib

    matplotlib.use("Agg")  # no display on a server
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot([event["step"] for event in steps], [event["loss"] for event in steps], label="training loss")
    at = [event["step"] for event in validations]
    if validations:
        left.plot(at, [event["loss"] for event in validations], marker="o", label="validation loss")
        for metric in MEASURED[1:]:  # the loss stands on the left
            if not any(metric in event for event in validations):
                continue
            right.plot(at, [event.get(metric) for event in validations], marker="o", label=metric.replace("_f1", " F1"))
        right.legend(loc="lower right")
    left.set(xlabel="step", title=title)
    left.legend(loc="upper right")
    rate = left.twinx()
    rate.plot([event["step"] for event in steps], [event.get("lr") for event in steps], color="grey", linewidth=0.8)
    rate.set_ylabel("learning rate", color="grey")
    right.set(xlabel="step", title="validation", ylim=(0, 1.02))
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    pyplot.close(figure)
    return held.getvalue()
