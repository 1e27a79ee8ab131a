"""`eagleray promote`: moves a live endpoint to another registered version, then sets the alias `champion`. Runs beside the
process that serves: it joins the Ray that the endpoint's record names."""

from __future__ import annotations

import socket

from cluster.local import session
from jobs.locate import locate
from jobs.spec import JobSpec
from orchestration.errors import UserError
from orchestration.registry import Registry
from orchestration.serving import record
from orchestration.storage import Storage

ALIAS = "champion"


def run(spec: JobSpec, *, version: int) -> None:
    """Raises UserError where nothing is served, or the version is refused: then the old one goes on and keeps the alias."""
    storage = Storage(spec.storage)
    registry = Registry(storage, spec.tracking)
    found = locate(str(version), name=spec.name, storage=storage, registry=registry)
    endpoint = record.find(storage, spec.name)
    _check_alive(endpoint)
    with session(spec.cluster.model_copy(update={"address": endpoint.address})):
        from orchestration.serving import app

        done = app.promote(
            name=spec.name,
            storage=storage,
            package_rel=found.package_rel,
            version=version,
            config=spec.serve,
            say=lambda line: print(line, flush=True),
        )
    registry.set_alias(spec.name, ALIAS, version)
    seconds = ", ".join(f"{part} {value:.1f} s" for part, value in done.seconds.items())
    print(f"{spec.name} at {endpoint.url} is version {version} now ({seconds}); alias {ALIAS} set", flush=True)


def _check_alive(endpoint: record.Endpoint) -> None:
    """A record outlives a killed `serve`; Ray would look for it for a minute before saying so."""
    host, _, port = endpoint.address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"endpoint {endpoint.name!r} is recorded at Ray {endpoint.address}, which does not answer ({error}); start it"
            " again with `eagleray serve`"
        ) from None
