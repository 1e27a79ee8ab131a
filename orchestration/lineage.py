"""Where a model came from, as plain values: written into its package at export, shown by `explain` and by the endpoint itself.
Takes what the driver knows at that moment; reads the store's manifest and the installed versions. Knows no model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from orchestration.data.catalog import PREFIX, entries
from orchestration.data.store import TokenStore
from orchestration.storage import Storage
from orchestration.training.job import LoopResult

LIBRARIES = ("ray", "torch", "transformers", "tokenizers", "deepspeed", "datasets", "numpy", "safetensors")
PACKAGES = ("orchestration", "models", "jobs", "cluster")


def build(
    *,
    name: str,
    spec: dict[str, Any],
    storage: Storage,
    run_id: str,
    store_rel: str,
    weights_rel: str,
    result: LoopResult,
    sweep: Any = None,
) -> dict[str, Any]:
    """`spec`: the resolved spec. `sweep`: a SweepResult, or None where no sweep chose the values."""
    store = TokenStore.open(storage, store_rel)
    return {
        "name": name,
        "created": _now(),
        "seed": spec["seed"],
        "spec": spec,
        "run": {
            "id": run_id,
            "checkpoint": result.best_checkpoint,
            "step": result.best_step,
            "steps": result.steps,
            "metric": result.metric,
            "value": result.best_value,
            "workers": result.world,
            "zero_stage": result.zero_stage,
            "resumed_from": result.resumed_from,
        },
        "trial": {
            "sweep": sweep.sweep_id,
            "id": sweep.best_id,
            "values": sweep.best.values,
            "metric": sweep.metric,
            "value": sweep.best.metric,
            "trials": len(sweep.trials),
        }
        if sweep
        else None,
        "store": {
            "rel": store_rel,
            "address": store.fingerprint,
            "rows": {split: what["rows"] for split, what in store.report["splits"].items()},
            "inputs": store.meta["inputs"],  # each file: source, rel, records, bytes, sha256
        },
        "weights": {"rel": weights_rel, "path": _folders(spec)[0] if len(_folders(spec)) == 1 else _folders(spec)},
        "licences": licences(spec),
        **_here(),
    }


def of_ensemble(name: str, members: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of a package made of others. `members`: name in storage -> its own lineage."""
    return {
        "name": name,
        "created": _now(),
        "members": [{"package": rel, "lineage": told} for rel, told in members.items()],
        "licences": {item: licence for told in members.values() for item, licence in told.get("licences", {}).items()},
        **_here(),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _here() -> dict[str, Any]:
    """What made it."""
    return {
        "code": code(),
        "libraries": {library: importlib.metadata.version(library) for library in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }


def licences(spec: dict[str, Any]) -> dict[str, str]:
    """Licence of each catalogue item that the spec names; other inputs are the user's own to know."""
    paths = [*_folders(spec), *(source["path"] for source in spec["data"]["sources"])]
    names = [path.removeprefix(PREFIX).partition("/")[0] for path in paths if path.startswith(PREFIX)]
    known = entries()
    return {name: known[name].licence for name in names}


def _folders(spec: dict[str, Any]) -> list[str]:
    """Where encoders or tokenizers come from; none for what is made from scratch without, or with a tokenizer of the corpus."""
    origins = (spec["model"].get("towers") or {"": spec["model"]}).values()
    found = [origin.get("path") or origin.get("tokenizer") for origin in origins]
    return [folder for folder in found if isinstance(folder, str)]


def code() -> dict[str, str | None]:
    """Our version, a sha256 over the four packages' sources, and the commit where they lie in a clean git checkout."""
    root = Path(__file__).resolve().parent.parent
    content = hashlib.sha256()
    for path in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        content.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return {"eagleray": importlib.metadata.version("eagleray"), "sha256": content.hexdigest(), "commit": _commit(root)}


def _commit(root: Path) -> str | None:
    """With `+changes` where the checkout is not clean; None outside a checkout."""
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--", *PACKAGES],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+changes" if dirty else head
