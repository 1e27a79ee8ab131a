"""The specs that docs/DATA.md and docs/TRAINING.md show are valid; the one names every format and op, the other every key of `train`."""

from __future__ import annotations

import re
import typing

import pytest

from jobs.spec import _merge, _parse, all_paths, validate
from orchestration.data.config import AUDIO_OPS, IMAGE_OPS, TEXT_OPS, SourceConfig
from orchestration.training.config import TrainConfig
from tests.architecture.tree import ROOT

PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("DATA.md", "TRAINING.md")}
BLOCKS = [
    (name, block)
    for name, page in PAGES.items()
    for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
]
BASE = _parse((ROOT / "jobs" / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"), origin="quickstart")


@pytest.mark.parametrize(
    ("name", "block"), BLOCKS, ids=[f"{name}: {block.partition('#')[0][:60].split()}" for name, block in BLOCKS]
)
def test_a_spec_of_the_page_is_valid(name: str, block: str) -> None:
    base = {**BASE, "tune": None, "train": {"epochs": 1}}
    validate(_merge(base, _parse(block, origin=name)), origin=f"docs/{name}")


def test_every_format_and_every_op_is_named() -> None:
    formats = set(typing.get_args(SourceConfig.model_fields["format"].annotation)) - {"auto"}
    names = (*formats, *TEXT_OPS, *IMAGE_OPS, *AUDIO_OPS)
    assert not [name for name in names if not re.search(rf"\b{name}\b", PAGES["DATA.md"])]


def test_every_key_of_training_is_named() -> None:
    keys = {path.rpartition(".")[2] for path in all_paths(TrainConfig)}
    assert not [key for key in sorted(keys) if not re.search(rf"\b{key}\b", PAGES["TRAINING.md"])]
