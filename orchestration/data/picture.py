"""The picture of `prepare`: lengths, sources, classes and what left. Takes a store's report; writes `prepare.png` and `prepare.json`
beside each other in storage. Called by the `prepare` verb on the driver; knows nothing of how rows were made."""

from __future__ import annotations

import io
from typing import Any

from orchestration.storage import Storage

PICTURE, REPORT = "prepare.png", "prepare.json"
MOST_REASONS = 12
LEAST_BARS = 4
LONGEST_REASON = 44  # characters of a reason beside its bar


def write(storage: Storage, *, store_rel: str, report: dict[str, Any]) -> str:
    """Gives the picture's name in storage: `reports/<store's address>/prepare.png`."""
    rel = f"reports/{store_rel.rpartition('/')[2]}"
    storage.write_json(f"{rel}/{REPORT}", {key: value for key, value in report.items() if key != "seconds"})
    storage.write(f"{rel}/{PICTURE}", picture(report))
    return f"{rel}/{PICTURE}"


def picture(report: dict[str, Any]) -> bytes:
    """PNG of four panels."""
    import matplotlib

    matplotlib.use("Agg")  # no display on a server
    from matplotlib import pyplot

    figure, ((lengths, sources), (classes, left)) = pyplot.subplots(2, 2, figsize=(12, 8), layout="constrained")
    _lengths(lengths, report["splits"])
    rows = {source["name"]: source["records"] for source in report["sources"]}
    _bars(sources, rows, f"records by source: {report['rows_in']:,} in all")
    _classes(classes, report["splits"])
    reasons = {reason: found["count"] for reason, found in list(report["left"].items())[:MOST_REASONS]}
    _bars(left, reasons, f"rows that left: {sum(found['count'] for found in report['left'].values()):,}")
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    pyplot.close(figure)
    return held.getvalue()


def _lengths(axes: Any, splits: dict[str, Any]) -> None:
    for name, found in splits.items():
        bins = found["histogram"]
        if bins:
            step = bins[1][0] - bins[0][0] if len(bins) > 1 else 1
            share = [100 * count / found["entries"] for _, count in bins]
            edges = [start for start, _ in bins] + [bins[-1][0] + step]
            axes.stairs(share, edges, label=f"{name}: {found['entries']:,} entries")
    axes.set(title="tokens an entry", xlabel="tokens", ylabel="% of the split")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _classes(axes: Any, splits: dict[str, Any]) -> None:
    names = list(next(iter(splits.values()))["classes"]) or ["rows"]
    base = [0] * len(names)
    for split, found in splits.items():
        counts = list(found["classes"].values()) or [found["rows"]]
        axes.bar(names, counts, bottom=base, label=split)
        base = [a + b for a, b in zip(base, counts, strict=True)]
    axes.set(title="rows by class and split", ylabel="rows")
    axes.legend()


def _bars(axes: Any, values: dict[str, int], title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    names = [name if len(name) <= LONGEST_REASON else name[: LONGEST_REASON - 1] + "…" for name in values]
    bars = axes.barh(range(len(names)), list(values.values()), height=0.6, tick_label=names)
    axes.bar_label(bars, labels=[f"{value:,}" for value in values.values()], padding=3)
    axes.set_ylim(max(len(names), LEAST_BARS) - 0.5, -0.5)  # the first on top; a single bar is no wall
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.15)
    axes.set(title=title)
