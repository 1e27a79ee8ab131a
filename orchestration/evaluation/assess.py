"""Scores of a model on a split for every task but classification, beside baselines that saw the same rows. Takes an open store, a package
and a split; gives plain values. Called by `evaluate` in the driver: scoring and baselines are Ray tasks. Each scoring task takes its
share of the rows through the code that validated the model while it trained.

Baselines: of numbers the training rows' mean, and TF-IDF with ridge regression; of tags the most frequent tag of the first token of
each word; of answers that are texts those of `written`; of language models how often each token is (unigram), for causal ones an n-gram model too, and where they have a memory themselves without it; of two encoders the same before
training, and chance."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.config import CAPTIONED, PAIRED
from orchestration.data.store import TokenStore
from orchestration.evaluation import (
    intervals,
    matching_baselines,
    media_baselines,
    retrieval,
    written,
    written_captions,
)
from orchestration.evaluation.retrieval import SCORES
from orchestration.evaluation.two_texts import lines
from orchestration.storage import Storage

MICRO_TOKENS = 4096  # with padding, through the model at once
MICRO_ROWS = 16  # instead, of rows with media
ROOM = 25_000_000  # numbers that hold what each row adds to the scores, of all rows: 200 MB


def assess(
    storage: Storage,
    *,
    package_rel: str,
    store_rel: str,
    split: str,
    fold: int | None,
    rows: int | None,
    tasks: int,
    cpus: float,
) -> dict[str, Any]:
    """`{"loss", the task's metrics, "intervals", "rows", "baselines"}`. `rows`: training rows that the model saw; `tasks`: at once."""
    import ray
    import torch

    from models import recall
    from orchestration import package

    task = ray.remote(num_cpus=cpus)
    arguments = (storage.url, package_rel, store_rel, split, fold)
    parts = [task(partial).remote(*arguments, rank, tasks) for rank in range(tasks)]
    folder = storage.fetch(package_rel)
    read = package.read_task(folder)
    beside = task(retrieval.both if read.config.task == "contrastive" else baselines).remote(*arguments, rows)
    numbers, texts = zip(*ray.get(parts), strict=True)
    parts_UT = np.concatenate(numbers)

    def scored(total_T: np.ndarray) -> dict[str, float]:
        loss = float(total_T[0] / total_T[1]) if total_T[1] else float("nan")
        return {"loss": loss, **read.scores(torch.from_numpy(total_T[3:]), loss)}

    total_T = parts_UT.sum(0)
    scores, ranges = scored(total_T), intervals.of_tallies(parts_UT, scored)
    if texts_of := written.of(read.config.task):
        held = TokenStore.open(storage, store_rel).split(split, fold)
        told = {row: text for part in texts for row, text in part.items()}
        meant = texts_of.wanted(folder, held, range(len(held)))
        answers = [told[row] for row in range(len(held))]
        scores |= texts_of.scores(answers, meant)
        ranges |= intervals.of_means(texts_of.by_row(answers, meant))
    found = ray.get(beside)
    more: dict[str, Any] = found.pop(SCORES, {})
    ranges |= more.pop("intervals", {})
    if read.config.recalls:
        more["memory"] = recall.told(folder)
    return {"rows": int(total_T[2]), **scores, **more, "intervals": ranges, "baselines": found}


def partial(
    storage_url: str, package_rel: str, store_rel: str, split: str, fold: int | None, rank: int, world: int
) -> tuple[np.ndarray, dict[int, str]]:
    """Runs in a Ray task: (U, T) numbers, for each unit of this rank's share loss sum, its count, rows, then the task's tallies; of tasks that
    answer with texts those of its rows too, by row. A unit is a row, or a group of rows that belong together."""
    import torch

    from orchestration import package

    storage = Storage(storage_url)
    store = TokenStore.open(storage, store_rel)
    opened = package.opened(storage, package_rel)
    torch.set_num_threads(1)
    whole = store.split(split, fold)
    with torch.inference_mode():
        units = _through(opened, store, whole, rank, world)
        texts_of, mine = written.of(opened.task.config.task), range(rank, len(whole), world)
        texts = dict(zip(mine, texts_of.found(opened, whole, mine), strict=True)) if texts_of else {}
    return np.stack(units) if units else np.zeros((0, 3 + opened.task.tallies)), texts


def _through(opened: Any, store: TokenStore, whole: Any, rank: int = 0, world: int = 1) -> list[np.ndarray]:
    """The split's rows through the model: (T,) of each unit."""
    held = feed(opened.task, store, whole, pad_id=opened.pad_id, rank=rank, world=world)
    size = 1 + len(whole) * (3 + opened.task.tallies) // ROOM
    return [
        unit
        for step in held.in_length_order()
        for micro in step.micros
        if micro.weight_B.any()  # a rank without rows in a batch has one of no weight
        for unit in _units(opened.task, opened.forward(**micro.inputs), micro, size)
    ]


