"""The specs that docs/DATA.md shows are valid, and it names every format, op and command there is."""

from __future__ import annotations

import re
import typing

import pytest
import yaml

from jobs.spec import _merge, validate
from orchestration.data.config import AUDIO_OPS, IMAGE_OPS, TEXT_OPS, SourceConfig
from tests.architecture.tree import ROOT

PAGE = (ROOT / "docs" / "DATA.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BASE = yaml.safe_load((ROOT / "jobs" / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("\n")[1].strip() for block in BLOCKS])
def test_a_spec_of_the_page_is_valid(block: str) -> None:
    base = {**BASE, "tune": None, "train": {"epochs": 1}}
    validate(_merge(base, yaml.safe_load(block)), origin="docs/DATA.md")


def test_every_format_and_every_op_is_named() -> None:
    formats = set(typing.get_args(SourceConfig.model_fields["format"].annotation)) - {"auto"}
    missing = [name for name in (*formats, *TEXT_OPS, *IMAGE_OPS, *AUDIO_OPS) if not re.search(rf"\b{name}\b", PAGE)]
    assert not missing
