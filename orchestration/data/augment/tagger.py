"""Part-of-speech tagger for English. Takes the words of a sentence; gives a tag of Brown's set, a little merged, for
each. Trained from the tagged Brown corpus once, by a fetch of the catalogue; read by `voice` in workers. Knows
nothing of specs.

A first-order structured perceptron with averaged weights, decoded exactly (Collins, "Discriminative training methods
for hidden Markov models", EMNLP 2002). All weights are whole numbers, so the same sentences give the same bytes on
every machine; the model is JSON, since a pickle could run code."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.data import rng
from orchestration.errors import DataError

Tagged = list[tuple[str, str]]  # (word, tag) of one sentence

ROUNDS = 4
_SNAPSHOT_EVERY = 2000  # sentences; the average is over these, which costs a hundredth of an average over all
_LEAST_COUNT = 3  # of a feature: rarer ones are names of this corpus
_SCALE = 20  # a weight of 1 in the model is a twentieth of an update
_LEAST_WEIGHT = 8  # in those; smaller ones cost size and change nothing

ABBREVIATIONS = (
    "Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Gen|Sen|Rep|Gov|Co|Inc|Corp|Ltd|Lt|Col|Capt|Sgt|Rev|Hon|Mt|Messrs"
    "|vs|etc|v|Op|Nos|Fig|Vol|pp|cf|ca|approx"
)
TOKEN = re.compile(
    r"(?:[A-Za-z]\.){2,}"  # U.S.
    rf"|\b(?:{ABBREVIATIONS})\.(?=\s)"
    r"|\b[A-Z]\.(?=\s[A-Z])"  # J. Smith
    r"|\bcan(?=not\b)|(?i:[a-z]+(?=n['’]t\b)|n['’]t\b)"
    r"|['’](?i:s|re|ve|ll|d|m)\b"
    r"|\$?\d[\d.,:/]*\d%?|\$?\d+%?(?!\w)"
    r"|[^\W_]+(?:[-&/][^\W_]+)*(?:['’](?!(?i:s|re|ve|ll|d|m)\b)(?=\w)\w+)?"
    r"|\.\.\.+|--+|``|''|\S"
)

_MERGED = {
    **dict.fromkeys(("JJR", "JJS", "JJT"), "JJ"),
    **dict.fromkeys(("RBR", "RBT", "RN"), "RB"),
    **dict.fromkeys(("DTI", "DTS", "DTX"), "DT"),
    **dict.fromkeys(("ABN", "ABX", "ABL"), "AB"),
    **dict.fromkeys(("WPS", "WPO", "WP$"), "WP"),
    **dict.fromkeys(("``", "'"), "''"),
    **dict.fromkeys(("(", ")", "--"), ":"),
    "PPLS": "PPL",
    "PP$$": "PN",
    "QLP": "QL",
    "WQL": "WRB",
    "NRS": "NNS",
    "*": "NOT",
    "NIL": "NN",
}


def train_from_brown(folder: Path) -> bytes:
    """The tagger's JSON from the corpus. `folder`: where the 500 documents lie, files named ca01 ... cr09 (`package/`
    of the npm archive), a sentence a line of word/tag pairs. A minute or so on one core. Raises DataError where there
    are none."""
    return train_bytes([sentence for _, sentences in brown(folder) for sentence in sentences])


def brown(folder: Path) -> list[tuple[str, list[Tagged]]]:
    """(name, sentences) of each document, tags merged and contractions split as `TOKEN` splits them."""
    paths = sorted(path for path in folder.iterdir() if re.fullmatch(r"c[a-r]\d\d", path.name))
    if not paths:
        raise DataError(f"{folder}: no documents of the Brown corpus here; files named ca01 ... cr09 are wanted")
    documents = []
    for path in paths:
        lines = path.read_text(encoding="latin-1").splitlines()
        documents.append((path.name, [_sentence(line.split()) for line in lines if line.strip()]))
    return documents


def _sentence(pairs: list[str]) -> Tagged:
    return [part for pair in pairs for part in _parts(*pair.rsplit("/", 1))]


def _parts(word: str, tag: str) -> Tagged:
    """One word of the corpus as one or two of ours: he's/pps+bez -> he/PPS 's/BEZ, don't/do* -> do/DO n't/NOT."""
    tag = re.sub(r"^NN(S?)(\$?)-TL", r"NP\1\2", tag.upper())  # the County of the City: titles are tagged as names
    tag = re.sub(r"^FW-|-(?:TL|HL|NC|T|N)\b", "", tag) or tag
    lower = word.lower()
    if (tag not in ("*", "PP$", "PP$$", "WP$") and tag.endswith(("*", "$"))) or "+" in tag:
        first, second = tag.replace("*", "+*").replace("$", "+POS").split("+")[:2]
        cut = len(word) - 3 if lower.endswith(("n't", "not")) else word.rfind("'")
        if cut > 0:
            return [(word[:cut], _MERGED.get(first, first)), (word[cut:], _MERGED.get(second, second))]
        tag = first or tag
    return [(word, _MERGED.get(tag, tag))]


def train_bytes(tagged_sentences: list[Tagged]) -> bytes:
    """The model's JSON from (word, tag) sentences; the same sentences in the same order give the same bytes."""
    sentences = [sentence for sentence in tagged_sentences if sentence]
    tags = sorted({tag for sentence in sentences for _, tag in sentence})
    number = {tag: at for at, tag in enumerate(tags)}
    likely = _likely(sentences)
    known, inputs = _indexed(sentences, likely)
    gold = [np.array([number[tag] for _, tag in sentence], np.int32) for sentence in sentences]
    weights_FT, steps_TT = _train(inputs, gold, len(known) + 1, len(tags))
    features: dict[str, list[int]] = {}
    for at, feature in enumerate(known, start=1):
        row_T = weights_FT[at]
        kept = np.flatnonzero(np.abs(row_T) >= _LEAST_WEIGHT)
        if len(kept):
            features[feature] = [int(value) for tag in kept for value in (tag, row_T[tag])]
    model = {
        "tags": tags,
        "likely": likely,
        "capital": _capital(sentences),
        "steps": steps_TT.tolist(),
        "features": features,
    }
    return json.dumps(model, separators=(",", ":"), ensure_ascii=False).encode()


