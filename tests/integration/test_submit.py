"""`eagleray submit` and `eagleray job` against a real cluster in other processes, with another HOME and token, in a mount
namespace where the client's inputs cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.client import Client
from cluster.errors import ClusterError
from cluster.runtime_env import runtime_env, stage
from jobs import job as job_verbs
from jobs import submit
from jobs.arrive import MARKER
from jobs.spec import JobSpec, load_spec
from orchestration.errors import SpecError
from orchestration.storage import Storage
from tests.architecture.tree import ROOT
from tests.integration.foreign_cluster import Foreign, cannot_isolate, foreign_cluster

pytestmark = pytest.mark.skipif(cannot_isolate() is not None, reason=cannot_isolate() or "")


@dataclass(frozen=True)
class Place:
    """`client`: a folder the cluster sees empty. `shared`: storage both see. `apart`: a path where the cluster has another storage."""

    cluster: Foreign
    client: Path
    shared: Path
    apart: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("submit")
    client, shared, apart = root / "client", root / "shared", root / "apart"
    for folder in (client, shared, apart):
        folder.mkdir()
    _model_folder(client / "model")
    rows = [
        {"text": f"text number {i} is {'good' if i % 2 else 'bad'}", "label": "yes" if i % 2 else "no"}
        for i in range(40)
    ]
    (client / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with foreign_cluster(root, hidden=[client, apart], num_cpus=4) as cluster:
        yield Place(cluster, client, shared, apart)


@pytest.fixture(autouse=True)
def _token(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_TOKEN", place.cluster.token)


def _model_folder(folder: Path) -> None:
    """What `prepare` reads of a model: its config, its tokenizer and the bytes of its weights."""
    import numpy as np
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "text", "number", "is", "good", "bad"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2, "intermediate_size": 32}))
    save_file({"embeddings": np.zeros((len(words), 16), np.float32)}, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"never shipped")


def _spec(place: Place, **changed: object) -> JobSpec:
    value = {
        "name": "far",
        "storage": str(place.shared),
        "data": {
            "sources": [{"name": "rows", "path": "rows.jsonl", "label": {"column": "label"}}],
            "labels": ["no", "yes"],
            "split": {"validation": 5, "test": 5},
            "tokenize": {"max_length": 32},
        },
        "model": {"path": "model"},
        "train": {"batch": 4},
        **changed,
    }
    (place.client / "spec.yaml").write_text(json.dumps(value), encoding="utf-8")
    return load_spec(place.client / "spec.yaml")


def test_the_cluster_runs_the_verb_on_inputs_that_only_the_client_has(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    code = submit.run(_spec(place), verb="prepare", address=place.cluster.address)
    out, err = capfd.readouterr()
    assert code == 0, out + err
    stores = list((place.shared / "stores").glob("*/manifest.json"))
    assert len(stores) == 1, out
    assert not list((place.shared / "inputs").glob("*/pytorch_model.bin")), "pickled weights were uploaded"

    job = Client(place.cluster.address).list()[-1]
    assert (job.status, job.exit_code, job.metadata["verb"], job.metadata["name"]) == ("SUCCEEDED", 0, "prepare", "far")
    job_verbs.logs(address=place.cluster.address, job_id=job.id)
    assert "Running entrypoint" in capfd.readouterr().out
    job_verbs.list_jobs(address=place.cluster.address)
    assert job.id in capfd.readouterr().out
    job_verbs.status(address=f"http://{place.cluster.address}", job_id=job.id, json_lines=True)
    assert json.loads(capfd.readouterr().out)["status"] == "SUCCEEDED"

    before = sorted((place.shared / "inputs").rglob("*"))
    lines: list[str] = []
    submit.upload(_spec(place), Storage(str(place.shared)), lines.append)
    assert sorted((place.shared / "inputs").rglob("*")) == before
    assert all("in storage already" in line for line in lines), lines


def test_the_exit_code_of_the_job_is_the_commands(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    code = submit.run(_spec(place), verb="train", address=place.cluster.address, arguments=["--set", "train.epochz=3"])
    out, err = capfd.readouterr()
    assert code == 2, out + err
    assert "train.epochs" in out, "the nearest key is in the log"
    assert "exit code 2" in err


def test_a_storage_that_the_cluster_does_not_share_is_refused_by_the_job(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    code = submit.run(_spec(place, storage=str(place.apart)), verb="prepare", address=place.cluster.address)
    out, _ = capfd.readouterr()
    assert code == 1
    assert f"storage {place.apart}: " in out
    assert "must share that folder" in out
    assert "Traceback" not in out


def test_another_storage_at_the_same_path_is_refused(tmp_path: Path) -> None:
    from jobs.arrive import compare, storage_id
    from orchestration.errors import UserError

    storage = Storage(str(tmp_path))
    mark = storage_id(storage)
    compare(storage, mark)
    assert storage_id(storage) == mark, "the id stays"
    (tmp_path / MARKER).unlink()
    storage_id(storage)
    with pytest.raises(UserError, match="sees another storage at that path"):
        compare(storage, mark)


def test_inside_a_job_workers_import_the_shipped_packages_and_a_stopped_verb_can_clean_up(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    """A session in the job joins the cluster, reuses the shipped folder, and Ctrl-C's signal unwinds it."""
    client = Client(place.cluster.address)
    folder, mark = stage({"work.py": WORK})
    env = runtime_env(folder, mark, {**submit.STOP, "SAID": "to every worker", "CLIENT": str(place.client)})
    job_id = client.submit(entrypoint="exec python work.py", runtime_env=env)
    shutil.rmtree(folder)
    seen: list[str] = []

    class Enough(Exception):
        pass

    def write(text: str) -> None:
        seen.append(text)
        if "ready" in "".join(seen):
            raise Enough

    with pytest.raises(Enough):
        client.follow(job_id, write)
    stopped = job_verbs.stop(address=place.cluster.address, job_id=job_id, wait_s=60)
    assert stopped.status == "STOPPED"
    log = client.logs(job_id)
    assert "shipped" in log, log
    assert "to every worker" in log
    assert "of the client's inputs it sees []" in log, (
        "the cluster can read the client's folder: this test would prove nothing"
    )
    assert "cleaned up" in log, log
    assert job_verbs.stop(address=place.cluster.address, job_id=job_id).status == "STOPPED"
    assert "had ended before" in capfd.readouterr().out


