"""`eagleray schema`: prints the JSON schema of a spec file. Point an editor's YAML plug-in at it."""

from __future__ import annotations

import json

from jobs.spec import schema


def run() -> None:
    print(json.dumps(schema(), indent=2))
