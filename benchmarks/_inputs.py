"""The real input of the benchmarks: the quickstart's corpus, prepared once by the `prepare` verb into a storage folder of the
cache, and its rows as Parquet for peers that cannot read a token store. Both sides of a claim get their rows from here."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from jobs.spec import JobSpec, load_spec
from orchestration.data.store import Split, TokenStore
from orchestration.errors import UserError
from orchestration.storage import Storage, cache_root
from orchestration.weights import Weights, stage

RECIPE = ROOT / "jobs" / "recipes" / "quickstart.yaml"


@dataclass(frozen=True)
class Inputs:
    """`spec`: the quickstart with its storage in the cache. `overrides`: what makes it so on a command line."""

    spec: JobSpec
    overrides: list[str]
    storage: Storage
    weights: Weights
    store_rel: str

    @property
    def store(self) -> TokenStore:
        return TokenStore.open(self.storage, self.store_rel)

    @property
    def folder(self) -> Path:
        """The pretrained model's folder."""
        return self.storage.fetch(self.weights.rel)


def quickstart() -> Inputs:
    """Prepared by the command itself, in another process: no Ray is left in ours."""
    root = str(cache_root() / "benchmarks" / "storage")
    overrides = [f"storage={root}"]
    last = verb("prepare", overrides)[-1]
    if last.get("type") != "prepared":
        raise UserError(f"`eagleray prepare` ended with {last}; expected an event of type prepared")
    spec = load_spec(RECIPE, overrides)
    storage = Storage(root)
    return Inputs(
        spec=spec, overrides=overrides, storage=storage, weights=stage(spec.model.path, storage), store_rel=last["rel"]
    )


def command(name: str, overrides: Sequence[str]) -> list[str]:
    """`eagleray NAME jobs/recipes/quickstart.yaml --set ... --json`, with this interpreter."""
    sets = [part for item in overrides for part in ("--set", item)]
    return [sys.executable, "-m", "jobs.cli", name, str(RECIPE), *sets, "--json"]


def verb(name: str, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Run a verb to its end; gives its events. Raises UserError with the end of what it said."""
    done = subprocess.run(command(name, overrides), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`eagleray {name}` ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def export(split: Split, path: Path) -> str:
    """Rows of a split to Parquet (row_id, text, input_ids, label); gives the digest of their ids in this order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    every = np.arange(len(split))
    columns = {
        "row_id": split.row_ids,
        "text": split.texts(every),
        "input_ids": split.input_ids(every),
        "label": split.labels,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return digest_ids(split.row_ids)


def digest_ids(row_ids: Sequence[str]) -> str:
    """16 hex digits of row ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(row_ids)).encode()).hexdigest()[:16]
