"""Rows that show what a classifier goes by: its surest mistakes and its surest right answers, with what each token adds to the answer
given. Takes a package, a store and the logits of a split; gives plain values, and a page to look at. Called by the evaluation of a
classifier, in a Ray task."""

from __future__ import annotations

import base64
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
    """Runs in a Ray task: of each row what is true and what was given; `words`, `[text, what it adds to the logit of the answer]`, of models
    of text; `patches` and the `picture` itself, a data URL, of models that read pictures. Empty for models that can tell neither: decoders,
    and those with prompts of their own."""
    from orchestration import package
    from orchestration.data.store import TokenStore

    storage = Storage(storage_url)
    opened = package.opened(storage, package_rel)
    pictured = "image" in opened.task.config.reads
    if not pictured and not readable(opened):
        return []
    store = TokenStore.open(storage, store_rel)
    held = store.split(split, fold)
    found = []
    for row, encoded, row_id in zip(rows, _encoded(opened, store, held, rows), held.ids_of(rows), strict=True):
        logits = opened.logits_of([encoded])[0]
        given = int(logits.argmax())
        found.append(
            {
                "row_id": row_id.hex(),
                "true": opened.labels[int(held.labels[row])],
                "given": opened.labels[given],
                "logit": float(logits[given]),
                **(_patches if pictured else _words)(opened, encoded, given),
            }
        )
    return found


def _encoded(opened: Any, store: Any, held: Any, rows: list[int]) -> list[Any]:
    """The rows as the model sees them."""
    from orchestration.evaluation.stored import stored_pairs, stored_rows

    if store.pairs:
        return stored_pairs(store, held, rows)
    asked = stored_rows(held, rows, opened.task.config.reads)
    found: list[Any] = (
        opened.encode_clean(asked) if all(isinstance(one, str) for one in asked) else opened.encode(asked)
    )
    return found


def readable(opened: Any) -> bool:
    """A model of text alone whose answer comes from all tokens together."""
    from models.families import FAMILIES

    family = FAMILIES.get(str(getattr(opened.model.config, "model_type", "")))
    adapter = opened.task.config.adapter
    prompted = adapter is not None and adapter.kind in ("prompt", "prefix")
    return (
        family is not None and family.reads == "both sides" and not prompted and opened.task.config.reads == ("text",)
    )


def _words(opened: Any, encoded: Any, given: int) -> Example:
    from models import tokens
    from models.attribution import attribute

    vocabulary = tokens.read(opened.folder)
    inputs = opened.task.inputs(opened.rows([encoded]), opened.pad_id)
    blank = vocabulary.special.get("mask", opened.pad_id)
    score_L, gap = attribute(opened.model, inputs, given, blank_id=blank)
    told = words(opened.tokenizer.library, np.asarray(encoded.ids), score_L.tolist(), vocabulary)
    return {"words": told, "gap": gap}


def _patches(opened: Any, encoded: Any, given: int) -> Example:
    """Of a row without a picture nothing."""
    from models.attribution import attribute_patches
    from orchestration import probes

    picture = encoded.media.get("image")
    if picture is None:
        return {}
    inputs = opened.task.inputs(opened.rows([encoded]), opened.pad_id)
    score_GG, gap = attribute_patches(opened.model, inputs, given)
    shown = f"data:image/png;base64,{base64.b64encode(probes.png(picture.mean(0).astype(np.uint8))).decode()}"
    return {"patches": score_GG.tolist(), "gap": gap, "picture": shown}


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
        ".what{color:#555;font-size:14px}.over{display:inline-block;position:relative}"
        ".grid{display:grid;position:absolute;inset:0}img{image-rendering:pixelated;vertical-align:top}</style>"
        f"<h1>{html.escape(title)}</h1><p>What is green speaks for the answer that was given, what is red against it (integrated gradients against a"
        " row of blanks, or a picture of the mean colour).</p>" + "".join(parts)
    )


def _row(example: Example) -> str:
    said = f"given {example['given']}, true {example['true']}, row {example['row_id'][:12]}"
    shown = " ".join(map(_marked, example.get("words", ()), _shares([score for _, score in example.get("words", ())])))
    if "patches" in example:
        shown = _covered(example)
    return f"<p><span class='what'>{html.escape(said)}</span><br>{shown}</p>"


def _shares(scores: list[float]) -> list[float]:
    """From -1 to 1."""
    most = max(map(abs, scores), default=0.0) or 1.0
    return [score / most for score in scores]


def _colour(share: float) -> str:
    return f"rgba({'0,150,60' if share > 0 else '210,40,40'},{abs(share) * 0.7:.2f})"


def _marked(word: tuple[str, float], share: float) -> str:
    text, score = word
    return f"<span style='background:{_colour(share)}' title='{score:+.3f}'>{html.escape(text)}</span>"


def _covered(example: Example) -> str:
    """The picture, and the same under a grid of what each patch adds."""
    count, side = len(example["patches"]), 160
    shares = _shares([score for row in example["patches"] for score in row])
    cells = "".join(f"<i style='background:{_colour(share)}'></i>" for share in shares)
    image = f"<img src='{example['picture']}' width={side} height={side}>"
    grid = f"<div class='grid' style='grid-template:repeat({count},1fr)/repeat({count},1fr)'>{cells}</div>"
    return f"{image} <div class='over'>{image}{grid}</div>"
