"""The peers of `data`: packages in an environment of their own (benchmarks/peers/data-requirements.txt), and what nltk reads. Takes
names of scripts in benchmarks/peers; gives them running."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._peers import PEERS, Peer, started
from orchestration.data import catalog
from orchestration.errors import UserError
from orchestration.storage import cache_root

REQUIREMENTS = PEERS / "data-requirements.txt"


def environment() -> Path:
    """The peers' interpreter. Made at the first call, and again when the requirements change; minutes then, nothing after."""
    folder = cache_root() / "benchmarks" / "peers-data"
    mark, wanted = folder / "requirements.sha256", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if mark.is_file() and mark.read_text() == wanted:
        return python
    print(f"making the peers' environment in {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)])
    _call([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(REQUIREMENTS)])
    mark.write_text(wanted)
    return python


def nltk_data(python: Path) -> Path:
    """A root for nltk.data.path: WordNet and stop words of the catalogue, and nltk's own tagger, trained here by nltk on the
    Brown corpus (a minute, once): nltk's is not in any package. nltk reads no file that another account owns: all are copies."""
    root = cache_root() / "benchmarks" / "nltk-data"
    tagger = root / "taggers" / "averaged_perceptron_tagger_eng"
    if (tagger / "done").is_file():
        return root
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(catalog.local("catalog:nltk-data"), root)
    shutil.copytree(catalog.local("catalog:wordnet"), root / "corpora" / "wordnet")
    brown = catalog.local("catalog:brown")
    _call([str(python), str(PEERS / "data_train_tagger.py"), str(brown), str(tagger)], {"NLTK_DATA": str(root)})
    (tagger / "done").touch()
    return root


def peer(
    name: str, *, cores: Sequence[int], settings: dict[str, str] | None = None
) -> contextlib.AbstractContextManager[Peer]:
    """benchmarks/peers/NAME.py, in the peers' environment, on these cores."""
    python = environment()
    variables = {"NLTK_DATA": str(nltk_data(python)), "PYTHONPATH": "", **(settings or {})}
    return started(name, [python, PEERS / f"{name}.py"], cores=cores, settings=variables)


def _call(command: list[str], more: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, stdout=sys.stderr.fileno(), env={**os.environ, "PYTHONPATH": "", **(more or {})})
    if done.returncode:
        raise UserError(f"{' '.join(command[:6])} ... ended with exit code {done.returncode}; its output is above")
