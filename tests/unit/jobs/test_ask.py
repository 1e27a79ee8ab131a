"""What a pipeline asks its endpoint at the end, by task."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from jobs.ask import SHOWN_WORDS, ask, begun, hidden, line, questions, shown
from orchestration.data.store import TokenStore
from orchestration.telemetry import Console

TEXTS = [
    "a b",
    "A quiet, moving film.",
    "The food was cold and late.",
    "We would go there again.",
    "Never again, sorry.",
]


class Held:
    """A test split as stores give it."""

    labels, values = np.array([1, 0, 1, 0, 1]), np.array([0.5, 1.5, 2.5, 3.5, 4.5])

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(TEXTS)

    def texts(self, rows: list[int]) -> list[str]:
        return [TEXTS[row] for row in rows]

    def targets(self, rows: list[int]) -> list[np.ndarray]:
        return [np.array([-100, 1, 0, -100]) for _ in rows]

    def input_ids(self, rows: list[int]) -> list[np.ndarray]:
        """Each text and the one behind it, as one packed row."""
        return [np.array([*self._ids(row), *self._ids((row + 1) % 5)]) for row in rows]

    def segments(self, rows: list[int]) -> list[list[int]]:
        return [[len(self._ids(row)), len(self._ids((row + 1) % 5))] for row in rows]

    def _ids(self, row: int) -> Any:
        return self._tokenizer.encode(TEXTS[row]).ids


class Paired(Held):
    """Each text as a question on the one behind it; the answer is that one's first two tokens."""

    def input_ids(self, rows: list[int]) -> list[np.ndarray]:
        return [np.array(self._tokenizer.encode(TEXTS[row], TEXTS[(row + 1) % 5]).ids) for row in rows]

    def pair_at(self, rows: list[int]) -> np.ndarray:
        return np.array([len(self._ids(row)) for row in rows])

    def targets(self, rows: list[int]) -> list[np.ndarray]:
        return [np.array([at, at + 1]) for at in self.pair_at(rows).tolist()]


def stored(minilm: Path, *, packed: bool = False, pairs: bool = False) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    held = Paired if pairs else Held
    return SimpleNamespace(packed=packed, pairs=pairs, split=lambda name: held(tokenizer))


def test_questions_are_rows_of_the_test_split_by_the_task(minilm: Path) -> None:
    def asked(task: str, packed: bool = False) -> Any:
        return questions(task, stored(minilm, packed=packed), minilm, labels=["no", "yes"])

    assert asked("classification") == list(zip(TEXTS[:3], ["yes", "no", "yes"], strict=True))
    assert asked("regression") == list(zip(TEXTS[:3], [0.5, 1.5, 2.5], strict=True))
    assert asked("tagging") == [(text, ["yes", "no"]) for text in TEXTS[:3]]
    assert asked("masked_lm")[0] == ("A quiet, [MASK] film.", "moving")
    assert len(asked("masked_lm")) == len(asked("causal_lm")) == 3
    assert asked("causal_lm")[1:] == [("A quiet,", "moving film."), ("The food was", "cold and late.")]
    assert asked("causal_lm", packed=True)[1] == ("a quiet,", "moving film.")


def test_both_texts_of_a_pair_are_asked_and_an_answer_is_told_in_words(minilm: Path) -> None:
    store = stored(minilm, pairs=True)
    asked = questions("classification", store, minilm, labels=["no", "yes"])
    assert asked[0] == (("a b", "a quiet, moving film."), "yes")
    assert questions("spans", store, minilm, labels=[])[1] == (
        ("a quiet, moving film.", "the food was cold and late."),
        "the food",
    )
    one = {"text": shown(asked[0][0]), "wanted": "a quiet", "answer": "film"}
    assert line("spans", one) == "film (people: a quiet)  'a b | a quiet, moving film.'"


def test_the_endpoint_is_asked_at_the_route_of_the_task(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, Any]] = []

    def post(url: str, *, content: bytes, headers: Any, timeout: float) -> httpx.Response:
        asked = json.loads(content)
        sent.append((url, asked))
        assert headers == {"content-type": "application/json"}
        body = {"model": {"version": "1"}, "results": [{"masks": [], "truncated": False} for _ in asked["texts"]]}
        return httpx.Response(200, json=body, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", post)
    monkeypatch.setattr(TokenStore, "open", lambda storage, rel: stored(minilm))
    serve = SimpleNamespace(token_env=None, max_body_bytes=10_000)
    spec = SimpleNamespace(model=SimpleNamespace(task="masked_lm", reads=("text",)), outputs=[], serve=serve)
    job: Any = SimpleNamespace(
        spec=spec, storage=SimpleNamespace(fetch=lambda rel: minilm), console=Console(quiet=True)
    )
    endpoint = SimpleNamespace(url="http://here", versions={"1": {"package": "packages/a"}})
    found = ask(job, endpoint, "stores/a")
    assert [(url, body["top"], len(body["texts"])) for url, body in sent] == [("http://here/v1/fill", 3, 1)] * 3
    assert [one["wanted"] for one in found] == ["moving", "cold", "there"]
    assert all(one["text"].count("[MASK]") == 1 for one in found)
    serve.max_body_bytes = (
        max(len(json.dumps(body)) for _, body in sent) - 1
    )  # the longest is left out, and the others are not
    assert len(ask(job, endpoint, "stores/a")) == 2


def test_one_word_is_hidden_behind_the_tokenizer_s_mask() -> None:
    assert hidden("It was a (wonderful) film!", "<mask>") == ("It was a (<mask>) film!", "wonderful")
    assert hidden("a b", "<mask>") is None
    assert hidden("there is a <mask> already", "<mask>") is None
    text, word = hidden("word " * 200, "[MASK]") or ("", "")
    assert (text.count("[MASK]"), len(text.split()), word) == (1, SHOWN_WORDS, "word")


def test_a_prompt_is_the_beginning_and_what_followed_is_kept() -> None:
    assert begun("one two three four five") == ("one two", "three four")
    assert begun("alone") is None


def test_each_task_has_a_line_for_people() -> None:
    asked = {"text": "A fine film", "wanted": 0.5}
    assert "(people: 0.500)" in line("regression", {**asked, "value": 0.25})
    masks = {"masks": [[{"token": "fine", "probability": 0.4}]]}
    assert line("masked_lm", {**asked, **masks, "wanted": "fine"}).startswith("fine 0.40 (hidden: fine)")
    assert line("causal_lm", {**asked, "sequences": [{"text": " of ours"}]}) == "'A fine film' -> ' of ours'"
    words = {"words": [{"word": "A", "tag": "DET"}, {"word": "film", "tag": "NOUN"}]}
    assert line("tagging", {**asked, **words, "wanted": ["X", "Y"]}) == "A/DET film/NOUN (people: X Y)"
    scored = {"label": "good", "scores": {"good": 0.9}, "wanted": "good"}
    assert line("classification", {**asked, **scored}) == "     good 0.90 (people: good)  'A fine film'"
