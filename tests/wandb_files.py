"""What W&B keeps of a run that is offline, read back."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32768, 7  # of LevelDB's log format, in which W&B keeps records; W&B's own seven bytes come first
WHOLE, LAST = 1, 4  # a record in one piece, and the last piece of one


def records(file: Path) -> list[Any]:
    """Everything that W&B would upload of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, found, parts = file.read_bytes(), HEAD, [], b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:  # the rest of a block is too short for a head
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEAD])
        parts += data[at + HEAD : at + HEAD + size]
        at += HEAD + size
        if kind in (WHOLE, LAST):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def told(folder: Path) -> list[dict[str, Any]]:
    """Rows of all files of a run, without W&B's own."""
    rows = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records(file):
            items = {(one.key or "/".join(one.nested_key)): json.loads(one.value_json) for one in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return [row for row in rows if row]
