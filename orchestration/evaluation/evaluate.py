"""A model's score on a split, beside two baselines that saw the same rows. Takes a package and a token store; gives metrics as plain
values and writes them with a picture under `reports/`. Called by the driver inside a Ray session: predictions are Ray tasks, one a
worker, each with the package opened as an endpoint opens it; the baselines run in a task of their own meanwhile.

Baselines: the majority class of the training rows, and TF-IDF of words and word pairs with a linear SVM (Wang and Manning 2012
found such models hard to beat on short texts)."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import numpy as np

from orchestration import package
from orchestration.answers.facts import reads_of
from orchestration.data.store import TokenStore
from orchestration.errors import UserError
from orchestration.evaluation import assess, bars, examples, intervals, media_baselines
from orchestration.evaluation.calibration import calibration, chances, ranking
from orchestration.evaluation.slices import slices
from orchestration.evaluation.stored import stored_pairs, stored_rows
from orchestration.evaluation.two_texts import lines
from orchestration.storage import Storage

UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # Thai, kana, ideographs


def evaluate(
    storage: Storage,
    *,
    package_rel: str,
    store_rel: str,
    rows: int | None,
    workers: int,
    report_rel: str,
    split: str = "test",
    fold: int = 0,
    cpus: float = 1.0,
) -> dict[str, Any]:
    """`rows`, and of a store with folds the one that validated: the training rows the model saw (the baselines get the same).
    `workers`: tasks at once.

    Writes `<report_rel>/<split>.json` and `<split>.png`. Raises UserError where the split is empty or the labels differ.
    """
    import ray

    began = time.monotonic()
    store = TokenStore.open(storage, store_rel)
    known_fold = fold if store.folds else None
    held = store.split(split, known_fold)
    if not len(held):
        raise UserError(f"the {split} split of {storage.path(store_rel)} is empty; set data.split.{split} above 0")
    tasks = max(1, min(workers, len(held)))
    kind = package.read_json(storage.fetch(package_rel), "task.json")["task"]
    if kind != "classification":
        where: dict[str, Any] = {"package_rel": package_rel, "store_rel": store_rel, "split": split, "fold": known_fold}
        report = {
            "task": kind,
            "split": split,
            "package": package_rel,
            "store": store_rel,
            **assess.assess(storage, **where, rows=rows, tasks=tasks, cpus=cpus),
            "seconds": time.monotonic() - began,
        }
        return kept(storage, report, report_rel, bars.picture(report))
    task = ray.remote(num_cpus=cpus)
    # Longest rows are dealt out evenly: a task's rows are every n-th by length.
    dealt = np.argsort(held.lengths, kind="stable")
    parts = [dealt[number::tasks] for number in range(tasks)]
    predicting = [task(predict).remote(storage.url, package_rel, store_rel, split, known_fold, part) for part in parts]
    reads = reads_of(storage.fetch(package_rel))
    classical = task(baselines).remote(storage.url, store_rel, split, known_fold, rows, reads)
    logits_NC = np.empty((len(held), len(store.labels)), dtype=np.float32)
    for part, (found, labels) in zip(parts, ray.get(predicting), strict=True):
        if labels != store.labels:
            raise UserError(
                f"package {package_rel} has the labels {labels}, the store {store_rel} has {store.labels}; evaluate with the spec it was trained with"
            )
        logits_NC[part] = found
    labels_N, guesses = np.asarray(held.labels), ray.get(classical)
    explained = task(examples.explain).remote(
        storage.url, package_rel, store_rel, split, known_fold, examples.choose(logits_NC, labels_N)
    )
    report = {
        "task": kind,
        "split": split,
        "package": package_rel,
        "store": store_rel,
        "labels": store.labels,
        **score(logits_NC, labels_N, store.labels),
        "slices": slices(
            labels_N,
            logits_NC.argmax(1),
            len(store.labels),
            lengths_N=np.asarray(held.lengths),
            sources={name: np.asarray(held.sources) == number for number, name in enumerate(store.sources)},
        ),
        "baselines": {name: beside(labels_N, logits_NC.argmax(1), guess_N) for name, guess_N in guesses.items()},
        "examples": ray.get(explained),
        "seconds": time.monotonic() - began,
    }
    if report["examples"]:
        title = f"{package_rel.rpartition('/')[2][:12]}, {split} split"
        storage.write(f"{report_rel}/{split}.html", examples.page(report["examples"], title=title).encode())
        for example in report["examples"]:
            example.pop("picture", None)  # the page has it
    return kept(storage, report, report_rel, picture(report))


def kept(storage: Storage, report: dict[str, Any], report_rel: str, drawn: bytes) -> dict[str, Any]:
    """Written, and given back."""
    storage.write_json(f"{report_rel}/{report['split']}.json", report)
    storage.write(f"{report_rel}/{report['split']}.png", drawn)
    return report


def predict(
    storage_url: str, package_rel: str, store_rel: str, split: str, fold: int | None, rows: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Runs in a Ray task: logits (N, C) of the split's rows, from their texts and media, by the endpoint's own code."""
    storage = Storage(storage_url)
    opened = package.opened(storage, package_rel)
    store = TokenStore.open(storage, store_rel)
    held = store.split(split, fold)
    if store.pairs:
        return opened.logits_of(stored_pairs(store, held, rows)), opened.labels
    return opened.logits(stored_rows(held, rows, opened.task.config.reads)), opened.labels


