from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that starts Ray is an integration test in the wrong folder."""
    import sys

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unit tests do not start Ray; move this test to tests/integration")

    if "ray" in sys.modules:
        monkeypatch.setattr("ray.init", refuse)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of an empty bucket."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        _forget("s3")
        bucket = f"bucket-{uuid.uuid4().hex[:8]}"  # the server's buckets outlive it in this process
        fsspec.filesystem("s3").mkdir(bucket)
        yield f"s3://{bucket}"
        _forget("s3")
    server.stop()


def _forget(protocol: str) -> None:
    """Instances remember the endpoint that they were made with."""
    import fsspec

    fsspec.get_filesystem_class(protocol).clear_instance_cache()
