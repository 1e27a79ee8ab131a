"""`eagleray schema`: prints the JSON schema of a spec file. Point an editor's YAML plug-in at it."""

from __future__ import annotations

import json
from typing import Any

from jobs.spec import JobSpec


def schema() -> dict[str, Any]:
    """JSON schema of a spec file, for editors."""
    result = JobSpec.model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    result["title"] = "eagleray job spec"
    said = "Another spec file; this one says only what differs."
    result["properties"]["base"] = {"type": "string", "description": said}
    return result


def run() -> None:
    print(json.dumps(schema(), indent=2))
