"""What makes augmentation by us and by a peer the same work: our `rate` of each op is set so that the mean share of words it changes
in a sample of texts is the peer's, and the gate compares the shares of other draws, the peer's too. Words changed are counted
from texts, alike on both sides. Called by `_data_augment`."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._peers import Peer
from benchmarks.peers.served import stopwatch
from orchestration.data import catalog, rng
from orchestration.data.augment import Augmenter, stage_ops
from orchestration.data.config import AugmentConfig, TokenizeConfig
from orchestration.storage import Storage, cache_root

OPS = ("synonyms", "insert", "swap", "delete")
OUR_DRAWS = 40  # a text, for the means of the gate
ALLOWED = 0.02
STEPS, CLOSE = 10, 0.003  # of the search for a rate
MAX_LENGTH = 128


@dataclass(frozen=True)
class Rival:
    """`ops`: what it does to a text; `chained`: all of them to one copy, else a copy each. `rows`: of a slice that it takes, so that a
    repeat lasts a second or some. `draws`: how often it augments each of the gate's texts, for a steady mean; an op that is chance
    alone (delete) needs `more`."""

    name: str
    shown: str
    ops: tuple[str, ...]
    chained: bool
    rows: int
    gate_rows: int
    draws: int
    more: int
    target: float


RIVALS = (
    Rival("textaugment", "textaugment EDA", OPS, True, 2000, 800, 3, 40, 30.0),
    Rival("nlpaug", "nlpaug SynonymAug", ("synonyms",), True, 1200, 800, 15, 15, 100.0),
    Rival("textattack", "textattack EasyDataAugmenter", OPS, False, 60, 150, 3, 3, 300.0),
)


def _op(op: str, rate: float) -> dict[str, Any]:
    thesaurus = {"thesaurus": str(wordnet_sets())} if op in ("synonyms", "insert") else {}
    return {"op": op, "rate": rate, **thesaurus}


@functools.cache
def wordnet_sets() -> Path:
    """All sets of synonyms of WordNet 3.0 as a .tsv, single words alone: what the peers choose from. (`catalog:wordnet` takes the usual meanings of a
    word alone, so it offers synonyms for fewer words than any peer.)"""
    sets = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (catalog.local("catalog:wordnet") / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):  # the licence
                fields = line.split(" ")
                lemmas = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                sets.append([re.sub(r"\(.*\)", "", lemma) for lemma in lemmas if "_" not in lemma])
    path = cache_root() / "benchmarks" / "wordnet-sets.tsv"
    path.write_text("".join("\t".join(found) + "\n" for found in sets if len(set(found)) > 1), encoding="utf-8")
    return path


class Ids:
    """The same texts as token ids: how ours changes them, and how a row of ids reads."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Fast

        from orchestration.data.tokenize import Tokenizer

        self.folder = folder
        self._tokenizer = Tokenizer(folder, MAX_LENGTH)
        self._fast = Fast.from_file(str(folder / "tokenizer.json"))

    def of(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        found = self._tokenizer.entries(texts, TokenizeConfig(max_length=MAX_LENGTH))
        return found.values_T, found.offsets_E1

    def texts(self, values_T: np.ndarray, offsets_N1: np.ndarray) -> list[str]:
        rows = [part.tolist() for part in np.split(values_T, offsets_N1[1:-1])]
        return self._fast.decode_batch(rows, skip_special_tokens=True)


class Ours:
    """Our augmenter with given rates, on texts or, with `ids`, on token ids."""

    def __init__(self, storage: Storage, ids: Ids | None) -> None:
        self._storage, self._ids = storage, ids

    def build(self, rates: dict[str, float]) -> Any:
        config = AugmentConfig.model_validate({"ops": [_op(op, rate) for op, rate in rates.items()]})
        rest: dict[str, Any] = {
            "labels": [],
            "tables": stage_ops(config, self._storage),
            "storage_url": self._storage.url,
        }
        if self._ids is None:
            return Augmenter(config, seed=17, **rest)
        from orchestration.data.augment.ids import IdAugmenter

        return IdAugmenter(config, self._ids.folder, seed=17, max_length=MAX_LENGTH, **rest)

    def changed(self, augmenter: Any, texts: list[str], draw: int) -> list[str]:
        """Texts (for ids: as they read) of one augmented copy each; a row that no draw changed stays."""
        if self._ids is None:
            found = augmenter.texts(texts, *self.keys(texts, draw))
            return [old if new is None else new for old, new in zip(texts, found, strict=True)]
        return self._ids.texts(*augmenter.ids(*self._ids.of(texts), *self.keys(texts, draw)))

    @staticmethod
    def keys(texts: list[str], draw: int) -> tuple[list[bytes], list[int], list[int]]:
        ids = [rng.key("row", text).to_bytes(8, "little") * 2 for text in texts]
        return ids, [-1] * len(texts), [draw] * len(texts)

    def timed(self, augmenters: Sequence[Any], texts: list[str], draw: int = 1) -> dict[str, float]:
        """Seconds of the calls alone, on one slice."""
        keys = self.keys(texts, draw)
        given: tuple[Any, ...] = (texts,) if self._ids is None else self._ids.of(texts)
        with stopwatch() as watch:
            for augmenter in augmenters:
                (augmenter.texts if self._ids is None else augmenter.ids)(*given, *keys)
        return watch


# ---------------------------------------------------------------------------------------------------- words changed


def words(text: str) -> list[str]:
    """Words as all sides see them: cut at white space, without marks around, in lower case; nothing that is only marks."""
    return [word for word in (re.sub(r"^[\W_]+|[\W_]+$", "", piece).lower() for piece in text.split()) if word]


def changes(op: str, before: str, after: str) -> int:
    """How many words an op changed: replaced (synonyms), added, gone (delete), in another place (swap)."""
    old, new = words(before), words(after)
    if op == "insert":
        return max(0, len(new) - len(old))
    if op == "delete":
        return max(0, len(old) - len(new))
    if len(old) == len(new):
        return sum(a != b for a, b in zip(old, new, strict=True))
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return sum(end - start for kind, start, end, _, _ in blocks if kind != "equal")


@dataclass(frozen=True)
class Counts:
    """Words changed in each text (one number an augmented text), and how many words there were."""

    changed_N: list[int]
    words: int

    @property
    def share(self) -> float:
        return sum(self.changed_N) / max(self.words, 1)

    def distance(self, other: Counts) -> float:
        """Total variation between the two distributions of words changed a text."""
        mine, others = Counter(self.changed_N), Counter(other.changed_N)
        keys = mine.keys() | others.keys()
        return sum(abs(mine[k] / mine.total() - others[k] / others.total()) for k in keys) / 2


def count(op: str, before: Sequence[str], after: Sequence[str]) -> Counts:
    found = [changes(op, a, b) for a, b in zip(before, after, strict=True)]
    return Counts(found, sum(len(words(text)) for text in before))


# ---------------------------------------------------------------------------------------------------- the same work


@dataclass
class Match:
    """A rival, its process, our side, a sample of texts: the rates at which we do the same, and how nearly."""

    rival: Rival
    peer: Peer
    ours: Ours
    ids: Ids | None
    texts: list[str]
    folder: Path

    @cached_property
    def rates(self) -> dict[str, float]:
        return {op: self._rate(op) for op in self.rival.ops}

    def _rate(self, op: str) -> float:
        """The secant method, from proportion; of all rates tried the nearest. (An op may change a word a text at least: then the
        share rises more slowly than the rate.)"""
        wanted, tried = self.theirs(op).share, {0.0: 0.0}
        rate, before = 0.1, 0.0
        for _ in range(STEPS):
            tried[rate] = self.mine(op, rate, 0).share
            off = wanted - tried[rate]
            if abs(off) < CLOSE * wanted:
                break
            slope = (tried[rate] - tried[before]) / (rate - before)
            step = off / slope if slope > 0 else 0.1 * rate * (1 if off > 0 else -1)
            before, rate = rate, round(min(max(rate + step, rate / 2), 2 * rate, 1.0), 5)
            if rate in tried:
                break
        return min(tried, key=lambda rate: abs(tried[rate] - wanted))

    def read(self, texts: list[str]) -> list[str]:
        """What both sides start from: with ids, the texts as ids read."""
        return texts if self.ids is None else self.ids.texts(*self.ids.of(texts))

    def mine(self, op: str, rate: float, first: int) -> Counts:
        """Of draws `first` + 1 and following."""
        augmenter, before = self.ours.build({op: rate}), self.read(self.texts)
        draws = range(first + 1, first + OUR_DRAWS + 1)
        parts = [count(op, before, self.ours.changed(augmenter, self.texts, draw)) for draw in draws]
        return Counts([n for part in parts for n in part.changed_N], sum(part.words for part in parts))

    def theirs(self, op: str) -> Counts:
        draws = self.rival.more if op in ("delete", "swap") else self.rival.draws
        before = [text for text in self.read(self.texts) for _ in range(draws)]
        given, made = self.folder / "gate-in.json", self.folder / "gate-out.json"
        given.write_text(json.dumps(before), encoding="utf-8")
        name = f"counted-{op}" if self.rival.name == "textaugment" else op
        # nlpaug's own cutting of words moves marks about; its law is the same with words cut at spaces
        best = self.rival.name == "nlpaug"
        self.peer.go(peer=self.rival.name, op=name, best=best, input=str(given), output=str(made))
        after = [row[0] if row else text for text, row in zip(before, json.loads(made.read_text()), strict=True)]
        return count(op, before, after)

    def gate(self) -> tuple[bool, str]:
        worst, says = 0.0, []
        for op, rate in self.rates.items():
            mine, theirs = self.mine(op, rate, OUR_DRAWS), self.theirs(op)
            off = abs(mine.share / theirs.share - 1) if theirs.share else float("inf")
            worst = max(worst, off)
            says.append(
                f"{op} at rate {rate}: {mine.share:.4f} of the words against {theirs.share:.4f}, counts a text apart by"
                f" {mine.distance(theirs):.2f}"
            )
        text = "; ".join(says)
        return worst <= ALLOWED, (
            f"on {len(self.texts)} texts, in draws that no rate was set on, the mean shares differ by at most {worst:.1%} (allowed"
            f" {ALLOWED:.0%}): {text} (total variation, which asks for the same law and is not part of the gate)"
        )
