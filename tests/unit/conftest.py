from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that starts Ray is an integration test in the wrong folder."""
    import sys

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unit tests do not start Ray; move this test to tests/integration")

    if "ray" in sys.modules:
        monkeypatch.setattr("ray.init", refuse)
