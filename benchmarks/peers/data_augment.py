"""Three augmenters on one core: textaugment's EDA, nlpaug's SynonymAug, textattack's EasyDataAugmenter. A piece of work is texts, an
op and whether the augmenter has its default settings or its best; the answer has the seconds of the calls alone. With a
`tokenizer` the work goes from token ids to token ids. Runs in the peers' environment; see data_io."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import data_io
import nltk
import served

nltk.download = lambda *names, **options: (
    True
)  # everything lies in NLTK_DATA; the constructors ask the network each time

RATE = 0.1  # of the words, all three; textaugment counts words itself by EDA's rule max(1, int(RATE x words))
Many = Callable[[list[str]], list[list[str]]]  # texts -> augmented texts of each


def textaugment(op: str, best: bool) -> Many:
    """`eda`: the four ops one after the other. `best`: stop words as a set in place of a list. A text of stop words alone makes it raise
    ValueError; it is given back as it is."""
    from nltk.corpus import stopwords
    from textaugment import EDA

    class OneWord(EDA):
        """For counting: a synonym of several words is one word."""

        @staticmethod
        def _get_synonyms(word: str) -> list[str]:
            return [synonym.replace(" ", "_") for synonym in EDA._get_synonyms(word)]

    kind = OneWord if op.startswith("counted-") else EDA
    eda = kind(stop_words=frozenset(stopwords.words("english"))) if best else kind()
    ops: dict[str, Callable[[str, int], str]] = {
        "synonyms": lambda text, n: eda.synonym_replacement(text, n),
        "insert": lambda text, n: eda.random_insertion(text, n),
        "swap": lambda text, n: eda.random_swap(text, n),
        "delete": lambda text, n: eda.random_deletion(text, RATE),
    }
    chosen = list(ops.values()) if op == "eda" else [ops[op.removeprefix("counted-")]]

    def one(text: str) -> list[str]:
        n = max(1, int(RATE * len(text.split())))
        try:
            return [functools.reduce(lambda done, change: change(done, n), chosen, text)]
        except ValueError:
            return [text]

    return lambda texts: [one(text) for text in texts]


def nlpaug(op: str, best: bool) -> Many:
    """Synonyms alone. `best`: words cut by `str.split` in place of its regular expressions. Threads make it slower."""
    from nlpaug.augmenter.word import SynonymAug

    quick: dict[str, Any] = {"tokenizer": str.split, "reverse_tokenizer": " ".join} if best else {}
    augmenter = SynonymAug(aug_src="wordnet", aug_p=RATE, **quick)
    return lambda texts: [[text] for text in augmenter.augment(texts)]


def textattack(op: str, best: bool) -> Many:
    """`eda`: its recipe, one text of each op. `best`: sixteen a text in place of four, with `fast_augment` and `high_yield`, which
    takes several texts out of each round of candidates."""
    from textattack.augmentation import EasyDataAugmenter

    quick: dict[str, Any] = (
        {"transformations_per_example": 16, "fast_augment": True, "high_yield": True} if best else {}
    )
    recipe = EasyDataAugmenter(pct_words_to_swap=RATE, **quick)
    parts = {
        "eda": recipe,
        "synonyms": recipe.synonym_replacement,
        "insert": recipe.random_insertion,
        "swap": recipe.random_swap,
        "delete": recipe.random_deletion,
    }
    return parts[op].augment_many


PEERS = {"textaugment": textaugment, "nlpaug": nlpaug, "textattack": textattack}


@functools.cache
def ready(peer: str, op: str, best: bool) -> Many:
    random.seed(17)
    many = PEERS[peer](op, best)
    many(["a small warm evening closed the early shop", "they made a good film about the sea"])
    return many


@functools.cache
def tokenizer_of(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def work(
    peer: str, op: str, best: bool, input: str, output: str = "", tokenizer: str = "", rows: int = 0
) -> dict[str, Any]:
    """`input`: JSON list of texts, of lists of ids with a `tokenizer`. Gives seconds, and how many augmented rows came."""
    many, given = ready(peer, op, best), data_io.read(input)
    given = given[: rows or len(given)]
    fast = tokenizer_of(tokenizer) if tokenizer else None
    made: list[Any]
    with served.stopwatch() as watch:
        if fast is None:
            made = many(given)
        else:
            texts = fast.batch_decode(given, skip_special_tokens=True)
            found = many(texts)
            flat = fast([text for row in found for text in row], truncation=True, max_length=128)["input_ids"]
            made = [[ids] for ids in flat]
    if output:
        data_io.write(output, made)
    return {**watch, "rows": sum(map(len, made))}


if __name__ == "__main__":
    served.serve(work)
