"""docs/BENCHMARKS.md. Takes the claims of the scripts that ran; gives the page with their sections replaced and all others as
they were. A section says on which machine, with which versions, when and how it was measured, since two sections may come
from different ones."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._claim import Claim

HEAD = """# Benchmarks

Written by `make bench` (all) and `make bench-NAME` (one); each section is replaced when its script runs. Ours and peer are medians
of repeats measured in turn on one machine, ratio is ours / peer, spread the lowest and highest ratio of one repeat. The gate says
whether both sides did the same work; without it a ratio means nothing.
"""
PACKAGES = ("ray", "torch", "deepspeed", "transformers")


@dataclass(frozen=True)
class Section:
    """One script's part of the page. `about`: first paragraph of the script's docstring. `loads`: average before and after."""

    name: str
    about: str
    claims: Sequence[Claim]
    command: str
    took_s: float
    loads: tuple[float, float]


def update(page: Path, sections: Sequence[Section]) -> None:
    """Replace these sections, keep the others, sorted by name. Makes the page where it is not there."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    kept = dict(re.findall(r"(?ms)^## (\S+)\n(.*?)(?=^## |\Z)", text))
    for section in sections:
        kept[section.name] = "\n" + render(section)
    body = "".join(f"\n## {name}\n\n{kept[name].strip()}\n" for name in sorted(kept))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(HEAD + body, encoding="utf-8")


def render(section: Section) -> str:
    """The section's Markdown below its heading."""
    lines = [
        section.about,
        "",
        f"`{section.command}`, {time.strftime('%Y-%m-%d', time.gmtime())}, {section.took_s:.0f} s; {machine()}; load average {section.loads[0]:.1f} before, {section.loads[1]:.1f} after; {versions()}.",
        "",
    ]
    lines += [
        "| claim | unit | ours | peer | ratio | spread | target | better | gate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(claim) for claim in section.claims]
    notes = _notes(section.claims)
    lines += ["", *notes] if notes else []
    for claim in section.claims:
        lines += _parts(claim)
    return "\n".join(lines) + "\n"


def _row(claim: Claim) -> str:
    spread = "" if claim.spread is None else f"{claim.spread[0]:.3f} to {claim.spread[1]:.3f}"
    target = "none" if claim.target is None else f"{claim.target:.4g}{'' if claim.met else ' (missed)'}"
    gate = "pass" if claim.gate else "**fail**"
    cells = [
        claim.claim,
        claim.unit,
        f"{claim.ours:.4g}",
        f"{claim.peer:.4g}",
        f"{claim.ratio:.3f}",
        spread,
        target,
        claim.better,
        gate,
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _notes(claims: Sequence[Claim]) -> list[str]:
    """What stands beside the numbers, once for all rows of the table that share it."""
    rows_of: dict[str, list[int]] = {}
    for row, claim in enumerate(claims, start=1):
        for text in (claim.gate_says and f"gate: {claim.gate_says}", claim.note):
            if text:
                rows_of.setdefault(text, []).append(row)
    return [f"- row {', '.join(map(str, rows))}: {text}" for text, rows in rows_of.items()]


def _parts(claim: Claim) -> list[str]:
    """Where the number goes, one table a side."""
    lines: list[str] = []
    for side, parts in claim.parts.items():
        lines += ["", f"Where it goes ({claim.claim}, {side}):", "", f"| part | {claim.unit} |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in parts.items()]
    return lines


def machine() -> str:
    """CPU model, cores, memory, and the GPU where there is one."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8", errors="replace"))
        model = found.group(1).strip() if found else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*")) if Path("/proc/driver/nvidia/gpus").exists() else []
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {f'{len(gpus)} GPU' if gpus else 'no GPU'}"
    )


def versions() -> str:
    """Python and the packages whose speed is measured here."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)
