"""An n-gram language model over token ids, the baseline beside neural ones. Takes rows of token ids; gives the mean surprise of others.
Interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1999) of order three. Called by the evaluation in a Ray task."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

ORDER = 3
Gram = tuple[int, ...]


class NGram:
    """Counts of grams up to `order`; those below the highest are of distinct left neighbours (continuation counts)."""

    def __init__(self, vocabulary: int, order: int = ORDER) -> None:
        self.vocabulary, self.order = vocabulary, order
        self.grams: list[Counter[Gram]] = [Counter() for _ in range(order)]  # by length - 1
        self._totals: list[dict[Gram, int]] = []
        self._kinds: list[dict[Gram, int]] = []
        self._discounts: list[float] = []

    def fit(self, rows: Iterable[Sequence[int]]) -> NGram:
        top = self.grams[-1]
        for row in rows:
            tokens = [int(token) for token in row]
            for at in range(1, len(tokens)):  # the first token is given, as to a causal model
                top[tuple(tokens[max(0, at - self.order + 1) : at + 1])] += 1
        for length in range(self.order - 1, 0, -1):  # a shorter gram counts the kinds of longer ones that end in it
            for gram in self.grams[length]:
                if len(gram) > 1:
                    self.grams[length - 1][gram[1:]] += 1
        for counts in self.grams:
            totals: dict[Gram, int] = defaultdict(int)
            kinds: dict[Gram, int] = defaultdict(int)
            for gram, count in counts.items():
                totals[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            once, twice = (sum(1 for count in counts.values() if count == n) for n in (1, 2))
            self._totals.append(totals)
            self._kinds.append(kinds)
            self._discounts.append(once / (once + 2 * twice) if once and twice else 0.5)
        return self

    def probability(self, gram: Gram) -> float:
        """Of the last token given those before it, which may be fewer than the order has."""
        if not gram:
            return 1.0 / self.vocabulary
        level = len(gram) - 1
        # At a row's beginning the highest table holds shorter grams; a history that was never seen says nothing.
        total = self._totals[level].get(gram[:-1], 0)
        lower = self.probability(gram[1:])
        if not total:
            return lower
        discount = self._discounts[level]
        seen = max(self.grams[level].get(gram, 0) - discount, 0.0)
        return (seen + discount * self._kinds[level][gram[:-1]] * lower) / total

    def perplexity(self, rows: Iterable[Sequence[int]]) -> float:
        """exp of the mean negative log-probability of all tokens but each row's first. Raises ValueError where there is none."""
        surprise, tokens = 0.0, 0
        for row in rows:
            ids = [int(token) for token in row]
            for at in range(1, len(ids)):
                surprise -= math.log(self.probability(tuple(ids[max(0, at - self.order + 1) : at + 1])))
                tokens += 1
        if not tokens:
            raise ValueError("perplexity needs a row of at least two tokens")
        return math.exp(surprise / tokens)