def _likely(sentences: list[Tagged]) -> dict[str, str]:
    """The commonest tag of each word seen often enough."""
    counts: dict[str, Counter[str]] = {}
    for sentence in sentences:
        for word, tag in sentence:
            counts.setdefault(word.lower(), Counter())[tag] += 1
    return {
        word: min(seen, key=lambda tag: (-seen[tag], tag))
        for word, seen in sorted(counts.items())
        if seen.total() >= _LEAST_COUNT
    }


def _capital(sentences: list[Tagged]) -> list[str]:
    """Words that have a capital inside a sentence as a rule: names, days, American."""
    upper: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for sentence in sentences:
        for word, _ in sentence[1:]:
            upper[word.lower()] += word[0].isupper()
            total[word.lower()] += 1
    return sorted(word for word, count in upper.items() if 2 * count > total[word])


def _indexed(sentences: list[Tagged], likely: dict[str, str]) -> tuple[list[str], list[np.ndarray]]:
    """Features seen often enough, and for each sentence their numbers (words x templates); 0 is a feature left out."""
    first: dict[str, int] = {}
    raw = [
        np.array(
            [
                [first.setdefault(feature, len(first)) for feature in row]
                for row in _features([word for word, _ in sentence], likely)
            ],
            np.int32,
        )
        for sentence in sentences
    ]
    counts = np.zeros(len(first), np.int64)
    for rows in raw:
        np.add.at(counts, rows.ravel(), 1)
    keep = counts >= _LEAST_COUNT
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return [feature for feature, kept in zip(first, keep, strict=True) if kept], [renumbered[rows] for rows in raw]


def _train(inputs: list[np.ndarray], gold: list[np.ndarray], features: int, tags: int) -> tuple[np.ndarray, np.ndarray]:
    """Averaged weights of features (F x T) and of tag pairs (T+1 x T, the last row for the start of a sentence)."""
    weights_FT, sum_FT = np.zeros((features, tags), np.int32), np.zeros((features, tags), np.int32)
    steps_TT, sum_TT = np.zeros((tags + 1, tags), np.int32), np.zeros((tags + 1, tags), np.int32)
    snapshots = done = 0
    for turn in range(ROUNDS):
        for at in rng.permutation(rng.key("tagger", turn), len(inputs)):
            rows_LK, gold_L = inputs[at], gold[at]
            guess_L = _decode(weights_FT[rows_LK].sum(1, dtype=np.int32), steps_TT)
            if not np.array_equal(guess_L, gold_L):
                _update(weights_FT, steps_TT, rows_LK, gold_L, guess_L)
            done += 1
            if done % _SNAPSHOT_EVERY == 0 or done == ROUNDS * len(inputs):
                sum_FT += weights_FT
                sum_TT += steps_TT
                snapshots += 1
    mean = [np.rint(total.astype(np.float64) * _SCALE / snapshots).astype(np.int32) for total in (sum_FT, sum_TT)]
    return mean[0], mean[1]


