"""What W&B keeps of a run that is offline, read back."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32768, 7  # of LevelDB's log format, in which W&B keeps records; W&B's own seven bytes come first
WHOLE, LAST = 1, 4  # a record in one piece, and the last piece of one
WRITTEN_S = 30.0


def records(file: Path) -> list[Any]:
    """Everything that W&B would upload of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, found, parts = file.read_bytes(), HEAD, [], b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:  # the rest of a block is too short for a head
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEAD])
        if at + HEAD + size > len(data):  # still being written
            break
        parts += data[at + HEAD : at + HEAD + size]
        at += HEAD + size
        if kind in (WHOLE, LAST):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def told(folder: Path) -> list[dict[str, Any]]:
    """Rows of all files of a run that has ended, without W&B's own."""
    rows = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in _whole(file):
            items = {(one.key or "/".join(one.nested_key)): json.loads(one.value_json) for one in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return [row for row in rows if row]


def _whole(file: Path) -> list[Any]:
    """With the record of its end, which is the last: W&B's process may still hold it when the run is finished here."""
    until = time.monotonic() + WRITTEN_S
    while True:
        found = records(file)
        if any(record.WhichOneof("record_type") == "exit" for record in found) or time.monotonic() > until:
            return found
        time.sleep(0.1)
