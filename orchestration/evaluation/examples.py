"""Rows that show what a classifier goes by: its surest mistakes and its surest right answers, with what each token adds to the answer
given. Takes a package, a store and the logits of a split; gives plain values, and a page to look at. Called by the evaluation of a
classifier, in a Ray task."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from orchestration.storage import Storage

SHOWN = 6  # of each kind
Example = dict[str, Any]


def choose(logits_NC: np.ndarray, labels_N: np.ndarray) -> list[int]:
    """Rows by falling distance between the two highest logits: mistakes first, then right answers."""
    if logits_NC.shape[1] < 2:
        return []
    top_N2 = np.sort(logits_NC, axis=1)[:, -2:]
    order = np.argsort(top_N2[:, 0] - top_N2[:, 1], kind="stable")
    right_N = logits_NC.argmax(1) == labels_N
    return [*order[~right_N[order]][:SHOWN].tolist(), *order[right_N[order]][:SHOWN].tolist()]


def explain(
    storage_url: str, package_rel: str, store_rel: str, split: str, fold: int | None, rows: list[int]
) -> list[Example]:
    """Runs in a Ray task: of each row what is true, what was given, and `words`: (text, what it adds to the logit of the answer). None at
    all for a model whose answer does not come from all tokens together (a decoder's, or one with prompts of its own)."""
    from models import tokens
    from models.attribution import attribute
    from models.tasks.base import Rows
    from orchestration import package
    from orchestration.data.store import TokenStore

    storage = Storage(storage_url)
    opened = package.opened(storage, package_rel)
    if not explainable(opened):
        return []
    held = TokenStore.open(storage, store_rel).split(split, fold)
    vocabulary = tokens.read(opened.folder)
    blank = vocabulary.special.get("mask", opened.pad_id)
    found = []
    for row, text, row_id in zip(rows, held.texts(rows), held.ids_of(rows), strict=True):
        (encoded,) = opened.encode_clean([text])
        ids = np.asarray(encoded.ids)
        inputs = opened.task.inputs(Rows([ids]), opened.pad_id)
        logits = opened.logits_of([encoded])[0]
        given = int(logits.argmax())
        score_L, gap = attribute(opened.model, inputs, given, blank_id=blank)
        found.append(
            {
                "row_id": row_id.hex(),
                "true": opened.labels[int(held.labels[row])],
                "given": opened.labels[given],
                "logit": float(logits[given]),
                "words": words(opened.tokenizer.library, ids, score_L.tolist(), vocabulary),
                "gap": gap,
            }
        )
    return found


def explainable(opened: Any) -> bool:
    from models.families import FAMILIES

    family = FAMILIES.get(str(getattr(opened.model.config, "model_type", "")))
    adapter = opened.task.config.adapter
    prompted = adapter is not None and adapter.kind in ("prompt", "prefix")
    return family is not None and family.reads == "both sides" and not prompted


def words(library: Any, ids: np.ndarray, scores: list[float], vocabulary: Any) -> list[list[Any]]:
    """`[text, what it adds]` of each word: tokens that go on one are added to it, special ones left out."""
    found: list[tuple[list[int], float]] = []
    for token, score in zip(ids.tolist(), scores, strict=True):
        if token in vocabulary.special_ids:
            continue
        if found and vocabulary.continues_V[token]:
            before, so_far = found[-1]
            found[-1] = ([*before, token], so_far + score)
        else:
            found.append(([token], score))
    return [[library.decode(tokens), score] for tokens, score in found]


def page(examples: list[Example], *, title: str) -> str:
    """HTML that stands alone: words in green speak for the answer, in red against it."""
    wrong = [one for one in examples if one["given"] != one["true"]]
    right = [one for one in examples if one["given"] == one["true"]]
    parts = [
        f"<h2>{name}</h2>{''.join(map(_row, rows))}"
        for name, rows in (("Surest mistakes", wrong), ("Surest right answers", right))
        if rows
    ]
    return (
        f"<!doctype html><meta charset='utf-8'><title>{html.escape(title)}</title>"
        "<style>body{font:16px/1.7 sans-serif;max-width:60em;margin:2em auto}span{padding:2px 3px;border-radius:3px}"
        ".what{color:#555;font-size:14px}</style>"
        f"<h1>{html.escape(title)}</h1><p>Green words speak for the answer that was given, red ones against it (integrated gradients against a"
        " row of blanks).</p>" + "".join(parts)
    )


def _row(example: Example) -> str:
    most = max((abs(score) for _, score in example["words"]), default=0.0) or 1.0
    shown = " ".join(
        f"<span style='background:rgba({'0,150,60' if score > 0 else '210,40,40'},{abs(score) / most * 0.7:.2f})' title='{score:+.3f}'>{html.escape(text)}</span>"
        for text, score in example["words"]
    )
    said = f"given {example['given']}, true {example['true']}, row {example['row_id'][:12]}"
    return f"<p><span class='what'>{html.escape(said)}</span><br>{shown}</p>"
