"""`eagleray data preview SPEC`: a few rows before and after cleaning and each augmentation op. Thin: prints what
`orchestration.data.preview` finds, changed words marked, and puts the picture of images and sounds into storage."""

from __future__ import annotations

import difflib
import json
from typing import Any

from jobs.context import open_job
from jobs.spec import JobSpec

SAME = "unchanged"


def run(spec: JobSpec, *, rows: int = 5, json_lines: bool = False) -> None:
    """Raises what `prepare` would for inputs that cannot be read."""
    from orchestration.data.preview import picture, preview

    job = open_job(spec, json_lines=json_lines)
    found = preview(spec.data, storage=job.storage, seed=spec.seed, rows=rows)
    drawn = picture(found, rate=spec.data.audio.rate)
    rel = f"reports/preview-{spec.name}.png" if drawn else None
    if rel and drawn:
        job.storage.write(rel, drawn)
    job.console.close()
    for shown in found:
        if json_lines:
            row = {"source": shown.source, "row": shown.row, "label": shown.label, "texts": shown.texts}
            print(json.dumps(row | ({"targets": shown.targets} if shown.targets else {})))
        else:
            _print(shown.source, shown.row, shown.label, shown.texts, shown.targets)
    if not found:
        print("no row is left by cleaning; `eagleray prepare` tells why")
    if rel:
        print(json.dumps({"picture": rel}) if json_lines else f"picture: {job.storage.path(rel)}")


def _print(source: str, row: str, label: str | None, texts: dict[str, str | None], targets: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, title=f"{source}: {row}{f' ({label})' if label else ''}", title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    before = texts["cleaned"] or ""
    for stage, text in texts.items():
        whole = stage in ("read", "cleaned")
        table.add_row(
            stage, Text(text or "") if whole else Text(SAME, "dim") if text is None else _marked(before, text)
        )
    for name, what in targets.items():
        table.add_row(name, Text(what))
    Console().print(table)


def _marked(before: str, after: str) -> Any:
    """`after` with the words that are not in `before` marked."""
    from rich.text import Text

    old, new = before.split(" "), after.split(" ")
    found = Text()
    for kind, _, _, start, end in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if start < end:
            found.append(" ".join(new[start:end]) + " ", "" if kind == "equal" else "bold reverse")
    return found
