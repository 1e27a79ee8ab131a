"""The client's addresses and refusals, against a real small HTTP server. Jobs themselves are tested on a cluster."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from cluster.client import _reason, dashboard_url, probe
from cluster.config import ClusterConfig
from cluster.errors import ClusterError


@dataclass
class Server:
    url: str
    status: int = 200
    body: str = json.dumps({"ray_version": "2.60.0"})
    token: str | None = None
    sent: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.headers.get("Authorization")
            state.sent.append(sent)
            status = state.status
            if state.token is not None:
                status = 401 if sent is None else 200 if sent == f"Bearer {state.token}" else 403
            self.send_response(status)
            self.end_headers()
            self.wfile.write(state.body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        state = Server(f"http://127.0.0.1:{http_server.server_port}")
        thread = threading.Thread(target=http_server.serve_forever, daemon=True)
        thread.start()
        yield state
        http_server.shutdown()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EAGLERAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("head:8265", "http://head:8265"),
        ("head", "http://head:8265"),
        ("10.0.0.1:80", "http://10.0.0.1:80"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example.org/team/", "https://ray.example.org/team"),
        (None, "http://127.0.0.1:8265"),
    ],
)
def test_addresses_in_every_form_a_user_has(given: str | None, url: str) -> None:
    assert dashboard_url(given) == url


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("ray://head:10001", "jobs go to the dashboard: http://head:8265"),
        ("s3://bucket", "unknown scheme 's3'; allowed: host:port"),
        ("head:notaport", "the port is not a number"),
        ("http://", "no host"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_with_what_is_allowed(given: str, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        dashboard_url(given)


def test_the_environment_gives_the_address_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://rays:1")
    assert dashboard_url(None) == "http://rays:1"
    monkeypatch.setenv("EAGLERAY_ADDRESS", "ours:2")
    assert dashboard_url(None) == "http://ours:2"


def test_the_token_is_sent_only_to_a_cluster_that_asks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_TOKEN", "secret")
    assert probe(server.url) == ({"ray_version": "2.60.0"}, None)
    assert server.sent == [None]
    server.token = "secret"
    _, token = probe(server.url)
    assert token is not None
    assert server.sent == [None, None, "Bearer secret"]


def test_a_refused_token_is_named_by_origin_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "right"
    monkeypatch.setenv("EAGLERAY_TOKEN", "very-wrong")
    with pytest.raises(ClusterError, match="refuses the token from the environment variable EAGLERAY_TOKEN") as caught:
        probe(server.url)
    assert "very-wrong" not in str(caught.value)


def test_another_web_server_is_told_from_ray(server: Server) -> None:
    server.body = "<html>"
    with pytest.raises(ClusterError, match="it is not a Ray dashboard"):
        probe(server.url)
    server.status = 404
    with pytest.raises(ClusterError, match=r"HTTP 404.*not a Ray dashboard"):
        probe(server.url)


def test_nothing_there_is_one_sentence() -> None:
    with pytest.raises(ClusterError, match="nothing answers"):
        probe("http://127.0.0.1:1")


def test_a_server_side_traceback_becomes_its_last_line() -> None:
    assert (
        _reason(
            "Request failed with status code 500: Traceback (most recent call last):\n  x\nRuntimeError: disk full\n."
        )
        == "RuntimeError: disk full"
    )
    assert _reason("plain") == "plain"


@pytest.mark.parametrize(
    "address", ["auto", "head:6379", "10.0.0.1:6379", "[::1]:6379", "http://head:8265", "https://head"]
)
def test_the_spec_takes_addresses_to_join_and_dashboards(address: str) -> None:
    assert ClusterConfig(address=address).address == address


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "local", "", "s3://x", "head:6379/x"])
def test_the_spec_refuses_other_addresses(address: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: auto, host:port, or a dashboard's http://host:8265"):
        ClusterConfig(address=address)
