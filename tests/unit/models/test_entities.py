"""Whole entities in tags, as conlleval and seqeval read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.config import ModelConfig
from models.entities import counts, entities, scores, types
from models.loss import IGNORED
from models.tasks.tagging import Tagging

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("I-PER I-PER O", [("PER", 0, 1)]),  # IOB1: no B where nothing stands before
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("O O", []),
        ("", []),
        ("S-PER B-LOC I-LOC E-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 3), ("LOC", 4, 4)]),
        ("B-a-b I-a-b", [("a-b", 0, 1)]),
    ],
)
def test_stretches_are_those_of_conlleval(tags: str, found: list[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == found


def test_only_tags_that_mark_stretches_have_types() -> None:
    assert types(TAGS) == ["PER", "LOC"]
    assert types(["NOUN", "VERB", "X"]) == types(["O"]) == types(["B-PER", "I-PER"]) == types(["O", "B-"]) == []


def test_scores_are_those_of_seqeval_on_its_own_example() -> None:
    """The example of its README, whose report gives 0.50 each; and a row that is right in type and one end alone."""
    wanted = ["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]
    found = ["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]
    total = [sum(parts) for parts in zip(*map(lambda a, b: counts(a, b, ["MISC", "PER"]), found, wanted), strict=True)]
    assert total == [0, 1, 1, 1, 1, 1]
    assert scores(total, ["MISC", "PER"]) == {
        "entity_f1": 0.5,
        "entity_precision": 0.5,
        "entity_recall": 0.5,
        "entity_MISC_f1": 0.0,
        "entity_PER_f1": 1.0,
    }
    assert scores([0, 0, 0], ["PER"]) == {"entity_f1": 0.0, "entity_precision": 0.0, "entity_recall": 0.0}


def test_a_tagger_tallies_words_and_entities_and_parts_of_a_batch_add_up() -> None:
    task = Tagging(ModelConfig(path="tiny", task="tagging"), TAGS, Path("tiny"))
    # Tokens: a special one, words of one or two pieces, a special one. One entity right, one cut short, one row of weight 0.
    wanted = torch.tensor([[IGNORED, 1, 2, IGNORED, 0, 3, IGNORED], [IGNORED, 3, 4, 4, 0, IGNORED, IGNORED]])
    found = torch.tensor([[0, 1, 2, 4, 0, 3, 3], [0, 3, 4, 0, 0, 1, 1]])
    logits = torch.nn.functional.one_hot(found, len(TAGS)).float()
    weight = torch.ones(2)
    whole = task.tally(logits, {"tags": wanted}, weight)
    assert len(whole) == task.tallies
    parts = [task.tally(logits[i : i + 1], {"tags": wanted[i : i + 1]}, weight[:1]) for i in range(2)]
    assert torch.equal(whole, parts[0] + parts[1])
    told = task.scores(whole, 0.0)
    assert told["accuracy"] == pytest.approx(7 / 8)
    assert (told["entity_precision"], told["entity_recall"]) == (2 / 3, 2 / 3)
    assert (told["entity_PER_f1"], told["entity_LOC_f1"]) == (1.0, 0.5)
    assert torch.equal(task.tally(logits, {"tags": wanted}, torch.tensor([1.0, 0.0])), parts[0])
    plain = Tagging(ModelConfig(path="tiny", task="tagging"), ["NOUN", "VERB"], Path("tiny"))
    assert plain.tallies == 4