def _units(task: Any, logits: Any, micro: Any, size: int) -> list[np.ndarray]:
    """What each `size` rows of a micro-batch add, (T,) each; all of it where its rows are held against each other."""
    import torch

    rows, found = len(micro.weight_B), []
    step = rows if task.group is not None else size
    for at in range(0, rows, step):
        part = slice(at, at + step)
        some, targets, weight_B = logits, micro.targets, micro.weight_B
        if step < rows:
            some = tuple(one[part] for one in logits) if isinstance(logits, tuple) else logits[part]
            targets, weight_B = {name: value[part] for name, value in targets.items()}, weight_B[part]
        summed, count = task.loss(some, targets, weight_B)
        first = torch.stack([summed, count, weight_B.sum()]).double()
        found.append(torch.cat([first, task.tally(some, targets, weight_B)]).numpy())
    return found


def feed(task: Any, store: TokenStore, split: Any, *, pad_id: int, rank: int = 0, world: int = 1) -> Any:
    """The rows of a split, longest first."""
    from orchestration.training.feed import Feed

    longest = int(np.max(split.lengths, initial=1))
    size: dict[str, Any] = {"micro_batch": MICRO_ROWS} if task.media else {"micro_tokens": max(MICRO_TOKENS, longest)}
    return Feed(
        split,
        task=task,
        packed=store.packed,
        pairs=store.pairs,
        fingerprint=store.fingerprint,
        batch=1,
        **size,
        seed=0,
        pad_id=pad_id,
        rank=rank,
        world=world,
    )


def baselines(
    storage_url: str, package_rel: str, store_rel: str, split: str, fold: int | None, rows: int | None
) -> dict[str, dict[str, float]]:
    """Runs in a Ray task."""
    from orchestration import package

    storage = Storage(storage_url)
    store = TokenStore.open(storage, store_rel)
    train, held = store.split("train", fold).head(rows), store.split(split, fold)
    task = package.read_task(storage.fetch(package_rel))
    own = train.only(np.asarray(train.copies) == 0)  # augmented copies would weigh some rows twice
    kind = task.config.task
    if kind == "matching":
        return matching_baselines.found(own, held, task.config.reads, group=int(task.group or 1))
    if kind == "regression":
        return _of_numbers(store, own, held, task.config.reads)
    if kind == "heads":
        return _of_heads(task, own, held)
    if kind in CAPTIONED:
        return written_captions.beside(storage, task.folder, own, held)
    if texts_of := written.of(kind):
        return dict(texts_of.baselines(task.folder, own, held))
    found = _of_tags(task, own, held) if kind == "tagging" else _of_tokens(task, store, own, held)
    return found | ({"without_memory": _forgetful(storage, package_rel, store, held)} if task.config.recalls else {})


def _forgetful(storage: Storage, package_rel: str, store: TokenStore, held: Any) -> dict[str, float]:
    """Scores of the same model without its memory."""
    import torch

    from models import recall
    from orchestration import package

    opened = package.opened(storage, package_rel)
    recall.silence(opened.model)
    with torch.inference_mode():
        total_T = np.sum(_through(opened, store, held), axis=0)
    scores: dict[str, float] = opened.task.scores(torch.from_numpy(total_T[3:]), float(total_T[0] / total_T[1]))
    return scores


def _of_numbers(store: TokenStore, train: Any, held: Any, reads: tuple[str, ...]) -> dict[str, dict[str, float]]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    seen, wanted = np.asarray(train.values, np.float64), np.asarray(held.values, np.float64)
    found = {"mean": np.full(len(wanted), seen.mean())}
    if reads != ("text",):
        found |= media_baselines.numbers(train, held, reads)
    if "text" in reads:
        ridge = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), Ridge())
        ridge.fit(lines(store, train, range(len(train))), seen)
        found["tf-idf_+_ridge"] = ridge.predict(lines(store, held, range(len(held))))
    return {name: _numbers(guess, wanted) for name, guess in found.items()}


