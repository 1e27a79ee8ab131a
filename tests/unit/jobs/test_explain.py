"""Every link of a model's chain, from a package folder, a spec and an endpoint that a small HTTP server plays."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import explain
from orchestration.errors import UserError
from orchestration.registry import Registry
from orchestration.storage import Storage

LINEAGE = {
    "name": "films",
    "created": "2026-11-22T05:05:27Z",
    "seed": 17,
    "spec": {"train": {"rows": 200}},
    "run": {
        "id": "films-run-1",
        "checkpoint": "runs/films-run-1/checkpoints/step-00000125",
        "step": 125,
        "steps": 130,
        "metric": "macro_f1",
        "value": 0.78489,
        "workers": 2,
        "zero_stage": 1,
        "resumed_from": None,
    },
    "trial": {
        "sweep": "films-sweep-1",
        "id": "0ccc2f8a",
        "values": {"train.optimizer.lr": 0.000117, "train.layers.freeze": 1},
        "metric": "accuracy",
        "value": 0.668,
        "trials": 6,
    },
    "store": {
        "rel": "stores/1f08",
        "address": "1f08f06a38d3",
        "rows": {"train": 20182, "validation": 1000, "test": 2000},
        "inputs": [
            {"source": "hutto", "rel": "rows.parquet", "records": 23703, "bytes": 1253899, "sha256": "2db31450bc5f"}
        ],
    },
    "weights": {"rel": "weights/0816", "path": "catalog:minilm"},
    "licences": {"minilm": "Apache-2.0"},
    "code": {"eagleray": "0.1.0", "sha256": "a45d7efc5242", "commit": "a0c1f26ad33b"},
    "libraries": {"ray": "2.60.0", "torch": "2.13.0"},
    "python": "3.11.7",
    "platform": "Linux",
}
FACTS = (
    "step 125 of 130   macro_f1 0.7849",
    "runs/films-run-1/checkpoints/step-00000125",
    "films-run-1   2 workers   ZeRO 1",
    "0ccc2f8a   best of 6 by accuracy 0.6680",
    "sweep films-sweep-1",
    "train.optimizer.lr = 0.000117",
    "train.layers.freeze = 1",
    "1f08f06a38d3",
    "train 20,182, validation 1,000, test 2,000; 200 train rows used",
    "hutto   rows.parquet   23,703 records, 1,253,899 bytes",
    "sha256 2db31450bc5f",
    "catalog:minilm",
    "minilm: Apache-2.0",
    "eagleray 0.1.0   commit a0c1f26ad33b",
    "sha256 a45d7efc5242",
    "ray 2.60.0, torch 2.13.0",
    "Python 3.11.7   Linux",
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "lineage.json").write_text(json.dumps(LINEAGE))
    return folder


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Answers `/v1/lineage` with what the test put on the server, and 401 without the wanted token."""

    def do_GET(self) -> None:
        wanted = self.server.token  # type: ignore[attr-defined]
        allowed = wanted is None or self.headers.get("Authorization") == f"Bearer {wanted}"
        found = self.path == "/v1/lineage"
        self.send_response(200 if allowed and found else 404 if allowed else 401)
        self.end_headers()
        if allowed and found:
            self.wfile.write(self.server.answer)  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv(explain.TOKEN_ENV, raising=False)
    server: Any = http.server.HTTPServer(("127.0.0.1", 0), Endpoint)
    server.token = None
    versions = {"1": {"package": "packages/one", **LINEAGE}, "2": {"package": "packages/two", **LINEAGE, "seed": 18}}
    server.answer = json.dumps({"name": "films", "versions": versions, "request_id": "x"}).encode()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_package_folder_tells_its_whole_chain(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain.run(str(package))
    shown = capsys.readouterr().out
    assert [fact for fact in FACTS if fact not in shown] == []
    assert "not recorded" not in shown
    order = ["package", "checkpoint", "run", "trial", "seed", "store", "inputs", "weights", "licences", "code"]
    links = [line.split()[0] for line in shown.splitlines() if line[:1].islower()]
    assert links == [*order, "libraries", "system"]


def test_json_gives_the_lineage_as_it_was_written(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain.run(str(package), json_lines=True)
    said = json.loads(capsys.readouterr().out)
    assert [one["lineage"] for one in said["models"]] == [LINEAGE]
    assert said["models"][0]["package"] == str(package)


def test_a_model_without_sweep_and_an_old_lineage_say_so(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "lineage.json").write_text(json.dumps({"run": "run-1", "seed": 3, "trial": None}))
    explain.run(str(package))
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert lines["trial"] == "none: the spec's own values, no sweep chose them"
    assert lines["seed"] == "3"
    assert lines["store"] == lines["code"] == lines["run"] == "not recorded"


def test_an_endpoint_tells_each_of_its_versions(endpoint: Any, capsys: pytest.CaptureFixture[str]) -> None:
    explain.run(endpoint.url + "/")
    shown = capsys.readouterr().out
    assert shown.count(f"endpoint    {endpoint.url}\n") == 2
    for fact in (*FACTS, "films version 1", "films version 2", "packages/one", "packages/two", "seed        18"):
        assert fact in shown
    only = explain.origins(f"{endpoint.url}/v1/lineage", model="2")
    assert [(one.version, one.package, one.lineage["seed"]) for one in only] == [("2", "packages/two", 18)]
    with pytest.raises(UserError, match=r"has no version 7; versions: 1, 2"):
        explain.origins(endpoint.url, model="7")


def test_the_endpoints_token_comes_from_the_environment(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.token = "secret"
    with pytest.raises(UserError, match=r"EAGLERAY_SERVE_TOKEN is not set"):
        explain.origins(endpoint.url)
    monkeypatch.setenv("EAGLERAY_SERVE_TOKEN", "wrong")
    with pytest.raises(UserError, match=r"EAGLERAY_SERVE_TOKEN was refused"):
        explain.origins(endpoint.url)
    monkeypatch.setenv("EAGLERAY_SERVE_TOKEN", "secret")
    assert [one.version for one in explain.origins(endpoint.url)] == ["1", "2"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not an endpoint's lineage"),
        (b'{"versions": {"1": 3}}', "not an endpoint's lineage"),
        (b'{"versions": {}}', "no version yet"),
    ],
)
def test_an_answer_that_is_no_lineage_is_refused(endpoint: Any, answer: bytes, told: str) -> None:
    endpoint.answer = answer
    with pytest.raises(UserError, match=told):
        explain.origins(endpoint.url)


def test_a_wrong_address_is_one_sentence(endpoint: Any) -> None:
    with pytest.raises(UserError, match=r"answered 404; is this the URL that serve printed"):
        explain.origins(endpoint.url + "/elsewhere")
    with pytest.raises(UserError, match=r"http://127.0.0.1:1: no answer .* is the endpoint up"):
        explain.origins("http://127.0.0.1:1")


def test_a_folder_without_a_sound_lineage_is_named(package: Path, tmp_path: Path) -> None:
    path = package / "lineage.json"
    for text, told in (("{", "not valid JSON"), ("[]", "no JSON object")):
        path.write_text(text)
        with pytest.raises(UserError, match=told) as caught:
            explain.origins(str(package))
        assert str(path) in str(caught.value)
    path.write_text(json.dumps({**LINEAGE, "store": {"rows": [1, 2]}}))
    with pytest.raises(UserError, match=r"not as export writes it .*--json"):
        explain.run(str(package))
    path.unlink()
    with pytest.raises(UserError, match=r"no lineage.json in it; give a package folder"):
        explain.origins(str(package))
    with pytest.raises(UserError, match=r"neither an endpoint URL .* nor a package folder, nor a spec file"):
        explain.origins(str(tmp_path / "nowhere"))


def test_a_spec_leads_to_its_registered_model(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    registry = Registry(storage)
    for number in (1, 2):
        aside = storage.staging()
        (aside / "lineage.json").write_text(json.dumps({**LINEAGE, "seed": number}))
        storage.commit(f"packages/{number}", aside, {})
        registry.register("films", package_rel=f"packages/{number}")
    registry.set_alias("films", "champion", 1)
    rows, model = tmp_path / "rows.jsonl", tmp_path / "model"
    rows.write_text('{"text": "t", "label": "y"}\n')
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 2}))
    (model / "model.safetensors").write_bytes(b"\0" * 64)
    (model / "tokenizer.json").write_text("{}")
    value = {
        "name": "films",
        "storage": str(tmp_path / "elsewhere"),
        "data": {"sources": [{"name": "a", "path": str(rows), "label": {"column": "label"}}], "labels": ["n", "y"]},
        "model": {"path": str(model)},
    }
    spec = tmp_path / "films.yaml"
    spec.write_text(yaml.safe_dump(value))
    here = [f"storage={storage.url}"]
    champion, second = (explain.origins(str(spec), model=ref, overrides=here)[0] for ref in ("champion", "2"))
    assert (champion.version, champion.lineage["seed"], champion.package) == ("1", 1, storage.path("packages/1"))
    assert (second.version, second.lineage["seed"]) == ("2", 2)
    with pytest.raises(UserError, match=r"no version 3; versions: 1, 2"):
        explain.origins(str(spec), model="3", overrides=here)
