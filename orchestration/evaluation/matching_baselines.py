"""Baselines of the task matching: one that always says the same, and a linear one. Takes splits of a store; gives scores over the pairs that the
task makes of them. Called by `assess` in a Ray task.

The linear one maps numbers of the picture, sound or series (`media_baselines.features`) to 64 numbers of the text (TF-IDF of words, cut by a singular value
decomposition) by ridge regression, and says yes above the cosine that tells the training pairs apart best."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestration.evaluation import media_baselines

TOPICS = 64


def found(train: Any, held: Any, reads: tuple[str, ...], *, group: int) -> dict[str, dict[str, float]]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen_texts, held_texts = train.texts(range(len(train))), held.texts(range(len(held)))
    words = TfidfVectorizer(sublinear_tf=True).fit(seen_texts)
    topics = make_pipeline(words, TruncatedSVD(min(TOPICS, len(words.vocabulary_) - 1), random_state=0)).fit(seen_texts)
    features = [np.concatenate(list(media_baselines.features(part, reads).values()), axis=1) for part in (train, held)]
    line = make_pipeline(StandardScaler(), Ridge(100.0)).fit(features[0], topics.transform(seen_texts))
    (own_N, wanted_N), (score_M, true_M) = (
        _scored(line.predict(values), topics.transform(texts), texts, group)
        for values, texts in zip(features, (seen_texts, held_texts), strict=True)
    )
    cut = max(np.unique(np.quantile(own_N, np.linspace(0, 1, 200))), key=lambda at: ((own_N >= at) == wanted_N).mean())
    guesses = {"always_yes": np.ones_like(true_M), "pixels_to_tf-idf": score_M >= cut}
    return {name: _measured(guess, true_M) for name, guess in guesses.items()}


def _scored(told_NT: np.ndarray, topics_NT: np.ndarray, texts: list[str], group: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each pair, and whether it belongs together: rows as they are, then with the text of the next row of their group."""
    own = np.arange(len(texts))
    others = np.concatenate([np.roll(own[at : at + group], -1) for at in range(0, len(own), group)])
    kept = np.array([texts[a] != texts[b] for a, b in zip(own, others, strict=True)])
    scores = [_cosine(told_NT, topics_NT), _cosine(told_NT, topics_NT[others])[kept]]
    return np.concatenate(scores), np.concatenate([np.ones(len(own), bool), np.zeros(int(kept.sum()), bool)])


def _cosine(a_NT: np.ndarray, b_NT: np.ndarray) -> np.ndarray:
    lengths_N = np.linalg.norm(a_NT, axis=1) * np.linalg.norm(b_NT, axis=1)
    cosine_N: np.ndarray = (a_NT * b_NT).sum(1) / np.maximum(lengths_N, 1e-12)
    return cosine_N


def _measured(guess: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import f1_score

    return {
        "accuracy": float((guess == wanted).mean()),
        "macro_f1": float(f1_score(wanted, guess, average="macro", zero_division=0)),
    }
