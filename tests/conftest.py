"""One Ray for the whole session, catalogue items fetched once. Unit tests may not touch Ray: there `ray.init` raises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.config import ClusterConfig


@pytest.fixture(scope="session")
def ray_session() -> Iterator[dict[str, Any]]:
    from cluster.local import session
    from orchestration.training.warm import MODEL, RAY, ZERO

    with session(ClusterConfig(), modules=[*MODEL, *ZERO, *RAY]) as info:
        yield info


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of the MiniLM encoder: config.json, model.safetensors, tokenizer.json."""
    from orchestration.data.catalog import local

    return local("catalog:minilm")
