"""Runs, model versions and aliases, in MLflow. Takes a storage and, where the spec names one, a tracking URI; gives
runs to log to and versions of model packages to look up. By default MLflow keeps SQLite at `registry/mlflow.db`
under the storage. Only the driver writes here; workers report to it. A version *points* to a package in storage:
nothing is copied into MLflow's own artifacts. Knows nothing of training or serving.

MLflow takes 2 s to import and 2 s to make a new SQLite file, so nothing happens before the first call, and `warm()`
does both beside other work."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage

DATABASE = "registry/mlflow.db"
PACKAGE_TAG, STORAGE_TAG = "eagleray.package", "eagleray.storage"
MAX_PARAM_CHARS = 6000  # MLflow refuses longer values
BATCH = 100  # MLflow's limit of params in one request

# Read by MLflow when it is imported. Telemetry to the outside is off; a server that does not answer is named after
# seconds, not after the seven retries (minutes) that are MLflow's default.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is ours, JSON lines with --json
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclass(frozen=True)
class ModelVersion:
    """One registered package. `package_rel` lies in the storage `storage_url`; `run_id` is MLflow's."""

    name: str
    version: int
    package_rel: str
    run_id: str | None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    storage_url: str = ""


class RegistryError(UserError):
    """The tracking server or database did not do what was asked."""


class Registry:
    """`Registry(storage, tracking=None)`. Raises UserError at once for a remote storage without a tracking URI."""

    def __init__(self, storage: Storage, tracking: str | None = None) -> None:
        if tracking is None and not storage.is_local:
            raise UserError(
                f"storage: {storage.url} is an object store, where SQLite cannot live; set tracking: to an MLflow"
                " server or database, e.g. http://mlflow.internal:5000 or postgresql://..."
            )
        self.storage = storage
        self.uri = tracking or f"sqlite:///{storage.path(DATABASE)}"
        self._made: Any = None
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start the import and the making of the database in the background. An error shows at the first real call."""
        threading.Thread(target=self._warm, name="mlflow-warm", daemon=True).start()

    def _warm(self) -> None:
        with contextlib.suppress(Exception):  # the caller's own first call meets the same error and tells it
            _ = self._client

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def _connect(self) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self.uri.startswith("sqlite:///") and self.storage.is_local:
            os.makedirs(self.storage.path("registry"), exist_ok=True)
        from mlflow.tracking import MlflowClient

        with self._told("connect"):
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            client.search_registered_models(
                max_results=1
            )  # opens the database or asks the server: fails here, not mid-run
        return client

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """MLflow's and the database's errors as one sentence that names the tracking URI."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RegistryError(f"tracking {self.uri}: cannot {doing}: {text[:400]}") from error

    # ------------------------------------------------------------------------------------------- runs

    def start_run(
        self,
        name: str,
        *,
        params: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
        experiment: str = "eagleray",
    ) -> str:
        """A new MLflow run, status RUNNING; gives its id. Nested params become dotted names."""
        from mlflow.entities import Param

        client = self._client
        with self._told(f"start run {name!r}"):
            run_id = client.create_run(self._experiment(experiment), run_name=name, tags=tags or {}).info.run_id
            flat = [Param(key, str(value)[:MAX_PARAM_CHARS]) for key, value in flatten(params or {}).items()]
            for start in range(0, len(flat), BATCH):
                client.log_batch(run_id, params=flat[start : start + BATCH])
        return run_id

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        # With SQLite, artifacts that other tools log stay under our root; a server chooses its own place.
        place = (
            self.storage.path("registry/artifacts")
            if self.uri.startswith("sqlite:") and self.storage.is_local
            else None
        )
        return self._client.create_experiment(name, artifact_location=place)

    def log(self, run_id: str, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Metrics of one step in one request (6 ms with SQLite). Absent values (None) are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(key, float(value), now, step) for key, value in metrics.items() if value is not None]
        client = self._client
        with self._told(f"log metrics of run {run_id}"):
            client.log_batch(run_id, metrics=values)

    def tag(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags of a run."""
        from mlflow.entities import RunTag

        client = self._client
        with self._told(f"tag run {run_id}"):
            client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def finish(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        client = self._client
        with self._told(f"finish run {run_id}"):
            client.set_terminated(run_id, status=status)

    # ------------------------------------------------------------------------------------------- model versions

    def register(
        self, model_name: str, *, package_rel: str, run_id: str | None = None, tags: dict[str, str] | None = None
    ) -> ModelVersion:
        """The next version of a model, pointing to a package. Numbers start at 1 and are never given twice."""
        client = self._client
        everything = {**(tags or {}), PACKAGE_TAG: package_rel, STORAGE_TAG: self.storage.url}
        with self._told(f"register model {model_name!r}"):
            if not any(found.name == model_name for found in client.search_registered_models(f"name = '{model_name}'")):
                client.create_registered_model(model_name)
            made = client.create_model_version(
                model_name, source=self._source(package_rel), run_id=run_id, tags=everything, await_creation_for=0
            )
        return _version(made)

    def _source(self, package_rel: str) -> str:
        """A server refuses local paths outside its own artifacts; tags hold the place in any case."""
        remote_server = self.uri.startswith(("http://", "https://"))
        return (
            f"eagleray:///{package_rel}" if remote_server and self.storage.is_local else self.storage.path(package_rel)
        )

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias such as `champion` to a version. Raises UserError for an unknown one."""
        self.get(name, version)
        client = self._client
        with self._told(f"set alias {alias!r} of {name!r}"):
            client.set_registered_model_alias(name, alias, str(version))

    def get(self, name: str, which: int | str) -> ModelVersion:
        """A version by number (`3`, `"3"`) or alias. Raises UserError naming what exists."""
        versions = {found.version: found for found in self.versions(name)}
        if str(which).isdigit():
            if int(which) in versions:
                return versions[int(which)]
            raise UserError(f"model {name!r} has no version {which}; versions: {', '.join(map(str, sorted(versions)))}")
        aliases = {alias: found for found in versions.values() for alias in found.aliases}
        if str(which) in aliases:
            return aliases[str(which)]
        numbers = ", ".join(map(str, sorted(versions)))
        shown = ", ".join(f"{alias} (version {found.version})" for alias, found in sorted(aliases.items())) or "none"
        raise UserError(f"model {name!r} has no alias {which!r}; aliases: {shown}; versions: {numbers}")

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first. Raises UserError for an unknown model, naming those that exist."""
        client = self._client
        with self._told(f"list versions of {name!r}"):
            models = {found.name: found for found in client.search_registered_models(max_results=1000)}
            if name in models:
                found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
        if name not in models:
            raise UserError(
                f"no model {name!r} is registered at {self.uri}; models: {', '.join(sorted(models)) or 'none yet'}"
            )
        alias_of: dict[int, list[str]] = {}
        for alias, version in models[name].aliases.items():
            alias_of.setdefault(int(version), []).append(alias)
        return sorted(
            (_version(item, tuple(sorted(alias_of.get(int(item.version), [])))) for item in found),
            key=lambda item: item.version,
        )


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _version(found: Any, aliases: tuple[str, ...] = ()) -> ModelVersion:
    tags = dict(found.tags)
    package = tags.pop(PACKAGE_TAG, None) or found.source
    return ModelVersion(
        found.name, int(found.version), package, found.run_id or None, tags, aliases, tags.pop(STORAGE_TAG, "")
    )
