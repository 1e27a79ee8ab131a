"""The picture of a report: each metric beside the baselines'. Takes the report of any task but classification, which has more to show; gives a PNG.
Called by `evaluate`."""

from __future__ import annotations

from typing import Any


def picture(report: dict[str, Any]) -> bytes:
    """PNG: each metric beside the baselines', with its 95% interval."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = {"this model": report, **{name.replace("_", " "): found for name, found in report["baselines"].items()}}
    metrics = sorted({key for found in report["baselines"].values() for key in found})
    shown_ranges = report.get("intervals", {})
    figure, axes = pyplot.subplots(
        1, len(metrics), figsize=(4.2 * len(metrics), 4.2), squeeze=False, layout="constrained"
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        shown = {name: found[metric] for name, found in bars.items() if metric in found}
        drawn = axis.bar(list(shown), list(shown.values()), color=["tab:blue", *["tab:grey"] * (len(shown) - 1)])
        if metric in shown_ranges:
            low, high = shown_ranges[metric]
            axis.vlines(0, low, high, color="black")
        axis.bar_label(drawn, fmt="%.4g", padding=2)
        axis.set_title(metric.replace("_f1", " F1"))
        axis.tick_params(axis="x", rotation=30)
    figure.suptitle(f"{report['split']} split, {report['rows']:,} rows")
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    pyplot.close(figure)
    return held.getvalue()
