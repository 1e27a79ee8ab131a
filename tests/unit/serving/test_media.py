"""Requests with pictures: what is read of a body, and what is refused before anything is decoded."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from orchestration.answers.kinds import KINDS, Unanswerable
from orchestration.serving.body import Limits, Refused, parse
from orchestration.serving.router import Router
from tests.unit.serving.test_tasks import Scripted, asked, route

LIMITS = Limits(max_body_bytes=2000, max_texts=3, timeout_s=20.0)
KIND = KINDS["classification"]
DATA = base64.b64encode(b"bytes of a file").decode()


def _parse(body: Any, *reads: str) -> Any:
    import json

    return parse(json.dumps(body).encode(), KIND, LIMITS, reads)


def test_base64_data_urls_and_lists_of_rows_are_read() -> None:
    assert _parse({"image": DATA}, "image").texts == [{"image": b"bytes of a file"}]
    assert _parse({"image": f"data:image/png;base64,{DATA[:8]}\n{DATA[8:]}"}, "image").texts == [
        {"image": b"bytes of a file"}
    ]
    both = _parse({"rows": [{"image": DATA, "text": "a cat"}, {"text": "a dog", "image": None}]}, "text", "image")
    assert both.texts == [{"image": b"bytes of a file", "text": "a cat"}, {"text": "a dog"}]
    assert both.listed
    assert _parse({"series": [[1, 2.5]], "logits": True}, "series").options == {"logits": True}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "image", "send 'image', or 'rows'"),
        ({"text": "a cat"}, "text", "unknown field 'text'; allowed: image, rows, logits; this endpoint reads image"),
        ({"image": 7}, "image", "image is a number; send a file in base64, or a data URL"),
        ({"image": " "}, "image", "image is empty"),
        ({"image": "not base64!"}, "image", "image is not base64"),
        ({"image": "https://a.b/c.png"}, "image", "image is an address, and nothing is fetched"),
        ({"image": "data:image/png,abc"}, "image", "data URL without base64"),
        ({"rows": [{"image": DATA}, {"image": "?"}]}, "rows[1].image", "rows[1].image is not base64"),
        ({"rows": [{"image": DATA}, {}]}, "rows[1].image", "rows[1] has nothing to read"),
        ({"rows": [{"audio": DATA}]}, "rows[0].audio", "this endpoint reads image"),
        ({"rows": []}, "rows", "rows is an empty list; send a list of 1 to 3"),
        ({"rows": [{"image": DATA}] * 4}, "rows", "rows has 4 items, max_texts=3"),
        ({"rows": [{"image": DATA}], "image": DATA}, "rows", "either 'rows' or 'image'"),
        ({"rows": ["a"]}, "rows[0]", "rows[0] is a string"),
    ],
)
def test_a_wrong_body_is_refused_with_the_field_and_what_is_allowed(body: Any, field: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        _parse(body, "image")
    assert (caught.value.status, caught.value.field) == (422, field)
    assert words in str(caught.value)


def test_an_endpoint_of_text_says_what_it_reads() -> None:
    with pytest.raises(
        Refused, match="unknown field 'image'; allowed: text, texts, pair, pairs, logits; this endpoint reads text"
    ):
        _parse({"image": DATA}, "text")


@pytest.mark.parametrize(
    ("body", "field"), [({"image": DATA}, "image"), ({"rows": [{"image": DATA}]}, "rows[0].image")]
)
def test_what_only_decoding_shows_is_told_as_a_wrong_field(body: Any, field: str) -> None:
    application = Scripted([Unanswerable(0, "image cannot be decoded: begins with b'x'", part="image")])
    router = Router("demo", task="classification", reads=("image",), connect=lambda name: application, max_queue=8)
    router.update({"1": route("classification", {}, ["a", "b"])})
    response = asked(router, "POST", "/v1/classify", body)
    assert (response.status_code, response.json()["error"]["field"]) == (422, field)
    assert "cannot be decoded" in response.json()["error"]["message"]


def test_the_page_of_an_endpoint_describes_the_parts_of_a_row() -> None:
    router = Router(
        "demo", task="classification", reads=("text", "image"), connect=lambda name: Scripted(), max_queue=8
    )
    page = asked(router, "GET", "/openapi.json").json()
    body = page["paths"]["/v1/classify"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"text", "image", "rows", "logits"}
    assert set(body["properties"]["rows"]["items"]["properties"]) == {"text", "image"}