def baselines(
    storage_url: str, store_rel: str, split: str, fold: int | None, rows: int | None, reads: tuple[str, ...] = ("text",)
) -> dict[str, np.ndarray]:
    """Runs in a Ray task: what the baselines guess of the split's rows; each reads what the model reads."""
    store = TokenStore.open(Storage(storage_url), store_rel)
    train, held = store.split("train", fold).head(rows), store.split(split, fold)
    own = np.flatnonzero(np.asarray(train.copies) == 0)  # augmented copies would weigh some rows twice
    seen = np.asarray(train.labels)[own]
    found = {"majority_class": np.full(len(held), np.bincount(seen).argmax())}
    if len(np.unique(seen)) > 1 and reads != ("text",):
        found |= media_baselines.classes(train.only(np.asarray(train.copies) == 0), held, reads)
    if "text" in reads:
        found |= classical(lines(store, train, own), seen, lines(store, held, range(len(held))))
    return found


def unspaced(texts: list[str]) -> bool:
    """Whether most letters are of scripts that write no spaces between words: Chinese, Japanese, Thai. A bag of words would be one of
    sentences there; single characters and pairs of them stand for words."""
    joined = "".join(texts)
    return 2 * len(UNSPACED.findall(joined)) > sum(map(str.isalpha, joined))


def beside(labels_N: np.ndarray, guess_N: np.ndarray, other_N: np.ndarray) -> dict[str, Any]:
    """A baseline's accuracy and macro F1, and the 95% interval of what the model's accuracy has over it on the same rows."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(labels_N, other_N)),
        "macro_f1": float(f1_score(labels_N, other_N, average="macro", zero_division=0)),
        "accuracy_gain": intervals.of_gain(labels_N, guess_N, other_N),
    }


def classical(texts: list[str], seen: np.ndarray, held: list[str]) -> dict[str, np.ndarray]:
    """Guesses for the held texts: the majority class, and TF-IDF with a linear SVM where there is more than one class."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    found = {"majority_class": np.full(len(held), np.bincount(seen).argmax())}
    if len(np.unique(seen)) > 1:
        chinese = unspaced(texts)
        pieces = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, analyzer="char" if chinese else "word")
        name = "tf-idf_of_characters_+_linear_svm" if chinese else "tf-idf_+_linear_svm"
        found[name] = make_pipeline(pieces, LinearSVC()).fit(texts, seen).predict(held)
    return found


