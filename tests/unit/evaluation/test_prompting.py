from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from orchestration.evaluation.config import PromptConfig
from orchestration.evaluation.prompting import Prompts, _refuse, chosen


def train(labels: list[int], copies: list[int] | None = None) -> Any:
    return SimpleNamespace(labels=np.array(labels), copies=np.array(copies or [0] * len(labels)))


def test_shots_are_of_all_classes_alike_and_never_an_augmented_copy() -> None:
    split = train([1, 1, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0])
    found = chosen(split, 4, seed=3)
    assert sorted(found) == [0, 2, 3, 4]
    assert found == chosen(split, 4, seed=3)
    assert {tuple(chosen(split, 4, seed=seed)) for seed in range(8)} != {tuple(found)}
    assert chosen(split, 0, seed=3) == []


def test_a_prompt_reads_as_written_and_white_space_goes_with_the_word_behind_it(minilm: Path) -> None:
    config = PromptConfig(
        template="Text: {text}\nSentiment: {label}", words={"negative": "bad"}, task="Say which.", shots=[1]
    )
    prompts = Prompts(minilm, config, ["negative", "positive"], max_length=5)
    shared, asked = prompts.encode(["a fine film", "one two three four five six"], [("Dull.", 0)])
    decode = prompts.library.decode
    assert decode(shared) == "say which. text : dull. sentiment : bad text :"
    assert decode(asked[0]) == "a fine film sentiment :"
    assert decode(asked[1]) == "one two three four five sentiment :", "a text has at most max_length tokens"
    assert [decode(ids) for ids in prompts.endings] == ["bad", "positive"]
    assert Prompts(minilm, PromptConfig(), ["a"], max_length=5).encode(["x"], [])[0] == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"template": "{text}"}, "must hold {text} once and end with {label}"),
        ({"template": "{label} {text}"}, "must hold {text} once and end with {label}"),
        ({"template": "{text}:{label}"}, "needs a space"),
        ({"shots": [0, 65]}, "shots=65; allowed: 0 to 64"),
        ({"shots": []}, "at least 1"),
    ],
)
def test_a_template_that_cannot_be_asked_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PromptConfig(**values)


@pytest.mark.parametrize(
    ("config", "labels", "held", "says"),
    [
        ({}, [], 3, "data.labels"),
        ({"words": {"fine": "x"}}, ["good", "bad"], 3, "prompt.words.fine: no such class; data.labels are good, bad"),
        ({}, ["good", "bad"], 0, "data.split.test"),
        ({"shots": [5]}, ["good", "bad"], 3, "prompt.shots=5, but the training split has rows for 4"),
    ],
)
def test_a_store_that_cannot_answer_is_refused(config: dict[str, Any], labels: list[str], held: int, says: str) -> None:
    store: Any = SimpleNamespace(labels=labels)
    with pytest.raises(Exception, match=says):
        _refuse(PromptConfig(**config), store, range(held), train([0, 0, 0, 1, 1]))
