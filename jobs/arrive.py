"""The first act of a submitted job, on the cluster: is the storage that the spec names the one the client wrote to? Started by
the job's entrypoint as `python -m jobs.arrive`, inside the shipped folder, before the verb; a wrong storage ends the job with
one sentence instead of an hour later with a missing file."""

from __future__ import annotations

import json
import os
import sys
import uuid
from pathlib import Path

from orchestration.errors import UserError
from orchestration.storage import Storage

MARKER = ".eagleray-root"  # holds a random id: two storages at the same path on two machines differ in it
VARIABLE = "EAGLERAY_STORAGE_ID"
SPEC = "resolved.json"


def storage_id(storage: Storage) -> str:
    """The id of this storage; written on first use."""
    if not storage.exists(MARKER):
        storage.write_json(MARKER, {"id": uuid.uuid4().hex})
    return str(storage.read_json(MARKER)["id"])


def compare(storage: Storage, wanted: str) -> None:
    """Raises UserError where `storage`, as seen from here, is not the one with the id `wanted`."""
    where = f"{os.uname().nodename} (a machine of the cluster)"
    try:
        found = str(storage.read_json(MARKER)["id"])
    except FileNotFoundError:
        raise UserError(
            f"storage {storage.url}: {where} does not see it; the cluster must share that folder with the client (NFS or the like) at the same path,"
            " or set storage: to an object store that both reach"
        ) from None
    if found != wanted:
        raise UserError(
            f"storage {storage.url}: {where} sees another storage at that path (id {found[:8]}, the client wrote to {wanted[:8]}); the cluster must share"
            " the client's folder at the same path, or set storage: to an object store that both reach"
        )


def main() -> int:
    spec = json.loads(Path(SPEC).read_text(encoding="utf-8"))
    try:
        compare(Storage(spec["storage"]), os.environ[VARIABLE])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
