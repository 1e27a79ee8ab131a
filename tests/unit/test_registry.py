from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestration.errors import UserError
from orchestration.registry import Registry, flatten
from orchestration.storage import Storage


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One MLflow SQLite for the file: making it takes 2 s."""
    return Registry(Storage(str(tmp_path_factory.mktemp("registry"))))


def test_an_object_store_without_a_tracking_server_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"memory://bucket is an object store.*set tracking:"):
        Registry(Storage("memory://bucket"))


def test_making_a_registry_touches_nothing_until_it_is_used(tmp_path: Path) -> None:
    Registry(Storage(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_warm_makes_the_database_in_the_background_and_returns_at_once(tmp_path: Path) -> None:
    registry = Registry(Storage(str(tmp_path)))
    started = time.monotonic()
    registry.warm()
    assert time.monotonic() - started < 0.5
    with pytest.raises(UserError, match="none yet"):
        registry.versions("anything")  # waits for the background work, does not repeat it
    assert (tmp_path / "registry" / "mlflow.db").is_file()


def test_a_run_keeps_its_parameters_metrics_by_step_and_status(registry: Registry) -> None:
    run_id = registry.start_run("first", params={"train": {"lr": 1e-3, "rows": None}, "seed": 7}, tags={"kind": "fit"})
    for step in (1, 2, 3):
        registry.log(run_id, {"loss": 1.0 / step, "accuracy": None}, step=step)
    registry.finish(run_id, "FINISHED")

    run = registry._client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.lr": "0.001", "train.rows": "None", "seed": "7"}
    assert run.data.tags["kind"] == "fit"
    assert [(m.step, m.value) for m in registry._client.get_metric_history(run_id, "loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
    ]
    assert "accuracy" not in run.data.metrics


def test_more_parameters_than_one_request_takes_are_all_kept(registry: Registry) -> None:
    run_id = registry.start_run("wide", params={f"p{i}": i for i in range(250)})
    assert len(registry._client.get_run(run_id).data.params) == 250


def test_versions_count_up_and_an_alias_moves_from_one_to_the_next(registry: Registry) -> None:
    run_id = registry.start_run("trained")
    first = registry.register("sentiment", package_rel="packages/aaa", run_id=run_id, tags={"accuracy": "0.81"})
    second = registry.register("sentiment", package_rel="packages/bbb", run_id=run_id)
    assert (first.version, second.version) == (1, 2)

    registry.set_alias("sentiment", "champion", 1)
    assert registry.get("sentiment", "champion").package_rel == "packages/aaa"
    registry.set_alias("sentiment", "champion", 2)
    champion = registry.get("sentiment", "champion")
    assert (champion.version, champion.package_rel, champion.run_id) == (2, "packages/bbb", run_id)
    assert champion.storage_url == registry.storage.url

    listed = registry.versions("sentiment")
    assert [(v.version, v.aliases) for v in listed] == [(1, ()), (2, ("champion",))]
    assert listed[0].tags == {"accuracy": "0.81"}
    assert registry.get("sentiment", "1") == listed[0]


def test_an_unknown_model_version_or_alias_is_answered_with_what_exists(registry: Registry) -> None:
    registry.register("known", package_rel="packages/ccc")
    registry.set_alias("known", "champion", 1)
    with pytest.raises(UserError, match=r"no model 'unknown' is registered.*known"):
        registry.get("unknown", "champion")
    with pytest.raises(UserError, match=r"model 'known' has no version 9; versions: 1"):
        registry.get("known", 9)
    with pytest.raises(UserError, match=r"model 'known' has no alias 'challenger'; aliases: champion \(version 1\)"):
        registry.get("known", "challenger")
    with pytest.raises(UserError, match="no version 5"):
        registry.set_alias("known", "champion", 5)


def test_a_second_registry_on_the_same_storage_sees_the_same_versions(registry: Registry) -> None:
    registry.register("shared", package_rel="packages/ddd")
    assert Registry(Storage(registry.storage.url)).get("shared", 1).package_rel == "packages/ddd"


def test_a_tracking_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"tracking http://127.0.0.1:9: cannot connect"):
        Registry(Storage(str(tmp_path)), tracking="http://127.0.0.1:9").versions("sentiment")


def test_a_registry_error_is_a_sentence_and_not_a_traceback(registry: Registry) -> None:
    with pytest.raises(UserError, match=r"cannot finish run 0123.*"):
        registry.finish("0123")


def test_nested_values_become_dotted_names_and_lists_stay_whole() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "a.c": {}, "d": [1, 2]}