def _update(
    weights_FT: np.ndarray, steps_TT: np.ndarray, rows_LK: np.ndarray, gold_L: np.ndarray, guess_L: np.ndarray
) -> None:
    start = len(steps_TT) - 1
    for at in np.flatnonzero(guess_L != gold_L):
        rows_K = rows_LK[at][rows_LK[at] > 0]
        weights_FT[rows_K, gold_L[at]] += 1
        weights_FT[rows_K, guess_L[at]] -= 1
    np.add.at(steps_TT, (np.append(start, gold_L[:-1]), gold_L), 1)
    np.add.at(steps_TT, (np.append(start, guess_L[:-1]), guess_L), -1)


def _decode(scores_LT: np.ndarray, steps_TT: np.ndarray) -> np.ndarray:
    """The best tags of a sentence (Viterbi)."""
    length, tags = scores_LT.shape
    pairs_TT = np.ascontiguousarray(steps_TT[:-1].T)  # [to, from]
    columns = np.arange(tags)
    back_LT = np.empty((length, tags), np.int64)
    best_T = steps_TT[-1] + scores_LT[0]
    for at in range(1, length):
        through_TT = pairs_TT + best_T
        back_LT[at] = through_TT.argmax(1)
        best_T = through_TT[columns, back_LT[at]] + scores_LT[at]
    found = [int(best_T.argmax())]
    for at in range(length - 1, 0, -1):
        found.append(int(back_LT[at, found[-1]]))
    return np.array(found[::-1], np.int32)


def _features(words: list[str], likely: dict[str, str]) -> list[list[str]]:
    """What is seen of each word: itself, its neighbours, their commonest tags, its endings and its letters."""
    lower = ["<s>", "<s>", *(word.lower().replace("’", "'") for word in words), "</s>", "</s>"]
    usual = [likely.get(word, "?" + word[-2:]) for word in lower]
    rows = []
    for at, word in enumerate(words, start=2):
        w, before, after = lower[at], lower[at - 1], lower[at + 1]
        form = _form(word) + ("^" if at == 2 else "")
        rows.append(
            [
                "w" + w,
                "x" + w[-2:],
                "y" + w[-3:],
                "z" + w[-4:],
                "p" + w[:2] + form,
                "f" + form + w[-1],
                "b" + before,
                "a" + after,
                "c" + lower[at - 2],
                "d" + lower[at + 2],
                "e" + before + " " + w,
                "g" + w + " " + after,
                "h" + usual[at - 1] + " " + w,
                "i" + w + " " + usual[at + 1],
                "j" + usual[at - 1] + " " + usual[at + 1],
                "k" + usual[at] + " " + usual[at + 1] + " " + usual[at + 2 if at + 2 < len(usual) else -1],
                "l" + usual[at - 2] + " " + usual[at - 1] + " " + usual[at],
            ]
        )
    return rows


def _form(word: str) -> str:
    if word.isalpha():
        return "a" if word.islower() else "U" if word.isupper() and len(word) > 1 else "A"
    return "9" if any(letter.isdigit() for letter in word) else "A-" if word[0].isupper() else "-"


class Tagger:
    """A trained tagger. `Tagger.load(path)`; `tag(words)` gives a tag for each word."""

    def __init__(self, model: dict[str, Any], name: str) -> None:
        try:
            self._tags: list[str] = list(model["tags"])
            self._likely: dict[str, str] = dict(model["likely"])
            self._capital = frozenset(model["capital"])
            features: dict[str, list[int]] = dict(model["features"])
            self._steps_TT = np.array(model["steps"], np.int32)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{name}: not a tagger's JSON; use the one of catalog:english-tagger") from None
        self._rows = {feature: at for at, feature in enumerate(features, start=1)}
        self._weights_FT = np.zeros((len(features) + 1, len(self._tags)), np.int32)
        for at, pairs in enumerate(features.values(), start=1):
            self._weights_FT[at, pairs[::2]] = pairs[1::2]

    @classmethod
    def load(cls, path: str | Path) -> Tagger:
        """From the JSON of `train_bytes`. Raises DataError where the file is something else."""
        try:
            model = json.loads(Path(path).read_bytes())
        except ValueError:
            raise DataError(f"{path}: not JSON; a tagger is the JSON of catalog:english-tagger") from None
        return cls(model if isinstance(model, dict) else {}, str(path))

    def common(self, word: str) -> bool | None:
        """Is it written without a capital inside a sentence? None for a word never seen."""
        lower = word.lower()
        return False if lower in self._capital else True if lower in self._likely else None

    def tag(self, words: list[str]) -> list[str]:
        if not words:
            return []
        find = self._rows.get
        rows_LK = np.array([[find(feature, 0) for feature in row] for row in _features(words, self._likely)], np.int32)
        scores_LT = self._weights_FT[rows_LK].sum(1, dtype=np.int32)
        return [self._tags[tag] for tag in _decode(scores_LT, self._steps_TT)]