WORK = """
import os, time
from cluster.config import ClusterConfig
from cluster.local import session

with session(ClusterConfig()):
    import ray

    @ray.remote
    def where():
        import models
        return os.path.exists(os.path.join(os.path.dirname(models.__file__), "..", ".eagleray-staged")), os.environ["SAID"]

    shipped, said = ray.get(where.remote())
    print("shipped" if shipped else "NOT THE SHIPPED COPY", said, flush=True)
    print("of the client's inputs it sees", os.listdir(os.environ["CLIENT"]), flush=True)
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
"""


def test_a_wrong_token_is_refused_with_its_origin(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_TOKEN", "0" * 64)
    with pytest.raises(ClusterError, match="refuses the token from the environment variable EAGLERAY_TOKEN"):
        Client(place.cluster.address)
    monkeypatch.setenv("MY_TOKEN", place.cluster.token)
    assert Client(place.cluster.address, token_env="MY_TOKEN").ray_version


def test_without_a_token_the_client_says_where_it_looks(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EAGLERAY_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="asks for a token, and none was found; set EAGLERAY_TOKEN"):
        Client(place.cluster.address)


def test_an_address_given_wins_over_rays_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert Client(place.cluster.address).url.endswith(place.cluster.address)


def test_auto_finds_the_dashboard_of_the_cluster_on_this_machine(place: Place) -> None:
    """In a process of its own: Ray reads the token's mode once. RAY_ADDRESS says which, where several run."""
    code = "from cluster.client import dashboard_url; print(dashboard_url('auto'))"
    env = {**os.environ, "EAGLERAY_TOKEN": place.cluster.token, "RAY_ADDRESS": place.cluster.gcs}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env, cwd=ROOT)
    assert done.stdout.strip() == f"http://{place.cluster.address}", done.stderr


def test_rays_own_port_is_told_from_the_dashboards(place: Place) -> None:
    with pytest.raises(ClusterError, match="jobs go to the dashboard's"):
        Client(place.cluster.gcs)
    with pytest.raises(ClusterError, match="no TLS there"):
        Client(f"https://{place.cluster.address}")


def test_an_unknown_id_names_the_known_ones(place: Place) -> None:
    known = Client(place.cluster.address).list()[-1].id
    with pytest.raises(ClusterError, match=f"no job 'nope' .* known: .*{known}"):
        job_verbs.status(address=place.cluster.address, job_id="nope")


def test_an_unknown_verb_is_refused_before_anything_is_sent(place: Place) -> None:
    with pytest.raises(SpecError, match="nearest: prepare"):
        submit.run(_spec(place), verb="prepar", address="127.0.0.1:1")


def test_the_command_line_lists_jobs_of_a_foreign_cluster(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "job", "list", "--address", place.cluster.address, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "EAGLERAY_TOKEN": place.cluster.token},
    )
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["status"] for line in done.stdout.splitlines()} >= {"SUCCEEDED", "FAILED", "STOPPED"}