def _numbers(guess: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    flat = guess.std() < 1e-12 or wanted.std() < 1e-12
    return {
        "pearson": 0.0 if flat else float(np.corrcoef(guess, wanted)[0, 1]),
        "mae": float(np.abs(guess - wanted).mean()),
        "rmse": float(np.sqrt(((guess - wanted) ** 2).mean())),
    }


def _of_heads(task: Any, train: Any, held: Any) -> dict[str, dict[str, float]]:
    """Of each head its most frequent class, and TF-IDF with a linear SVM on the rows that have a class of it."""
    from orchestration.evaluation.evaluate import classical

    guesses: dict[str, dict[str, np.ndarray]] = {}
    for head in task.heads:
        own, asked = (np.flatnonzero(split.heads[head] >= 0) for split in (train, held))
        texts = train.texts(own), held.texts(asked)
        for name, guess in classical(texts[0], train.heads[head][own], texts[1]).items():
            guesses.setdefault(name, {})[head] = guess
    return {
        name: _of_guesses(task, held, by_head) for name, by_head in guesses.items() if len(by_head) == len(task.heads)
    }


def _of_guesses(task: Any, held: Any, by_head: dict[str, np.ndarray]) -> dict[str, float]:
    """The task's own scores of guessed classes."""
    import torch

    from models.tasks.rows import confusion

    parts = []
    for head, place in task.heads.items():
        wanted = torch.from_numpy(held.heads[head][held.heads[head] >= 0])
        size = place.stop - place.start
        parts.append(confusion(torch.from_numpy(by_head[head]), wanted, torch.ones(len(wanted)), size))
    found: dict[str, float] = task.scores(torch.cat(parts), 0.0)
    return found


def _of_tags(task: Any, train: Any, held: Any) -> dict[str, dict[str, float]]:
    """By the task's own scores, as the model's."""
    import torch

    from models.tasks.tagging import aligned

    def rows(split: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, tags, and where words begin: a word's tag stands at its first token."""
        every = np.arange(len(split))
        tags_BL = aligned(split.targets(every)).numpy()
        return aligned(split.input_ids(every)).numpy(), tags_BL, tags_BL >= 0

    (ids, seen, own), (held_ids, wanted, kept) = rows(train), rows(held)
    counts_VC = np.zeros((int(max(ids.max(), held_ids.max())) + 1, len(task.labels)), np.int64)
    np.add.at(counts_VC, (ids[own], seen[own]), 1)
    often = int(np.bincount(seen[own]).argmax())
    known_V = np.where(counts_VC.any(1), counts_VC.argmax(1), often)
    found = {
        "most_frequent_tag": np.full(wanted.shape, often),
        "most_frequent_tag_of_the_word": known_V[np.where(kept, held_ids, 0)],
    }
    words = torch.from_numpy(wanted), torch.from_numpy(kept), torch.ones(len(wanted))
    return {name: task.scores(task.tally_tags(torch.from_numpy(guess), *words), 0.0) for name, guess in found.items()}


def _of_tokens(task: Any, store: TokenStore, train: Any, held: Any) -> dict[str, dict[str, float]]:
    """Perplexity over the tokens that the model was asked for."""
    from orchestration.evaluation.ngram import NGram

    every = np.arange(len(train))
    vocabulary = 1 + max(int(np.max(np.concatenate(part.input_ids(np.arange(len(part)))))) for part in (train, held))
    counts_V = np.bincount(np.concatenate(train.input_ids(every)), minlength=vocabulary) + 1.0
    chance_V = counts_V / counts_V.sum()
    asked = np.concatenate(
        [
            targets[targets >= 0]
            for step in feed(task, store, held, pad_id=0).in_length_order()
            for micro in step.micros
            for targets in [micro.targets["tokens"].numpy()]
        ]
    )
    found = {
        "unigram": {
            "perplexity": float(np.exp(-np.log(chance_V[asked]).mean())),
            "accuracy": float((asked == chance_V.argmax()).mean()),
        }
    }
    if task.config.task in PAIRED:
        found["chance"] = {task.aim: 0.5}  # half of the pairs are changed
    if task.config.task == "causal_lm":
        model = NGram(vocabulary).fit(_texts(store, train))
        found["3-gram_kneser-ney"] = {"perplexity": model.perplexity(_texts(store, held))}
    return found


def _texts(store: TokenStore, split: Any) -> Any:
    """Token ids of each text, packed ones apart."""
    for at in range(len(split)):
        ids = split.input_ids([at])[0].tolist()
        start = 0
        for size in split.segments([at])[0] if store.packed else [len(ids)]:
            yield ids[start : start + size]
            start += size
