"""FastAPI over a transformers pipeline in one process, as the usual tutorial has it: `fastapi_transformers.py FOLDER PORT`."""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    import uvicorn
    from fastapi import Body, FastAPI
    from transformers import pipeline

    classifier = pipeline("text-classification", model=sys.argv[1], top_k=None)
    app = FastAPI()

    @app.get("/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/classify")
    def classify(
        text: str = Body(embed=True),
    ) -> dict[str, float]:  # a plain `def`: FastAPI runs it in a pool of threads
        found: Any = classifier([text], truncation=True, max_length=128)
        return {item["label"]: item["score"] for item in found[0]}

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
