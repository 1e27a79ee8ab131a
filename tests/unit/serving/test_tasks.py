"""The HTTP face of each task: its one route, its options, its refusals. The applications are scripted, or a real package's answers
without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.config import CAPTIONED, COMPARED
from orchestration import package as packages
from orchestration.answers.facts import example, facts
from orchestration.answers.kinds import KINDS
from orchestration.errors import UserError
from orchestration.serving.body import Limits
from orchestration.serving.http import build_app
from orchestration.serving.router import ReplicaDied, Router
from orchestration.storage import Storage
from tests.packages import HEADS, TAGS, task_package

LIMITS = Limits(max_body_bytes=2000, max_texts=4, timeout_s=20.0)
FACTS = {
    "spans": {"pair": True},
    "sentence_order": {"pair": True},
    "next_sentence": {"pair": True},
    "masked_lm": {"mask_token": "<mask>"},
    "causal_lm": {"max_new_tokens": 100},
    "seq2seq": {"max_new_tokens": 100},
}


class Scripted:
    """An application that tells what it was asked, after its script of failures."""

    def __init__(self, script: Sequence[Exception] = ()) -> None:
        self.script, self.calls = list(script), list[tuple[list[str], dict[str, Any]]]()

    async def ask(self, texts: Sequence[str], options: Mapping[str, Any]) -> Any:
        self.calls.append((list(texts), dict(options)))
        if self.script:
            raise self.script.pop(0)
        return [{"asked": text} for text in texts]

    async def ping(self) -> Any:
        return None


def route(task: str, known: Mapping[str, Any], labels: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "application": "v1",
        "weight": 1.0,
        "task": task,
        "labels": list(labels),
        "package": "packages/a",
        "lineage": {},
        "facts": dict(known),
    }


def routed(task: str, backend: Scripted, known: Mapping[str, Any] | None = None, labels: Sequence[str] = ()) -> Router:
    router = Router("demo", task=task, connect=lambda name: backend, max_queue=8)
    router.update({"1": route(task, FACTS.get(task, {}) if known is None else known, labels)})
    return router


def asked(router: Router, method: str, path: str, body: Any = None) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_app(router, LIMITS), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=None if body is None else json.dumps(body))

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("task", "body", "field", "words"),
    [
        ("masked_lm", {"text": "no mask"}, "text", "text has no mask; write <mask>"),
        ("masked_lm", {"texts": ["a <mask>", "none"]}, "texts[1]", "texts[1] has no mask; write <mask>"),
        ("masked_lm", {"text": "<mask>", "top": 0}, "top", "top is 0; allowed: a whole number from 1 to 1000"),
        ("masked_lm", {"text": "<mask>", "top": "5"}, "top", "top is a string; allowed: a whole number"),
        ("masked_lm", {"text": "<mask>", "logits": True}, "logits", "allowed: text, texts, top"),
        ("causal_lm", {"text": "a", "max_new_tokens": 101}, "max_new_tokens", "at most 100"),
        ("causal_lm", {"text": "a", "temperature": -0.1}, "temperature", "allowed: a number from 0 to 10"),
        ("causal_lm", {"text": "a", "temperature": None}, "temperature", "temperature is null"),
        ("causal_lm", {"text": "a", "top_p": 1.5}, "top_p", "top_p is 1.5"),
        ("causal_lm", {"text": "a", "sequences": 2}, "sequences", "set temperature above 0"),
        ("causal_lm", {"texts": ["a"] * 3, "sequences": 2, "temperature": 1}, "sequences", "above max_texts=4"),
        ("causal_lm", {"text": "a", "stop": [7]}, "stop", "allowed: up to 8 strings"),
        ("causal_lm", {"text": "a", "seed": 0.5}, "seed", "allowed: a whole number"),
        ("causal_lm", {"text": " "}, "text", "text is empty"),
        ("seq2seq", {"text": "a", "max_new_tokens": 101}, "max_new_tokens", "at most 100"),
        ("regression", {"text": "a", "top": 1}, "top", "allowed: text, texts"),
        ("tagging", {"texts": ["a"] * 5}, "texts", "max_texts=4"),
        ("classification", {"text": "a", "pair": "b"}, "pair", "this model reads one text; leave it out"),
        ("classification", {"text": "a", "pairs": ["b"]}, "pairs", "beside 'text' send 'pair'"),
        ("tagging", {"text": "a", "pair": "b"}, "pair", "allowed: text, texts"),
        ("spans", {"question": "a"}, "context", "this model reads two texts at once"),
        ("spans", {"text": "a", "context": "b"}, "text", "allowed: question, questions, context, contexts"),
        ("spans", {"questions": ["a", "b"], "contexts": ["c"]}, "contexts", "has 1 items, questions has 2"),
        ("spans", {"questions": ["a"], "contexts": [" "]}, "contexts[0]", "contexts[0] is empty"),
        ("spans", {"question": "a", "context": "b", "max_answer_tokens": 0}, "max_answer_tokens", "from 1 to 1000"),
    ],
)
def test_a_wrong_body_is_refused_with_the_field_and_what_is_allowed(
    task: str, body: Any, field: str, words: str
) -> None:
    application = Scripted()
    response = asked(routed(task, application), "POST", KINDS[task].path, body)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field
    assert words in response.json()["error"]["message"]
    assert application.calls == []


def test_defaults_reach_the_application_and_its_answer_the_caller() -> None:
    application = Scripted()
    response = asked(routed("causal_lm", application), "POST", "/v1/generate", {"text": "a", "seed": 9, "stop": "."})
    assert response.json()["results"] == [{"asked": "a"}]
    assert response.json()["model"] == {"name": "demo", "version": "1"}
    wanted = {
        "max_new_tokens": 64,
        "temperature": 0,
        "top_k": 0,
        "top_p": 1.0,
        "sequences": 1,
        "seed": 9,
        "stop": ["."],
    }
    assert application.calls == [(["a"], wanted)]


def test_a_request_whose_replica_dies_is_asked_again_with_the_same_seed() -> None:
    application = Scripted([ReplicaDied("gone")])
    body = {"text": "a", "temperature": 1}
    assert asked(routed("causal_lm", application), "POST", "/v1/generate", body).status_code == 200
    assert len({options["seed"] for _, options in application.calls}) == 1
    assert len(application.calls) == 2


@pytest.mark.parametrize("task", list(KINDS))
def test_the_page_describes_the_one_route_of_the_task_and_others_say_which_it_is(task: str) -> None:
    router = routed(task, Scripted())
    paths = asked(router, "GET", "/openapi.json").json()["paths"]
    assert [path for path in paths if "post" in paths[path]] == [KINDS[task].path]
    described = paths[KINDS[task].path]["post"]
    assert {"200", "401", "413", "422", "503", "504"} <= set(described["responses"])
    body = described["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(body) == set(KINDS[task].names)
    other = next(kind for kind in KINDS.values() if kind.path != KINDS[task].path)
    response = asked(router, "POST", other.path, {"text": "a"})
    assert response.status_code == 404
    assert KINDS[task].path in response.json()["error"]["message"]
    assert asked(router, "GET", "/v1/models").json()["models"][0]["task"] == task


def test_a_version_of_another_task_never_gets_traffic() -> None:
    from orchestration.serving.app import _check_task

    router = routed("masked_lm", Scripted())
    with pytest.raises(ValueError, match="answers for masked_lm; version 2"):
        router.update({"1": route("masked_lm", {}), "2": route("causal_lm", {})})
    assert [model["version"] for model in router.models()] == ["1"]
    with pytest.raises(UserError, match=r"answers for masked_lm at /v1/fill, and version 2 was trained for causal_lm"):
        _check_task("demo", "masked_lm", "2", "causal_lm")


@pytest.mark.parametrize(
    "task", [task for task in KINDS if task not in (*COMPARED, *CAPTIONED)]
)  # these read pictures too
def test_a_package_s_own_example_is_answered_as_the_page_says(
    task: str, minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    folder = storage.fetch(task_package(task, minilm, storage))
    kind, text = example(folder)
    labels = {"classification": ["negative", "positive"], "tagging": TAGS, "heads": HEADS}.get(task, [])
    router = routed(task, replica(storage, folder), facts(folder, 32), labels)
    options = {"max_new_tokens": 4} if KINDS[task].path == "/v1/generate" else {}
    response = asked(router, "POST", kind.path, {**kind.body([text]), **options})
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert set(result) <= set(kind.result)
    assert result["truncated"] is False
    assert result == packages.load(folder).answer([text], **options)[0]


def replica(storage: Storage, folder: Path) -> Any:
    """What Ray would start, without Ray."""
    from orchestration.serving.replicas import Version

    return Version(storage.url, f"packages/{folder.name}", 16, 0.005, 60.0)


def test_requests_with_options_of_their_own_share_a_pass_of_a_replica_and_get_what_they_would_alone(
    minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    folder = storage.fetch(task_package("causal_lm", minilm, storage))
    version, opened = replica(storage, folder), packages.load(folder)
    requests: list[tuple[list[str], dict[str, Any]]] = [
        (["A quiet"], {"max_new_tokens": 9}),
        (["The food was cold and the", "So"], {"max_new_tokens": 3, "temperature": 1.0, "seed": 4, "sequences": 2}),
        (["We waited"], {"max_new_tokens": 6, "temperature": 0.7, "top_k": 30, "seed": 4}),
    ]
    read = KINDS["causal_lm"].read
    passes: list[int] = []
    plain = version._answers._pass
    version._answers._pass = lambda items: (passes.append(len(items)), plain(items))[1]

    async def main() -> Any:
        asking = [version.ask(texts, {**read(options), "seed": options.get("seed", 0)}) for texts, options in requests]
        logits = version.logits(["a text"])
        return await asyncio.gather(*asking, logits)

    *found, logits_NC = asyncio.run(main())
    assert found == [opened.answer(texts, **options) for texts, options in requests]
    assert passes == [6]
    assert logits_NC == pytest.approx(opened.logits(["a text"]), abs=1e-5)