def score(logits_NC: np.ndarray, labels_N: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Accuracy and macro F1 with their 95% intervals, log-loss, calibration, precision/recall/F1, areas under curves and support a class,
    confusion (rows: true, columns: predicted)."""
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

    guess_N, chance_NC = logits_NC.argmax(axis=1), chances(logits_NC)
    classes = list(range(len(names)))
    parts = precision_recall_fscore_support(labels_N, guess_N, labels=classes, zero_division=0)
    ranked = ranking(chance_NC, labels_N, names)
    return {
        "rows": len(labels_N),
        "accuracy": float(accuracy_score(labels_N, guess_N)),
        "macro_f1": float(f1_score(labels_N, guess_N, average="macro", zero_division=0)),
        "intervals": intervals.of_scores(labels_N, guess_N, len(names)),
        "log_loss": float(log_loss(labels_N, chance_NC, labels=classes)),
        "calibration": calibration(chance_NC, labels_N),
        "classes": {
            name: {key: float(part[i]) for key, part in zip(("precision", "recall", "f1", "rows"), parts, strict=True)}
            | ranked.get(name, {})
            for i, name in enumerate(names)
        },
        "confusion": confusion_matrix(labels_N, guess_N, labels=classes).tolist(),
    }


def picture(report: dict[str, Any]) -> bytes:
    """PNG: the confusion matrix, accuracy and macro F1 beside the baselines, and how often answers of each certainty are right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    side = min(12.0, max(4.5, 0.4 * len(report["labels"])))  # inches; a class needs 0.4 to be read
    figure, (left, right, last) = pyplot.subplots(
        1, 3, figsize=(side + 11, side), width_ratios=(side, 6.5, 4.5), layout="constrained"
    )
    _confusion(left, report)
    _calibration(last, report["calibration"])
    bars = {"this model": report, **{name.replace("_", " "): found for name, found in report["baselines"].items()}}
    places = np.arange(len(bars))
    for shift, metric in ((-0.2, "accuracy"), (0.2, "macro_f1")):
        drawn = right.bar(
            places + shift, [found[metric] for found in bars.values()], width=0.38, label=metric.replace("_f1", " F1")
        )
        right.bar_label(drawn, fmt="%.3f", padding=2)
    right.set(ylim=(0, 1.05), title="beside the baselines", xticks=places)
    right.set_xticklabels(list(bars))
    right.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, frameon=False
    )  # under the bars, not over them
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    pyplot.close(figure)
    return held.getvalue()


def _calibration(axis: Any, found: dict[str, Any]) -> None:
    """Points on the diagonal are probabilities that mean what they say; a larger point is more rows."""
    bins = found["bins"]
    most = max(one["rows"] for one in bins)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    sizes = [20 + 180 * one["rows"] / most for one in bins]
    axis.scatter([one["probability"] for one in bins], [one["accuracy"] for one in bins], s=sizes)
    axis.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="probability of the label given", ylabel="share that is right")
    axis.set_title(f"calibration error {found['ece']:.3f}")


def _confusion(axis: Any, report: dict[str, Any]) -> None:
    """Counts are written in while they can be read: up to 30 classes."""
    names, confusion = report["labels"], np.array(report["confusion"])
    small = {"fontsize": 7} if len(names) > 12 else {}
    axis.imshow(confusion, cmap="Blues")
    axis.set(title=f"{report['split']} split, {report['rows']:,} rows", xlabel="predicted", ylabel="true")
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, names)) > 30 else {}
    axis.set_xticks(range(len(names)), names, **turned, **small)
    axis.set_yticks(range(len(names)), names, **small)
    for (row, column), count in np.ndenumerate(confusion) if len(names) <= 30 else ():
        dark = count > confusion.max() / 2
        axis.text(column, row, f"{count:,}", ha="center", va="center", color="white" if dark else "black", **small)
