"""Where a served endpoint lives: `endpoints/<name>.json` in storage. Written by `app.py` after each change, read by
`promote` and `explain` before any Ray is joined, so it imports none. Holds no secret."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orchestration.errors import UserError
from orchestration.storage import Storage


@dataclass(frozen=True)
class Endpoint:
    """A live endpoint. `address`: the Ray cluster it lives in; `versions`: version -> {application, weight, package}."""

    name: str
    url: str
    address: str
    versions: dict[str, dict[str, Any]]


def rel(name: str) -> str:
    return f"endpoints/{name}.json"


def write(storage: Storage, endpoint: Endpoint) -> None:
    storage.write_json(rel(endpoint.name), asdict(endpoint))


def find(storage: Storage, name: str) -> Endpoint:
    """Raises UserError where no such endpoint is served from this storage."""
    try:
        return Endpoint(**storage.read_json(rel(name)))
    except FileNotFoundError:
        raise UserError(
            f"endpoint {name!r} is not served: {storage.path(rel(name))} does not exist; start it with `eagleray serve`"
        ) from None


def forget(storage: Storage, name: str) -> None:
    storage.remove(rel(name))
