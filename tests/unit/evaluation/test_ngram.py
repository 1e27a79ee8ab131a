from __future__ import annotations

import itertools

import numpy as np
import pytest

from orchestration.evaluation.ngram import NGram

ROWS = [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 4, 4, 3], [0, 3, 2, 1]]
VOCABULARY = 7


def test_probabilities_of_all_tokens_add_up_to_one_after_any_history() -> None:
    model = NGram(VOCABULARY).fit(ROWS)
    for length in range(3):
        for history in itertools.product(range(VOCABULARY), repeat=length):
            total = sum(model.probability((*history, token)) for token in range(VOCABULARY))
            assert total == pytest.approx(1.0), history


def test_what_was_seen_often_is_likely_and_what_was_never_seen_is_possible() -> None:
    model = NGram(VOCABULARY).fit(ROWS)
    assert model.probability((1, 2, 3)) > 0.4
    assert 0 < model.probability((1, 2, 6)) < 0.1


def test_a_word_that_follows_only_one_other_is_not_expected_elsewhere() -> None:
    """Kneser and Ney's point: token 5 is as frequent as 6, but comes behind 4 alone."""
    rows = [[4, 5]] * 8 + [[token, 6] for token in (0, 1, 2, 3, 0, 1, 2, 3)]
    model = NGram(VOCABULARY, order=2).fit(rows)
    assert model.probability((6,)) > 2 * model.probability((5,))


def test_perplexity_of_a_made_up_language_comes_near_its_entropy_and_beats_shorter_histories() -> None:
    draw = np.random.Generator(np.random.PCG64(3))
    table = draw.dirichlet(np.full(6, 0.2), size=(6, 6))

    def row() -> list[int]:
        tokens = [0, 0]
        while len(tokens) < 400:
            tokens.append(int(draw.choice(6, p=table[tokens[-2], tokens[-1]])))
        return tokens

    train, held = [row() for _ in range(60)], [row() for _ in range(10)]
    true = np.exp(-np.mean([np.log(table[a, b, c]) for r in held for a, b, c in zip(r, r[1:], r[2:], strict=False)]))
    three, two = (NGram(6, order).fit(train).perplexity(held) for order in (3, 2))
    assert true * 0.98 < three < true * 1.03
    assert two > three * 1.2


def test_nothing_to_predict_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        NGram(VOCABULARY).fit(ROWS).perplexity([[1]])
