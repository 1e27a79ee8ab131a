"""A plain Ray Serve deployment with `@serve.batch`, as Ray's manual has it, one replica, with the batch size and wait of ours:
`ray_serve_batch.py FOLDER PORT`. Ends at SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any


def main() -> None:
    import ray
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
    class Classifier:
        def __init__(self, folder: str) -> None:
            from transformers import pipeline

            self.classifier = pipeline("text-classification", model=folder, top_k=None)

        @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
        async def classify(self, texts: list[str]) -> list[dict[str, float]]:
            found: Any = self.classifier(texts, batch_size=len(texts), truncation=True, max_length=128)
            return [{item["label"]: item["score"] for item in row} for row in found]

        async def __call__(self, request: Request) -> Any:
            if request.url.path == "/ready":
                return {"ready": True}
            return await self.classify((await request.json())["text"])

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ray.init(address="local", num_cpus=4, include_dashboard=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config={"enable_access_log": False}
    )
    serve.run(Classifier.bind(sys.argv[1]), logging_config={"enable_access_log": False})  # type: ignore[attr-defined]
    ended.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
