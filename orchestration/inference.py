"""Forward passes of a model on the CPU. Takes rows as the model's task reads them (token ids of any length, media); gives numbers a row
(logits of a classifier) and what a caller is told of them. Called by the package, so by evaluation and by every serving replica. Knows nothing of files."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.labels import parted
from orchestration.errors import UserError

if TYPE_CHECKING:
    from models.tasks.base import Rows, Task

TOLERANCE = 1e-5  # largest difference of a logit, relative where the logits are above 1 (fp32 has 7 digits)


def logits(model: Any, rows: Rows, *, task: Task, pad_id: int, micro_batch: int, threads: int) -> np.ndarray:
    """(N, C) float32 in the order of `rows`: the task's numbers of each row, C of them. Rows of like length share a pass, so little is
    spent on padding."""
    result_NC = np.empty((len(rows), task.width), dtype=np.float32)
    with torch_threads(threads):
        for part in micro_batches([len(row) for row in rows.ids], micro_batch):
            result_NC[part] = forward(model, taken(rows, part), task=task, pad_id=pad_id)
    return result_NC


def forward(model: Any, rows: Rows, *, task: Task, pad_id: int) -> np.ndarray:
    """(B, C) float32 of one padded batch."""
    import torch

    inputs = task.given(rows, pad_id)
    with torch.inference_mode():
        return task.outcome(task.read(model(**inputs)), inputs.get("attention_mask")).float().numpy()


def taken(rows: Rows, part: Sequence[int]) -> Rows:
    """Those rows alone: what a model reads of them."""
    media = {kind: [arrays[row] for row in part] for kind, arrays in rows.media.items()}
    pair_at = None if rows.pair_at is None else [rows.pair_at[row] for row in part]
    withheld = None if rows.withheld is None else [rows.withheld[row] for row in part]
    return dataclasses.replace(
        rows, ids=[rows.ids[row] for row in part], media=media, pair_at=pair_at, withheld=withheld
    )


def micro_batches(lengths: Sequence[int], most: int, *, overhead_tokens: int = 16) -> list[list[int]]:
    """Rows by rising length, cut where the whole costs least: a pass costs rows x longest + overhead, in tokens.

    The overhead is what a pass costs beside its tokens: 5 ms against 0.28 ms a token, measured for 6 layers of 384 on
    one core. Dynamic programming over the sorted rows, O(N x most).
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cost, cut = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        starts = range(max(0, end - most), end)
        best, start = min((cost[start] + (end - start) * longest + overhead_tokens, start) for start in starts)
        cost.append(best)
        cut.append(start)
    groups, end = [], len(order)
    while end > 0:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]


def results(logits_NC: np.ndarray, labels: Sequence[str], truncated: Sequence[bool]) -> list[dict[str, Any]]:
    """`{"label", "score", "scores": {label: probability}, "truncated"}` a row; scores are softmax probabilities."""
    exp_NC = np.exp(logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True))
    scores_NC = exp_NC / exp_NC.sum(axis=1, keepdims=True)
    found = []
    for scores_C, cut in zip(scores_NC.tolist(), truncated, strict=True):
        scores = dict(zip(labels, scores_C, strict=True))
        label = max(scores, key=scores.__getitem__)
        found.append({"label": label, "score": scores[label], "scores": scores, "truncated": bool(cut)})
    return found


def by_head(logits_NC: np.ndarray, truncated: Sequence[bool], labels: Sequence[str]) -> list[dict[str, Any]]:
    """`{"heads": {head: {"label", "score", "scores"}}, "truncated"}` a row; `labels`: `head:class`, of each head side by side."""
    found: list[dict[str, Any]] = [{"heads": {}, "truncated": bool(cut)} for cut in truncated]
    at = 0
    for head, names in parted(list(labels)).items():
        each = results(logits_NC[:, at : at + len(names)], names, truncated)
        at += len(names)
        for row, result in zip(found, each, strict=True):
            row["heads"][head] = {key: result[key] for key in ("label", "score", "scores")}
    return found


def check_logits(found_NC: np.ndarray, wanted: Any, shown: str) -> None:
    """Raises UserError unless both agree within TOLERANCE, naming the row that differs most."""
    wanted_NC = np.asarray(wanted, dtype=np.float32)
    if found_NC.shape != wanted_NC.shape:
        raise UserError(f"{shown}: logits of shape {found_NC.shape}, the training-time ones have {wanted_NC.shape}")
    difference_NC = np.abs(found_NC - wanted_NC) / np.maximum(1.0, np.abs(wanted_NC))
    if not np.all(difference_NC <= TOLERANCE):  # also false for NaN
        row = int(np.argmax(difference_NC.max(axis=1)))
        raise UserError(
            f"{shown}: the logits of probe text {row} are {found_NC[row].tolist()}, at training time"
            f" {wanted_NC[row].tolist()}; they must agree within {TOLERANCE}, so it is refused; export the checkpoint"
            " again with the installed library versions"
        )


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch threads for this block; the calling thread gets its number back."""
    import torch

    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
